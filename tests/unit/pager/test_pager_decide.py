"""Who is told of what, by hand: no broker, no database, no clock."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from midwatch.contracts.control import AlertRule
from midwatch.contracts.governance import AlertRaised
from midwatch_services.pager.decide import Decision, Known, Plan, Refresh, Tell, Withdraw, acknowledged, judge, raised
from midwatch_services.pager.decide import resolved as resolve
from midwatch_services.pager.policy import Channel, Policy, Route, Step, route_of
from midwatch_services.pager.state import Acknowledged, Alert, Group, Raised, Resolved
from pager_helpers import NOON

MINUTE = timedelta(minutes=1)
CHAIN = Route("on-call", (Step(("ann",), 10 * MINUTE), Step(("bob", "lead"), 15 * MINUTE)))
MONEY = Route("money", (Step(("lead",), MINUTE),), rules=frozenset({"budget_run"}), agents=frozenset({"desk"}))
TICKETS = Route("tickets", (Step(("lead",), MINUTE),), severities=frozenset({"ticket"}))
POLICY = Policy(
    channels={name: Channel(name, "webhook", f"https://x.example/{name}") for name in ("ann", "bob", "lead", "spare")},
    contacts={"ann": ("ann",), "bob": ("bob",), "lead": ("lead", "bob")}, routes=(MONEY, TICKETS, CHAIN),
    default="on-call",
)  # fmt: skip


class World:
    """One group, as its events come."""

    def __init__(self, route: Route | None = CHAIN, dead: tuple[str, ...] = ()) -> None:
        self.now = NOON
        self.plan = Plan(POLICY, route, dead)
        self.alerts: dict[str, Alert] = {}
        self.group: Group | None = None

    def raise_(self, alert_id: str = "a", **fields: Any) -> list[Decision]:
        spared, waited = fields.pop("spared", ""), fields.pop("waited", timedelta(0))
        data = AlertRaised(
            **{"alert_id": alert_id, "rule": "loop", "severity": "page", "title": "It loops", "agent": "desk",
               "dedupe_key": alert_id, **fields}
        )  # fmt: skip
        same = next(
            (one for one in self.alerts.values() if one.phase == "open" and one.dedupe_key == data.dedupe_key), None
        )
        alive = self.group if self.group and self.group.ended_at is None else None
        event = Raised(data=data, at=self.now, waited=waited, spared=spared)
        return self._take(raised(Known(self.alerts.get(alert_id), same, alive), event, POLICY, self.now))

    def resolve(self, alert_id: str = "a") -> list[Decision]:
        known = Known(self.alerts.get(alert_id), None, self.group if alert_id in self.alerts else None)
        return self._take(resolve(known, Resolved(alert_id=alert_id, reason="done", at=self.now), self.now))

    def acknowledge(self, alert_id: str = "a") -> list[Decision]:
        known = Known(self.alerts.get(alert_id), None, self.group if alert_id in self.alerts else None)
        return self._take(acknowledged(known, Acknowledged(alert_id=alert_id, by="ann", at=self.now), self.now))

    def _take(self, outcome: Any) -> list[Decision]:
        self.alerts |= {one.alert_id: one for one in outcome.alerts}
        self.group = outcome.group or self.group
        return [*outcome.decisions, *self.look()]

    def look(self, after: timedelta = timedelta(0), *, read_on: bool = False) -> list[Decision]:
        self.now += after
        if self.group is None:
            return []
        self.group, decisions = judge(self.group, self.plan, self.now, read_on=read_on)
        return decisions


def said(decisions: list[Decision]) -> list[tuple[str, tuple[str, ...]]]:
    return [(one.what, one.channels) for one in decisions if isinstance(one, Tell)]


def test_the_first_of_a_cause_is_told_at_once_and_the_next_in_an_update() -> None:
    world = World()
    assert said(world.raise_("a")) == [("page", ("ann",))]
    assert world.raise_("b") == world.raise_("c") == []
    assert said(world.look(4 * MINUTE)) == []
    (update,) = [one for one in world.look(MINUTE) if isinstance(one, Tell)]
    assert (update.what, update.note) == ("update", "2 more of the same cause are open")
    assert said(world.look(4 * MINUTE)) == []


def test_what_joined_and_is_over_before_the_update_is_not_told() -> None:
    world = World()
    world.raise_("a")
    world.raise_("b")
    world.resolve("b")
    assert said(world.look(6 * MINUTE)) == []


def test_the_chain_is_gone_along_and_its_last_step_repeated_at_twice_the_time_up_to_hours() -> None:
    world = World()
    world.raise_("a")
    assert said(world.look(10 * MINUTE)) == [("escalated", ("bob", "lead"))]
    gaps = []
    for _ in range(8):
        waited = 0
        while not said(world.look(MINUTE)):
            waited += 1
        gaps.append(waited + 1)
    assert gaps == [15, 30, 60, 120, 240, 240, 240, 240]


def test_an_acknowledged_group_goes_no_further_and_takes_back_what_would_press_on() -> None:
    world = World()
    world.raise_("a")
    world.raise_("b")
    assert world.acknowledge("b") == [Withdraw("a", end=False)]
    assert said(world.look(5 * MINUTE)) == [("update", ("ann",))]
    assert said(world.look(timedelta(hours=3))) == []


def test_what_joins_long_after_the_acknowledgement_pages_anew() -> None:
    world = World()
    world.raise_("a")
    world.acknowledge("a")
    world.look(timedelta(hours=4))
    assert said(world.raise_("b")) == [("update", ("ann",))], "the acknowledgement holds, and the last message is old"
    world.look(timedelta(seconds=1))
    assert said(world.raise_("c")) == [("page", ("ann",))]


def test_a_group_is_over_once_it_was_calm_and_its_end_is_told_once() -> None:
    world = World()
    world.raise_("a")
    world.resolve("a")
    world.look(30 * timedelta(seconds=1))
    assert said(world.raise_("b")) == [], "it came back"
    world.resolve("b")
    assert said(world.look(timedelta(seconds=59))) == []
    withdrawn, end = world.look(timedelta(seconds=1))
    assert withdrawn == Withdraw("a", end=True)
    assert isinstance(end, Tell)
    assert (end.what, end.note, end.channels) == ("ended", "done", ("ann",))
    assert world.look(timedelta(hours=9)) == []
    assert said(world.raise_("c")) == [("page", ("ann",))], "what comes then is news"


def test_a_late_alert_waits_until_the_stream_is_read_to_its_end_and_no_longer_than_a_minute() -> None:
    world = World()
    assert said(world.raise_("a", waited=timedelta(hours=1))) == []
    assert said(world.look(timedelta(seconds=5))) == []
    assert said(world.look(read_on=True)) == [("page", ("ann",))]
    over = World()
    over.raise_("a", waited=timedelta(hours=1))
    assert over.resolve("a") == []
    assert over.group is not None
    assert over.group.ended_at is not None
    slow = World()
    slow.raise_("a", waited=timedelta(hours=1))
    assert said(slow.look(MINUTE)) == [("page", ("ann",))]


def test_an_alert_of_last_week_is_kept_and_told_to_nobody() -> None:
    world = World()
    assert world.raise_("a", waited=timedelta(days=7)) == []
    assert world.alerts["a"].phase == "unsent"


def test_where_no_channel_of_a_step_works_the_next_step_is_told_at_once() -> None:
    world = World(dead=("ann",))
    assert said(world.raise_("a")) == [("page", ("ann", "bob", "lead"))]
    assert said(world.look(14 * MINUTE)) == []


def test_the_death_of_a_channel_is_told_through_none_that_is_dead_and_through_any_that_lives() -> None:
    route = Route("alone", (Step(("ann",), 10 * MINUTE),))
    world = World(route, dead=("ann", "bob"))
    assert said(world.raise_("a", rule="channel_dead", agent="_fleet", spared="ann")) == [("page", ("lead", "spare"))]
    nothing = World(route, dead=("ann", "bob", "lead", "spare"))
    assert said(nothing.raise_("a", rule="channel_dead", agent="_fleet", spared="ann")) == []
    nothing.plan = Plan(POLICY, route, ("ann",))
    assert said(nothing.look()) == [("page", ("bob", "lead", "spare"))]


def test_a_firing_group_is_refreshed_each_minute() -> None:
    world = World()
    world.raise_("a")
    assert [type(one) for one in world.look(MINUTE)] == [Refresh]
    assert world.look(timedelta(seconds=59)) == []


def test_the_newer_of_two_under_one_key_stands_for_the_cause_whichever_came_first() -> None:
    world = World()
    world.raise_("new", dedupe_key="k")
    world.now -= MINUTE
    world.raise_("old", dedupe_key="k")
    assert (world.alerts["new"].phase, world.alerts["old"].phase) == ("open", "superseded")
    world.resolve("old")
    assert world.group is not None
    assert (world.group.open, world.group.repeats) == (1, 1)
    world.resolve("new")
    assert world.group.open == 0


def test_an_id_that_is_used_again_after_its_end_is_a_new_alert_and_a_late_repeat_is_not() -> None:
    world = World()
    world.raise_("a")
    began, world.now = world.now, world.now + MINUTE
    world.resolve("a")
    world.now, ended = began, world.now
    assert world.raise_("a") == []
    assert world.alerts["a"].phase == "resolved"
    world.now = ended + MINUTE
    world.look()
    (page,) = world.raise_("a")
    assert isinstance(page, Tell)
    assert page.what == "page"
    assert page.id != "a-1", "another message"


@pytest.mark.parametrize("order", ["raise resolve", "resolve raise", "resolve raise resolve raise"])
def test_in_whatever_order_they_come_an_alert_that_is_over_is_not_open(order: str) -> None:
    world = World()
    for word in order.split():
        world.raise_("a") if word == "raise" else world.resolve("a")
    assert world.alerts["a"].phase == "resolved"
    assert world.group is None or world.group.open == 0


def test_a_group_that_was_taken_on_and_never_ended_is_forgotten_after_a_month() -> None:
    world = World()
    world.raise_("a")
    world.acknowledge("a")
    world.look(timedelta(days=31))
    assert world.group is not None
    assert world.group.ended_at is not None


@pytest.mark.parametrize(
    ("wanted", "severity", "agent", "rule", "name"),
    [
        (AlertRule(), "page", "desk", "loop", "on-call"),
        (AlertRule(), "page", "desk", "budget_run", "money"),
        (AlertRule(), "page", "other", "budget_run", "on-call"),
        (AlertRule(), "ticket", "other", "loop", "tickets"),
        (AlertRule(page="tickets"), "page", "desk", "budget_run", "tickets"),
        (AlertRule(page="bob"), "page", "desk", "loop", "bob"),
        (AlertRule(ticket="bob"), "page", "desk", "loop", "on-call"),
        (AlertRule(page="nobody"), "page", "desk", "loop", "on-call"),
        (AlertRule(page="bob"), "page", "_fleet", "loop", "on-call"),
    ],
)
def test_the_card_goes_before_the_routes_and_those_before_the_default(
    wanted: AlertRule, severity: str, agent: str, rule: str, name: str
) -> None:
    route, remark = route_of(POLICY, wanted, severity, agent, rule)
    assert route is not None
    assert route.name == name
    assert bool(remark) == (wanted.page == "nobody")


def test_a_decision_has_the_same_id_whenever_it_is_made() -> None:
    one, other = World(), World()
    (first,), (second,) = one.raise_("a"), other.raise_("a")
    assert isinstance(first, Tell)
    assert isinstance(second, Tell)
    assert first.id == second.id == "a-1"
    assert one.group is not None
    assert replace(one.group) == other.group


STEP = st.tuples(
    st.sampled_from(["raise", "raise", "resolve", "resolve", "acknowledge", "look"]),
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(["k", "own"]),
    st.integers(0, 900),  # seconds until then
)


@settings(max_examples=200)
@given(st.lists(STEP, max_size=40))
def test_whatever_comes_in_whatever_order_the_counts_are_true_and_a_group_ends_as_it_began(
    steps: list[tuple[str, str, str, int]],
) -> None:
    world = World()
    told: list[tuple[str, str]] = []
    for word, name, key, seconds in steps:
        world.now += timedelta(seconds=seconds)
        found = world.look()
        if word == "raise":
            found += world.raise_(name, dedupe_key=key if key == "k" else name)
        elif word == "resolve":
            found += world.resolve(name)
        elif word == "acknowledge":
            found += world.acknowledge(name)
        told += [(one.group.group_id, one.what) for one in found if isinstance(one, Tell)]
        if world.group is not None:
            open_now = [one for one in world.alerts.values() if one.phase == "open"]
            assert world.group.open == len(open_now)
            assert len({one.dedupe_key for one in open_now}) == len(open_now), "one open alert a key"
            assert 0 <= world.group.untold <= world.group.open
            assert world.group.open == 0 or world.group.ended_at is None
    for group in {group for group, _ in told}:
        mine = [what for one, what in told if one == group]
        assert mine.count("ended") <= 1
        assert "ended" not in mine[:-1], "nothing is said after the end"
        assert mine[0] != "ended"
