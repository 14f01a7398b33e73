"""When an agent's rate falls, holds, and comes back."""

from datetime import UTC, date, datetime, timedelta

import pytest
from msgspec.structs import replace

from midwatch.contracts import subjects
from midwatch.contracts.control import ReviewRule, SwitchRecord
from midwatch.contracts.governance import AlertRaised, SwitchMoved
from midwatch_services.reviewer_sampler.schedule import decide, policy
from midwatch_services.reviewer_sampler.schedule.decide import (
    Counts,
    State,
    evaluate,
    follow_card,
    met_version,
    snapped,
)
from midwatch_services.reviewer_sampler.schedule.triggers import Trigger, trigger_of

RULE = policy.of(ReviewRule())  # 20 %, 30 days, then 10, 5, 2 %, limit 3 %
GOOD, BAD, NONE = Counts(400, 2), Counts(60, 20), Counts()  # up to 1.8 %, at least 16.6 %, nothing


def at(day: str, hour: int = 12) -> float:
    return datetime.fromisoformat(f"{day}T{hour:02d}:00:00+00:00").timestamp()


def new() -> State:
    return decide.began(RULE, "1", at("2026-01-01"))


def lived(state: State, until: str, counts: Counts = GOOD, recent: Counts = NONE) -> State:
    """The state once the day `until` is over, each day with the same verdicts."""
    day = date.fromisoformat(state.day)
    while day < date.fromisoformat(until):
        day += timedelta(days=1)
        state = evaluate(state, day.isoformat(), counts, recent)
    return state


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [
        (0, 0, 0.0, 1.0),
        (0, 100, 0.0, 0.0370),
        (2, 100, 0.0055, 0.0700),
        (10, 100, 0.0552, 0.1744),
        (100, 100, 0.9630, 1.0),
    ],
)
def test_wilsons_bounds_are_those_of_the_tables(hits: int, of: int, low: float, high: float) -> None:
    # Worked out with bc.
    assert decide.wilson(hits, of) == pytest.approx((low, high), abs=5e-5)


def test_the_first_rate_holds_for_the_first_days_then_the_taper_takes_a_step_a_week() -> None:
    assert (lived(new(), "2026-01-29").rate, lived(new(), "2026-01-30").rate) == (0.2, 0.1)
    assert (lived(new(), "2026-02-05").rate, lived(new(), "2026-02-06").rate) == (0.1, 0.05)
    assert (lived(new(), "2026-02-12").rate, lived(new(), "2026-02-13").rate) == (0.05, 0.02)
    last = lived(new(), "2026-12-31")
    assert (last.rate, last.step, last.number) == (0.02, 3, 4)


def test_a_step_says_what_it_was_decided_by() -> None:
    state = lived(new(), "2026-01-30")
    assert (state.cause, state.judged, state.failed, state.since) == ("tapered", 402, 2, "2026-01-31")
    assert state.upper == pytest.approx(0.0180, abs=5e-5)


@pytest.mark.parametrize("counts", [NONE, Counts(124, 0), Counts(0, 0, 900), Counts(100, 3), Counts(90, 10)])
def test_nothing_falls_while_the_agent_may_still_fail_too_often(counts: Counts) -> None:
    assert lived(new(), "2026-12-31", counts).step == 0


def test_125_passes_are_enough_for_three_per_cent() -> None:
    # z² / (n + z²) < 0.03 from n = 125 on
    assert lived(new(), "2026-01-30", Counts(125, 0)).step == 1


@pytest.mark.parametrize(
    ("counts", "step"),
    [
        (Counts(125, 0, 0, 30), 1),  # nobody failed them
        (Counts(125, 0, 0, 1, 1), 0),  # up to 4.4 % of 126 if the one failed
        (Counts(238, 0, 0, 2, 2), 1),  # 2 of 240 are up to 2.99 %
        (Counts(237, 1, 0, 2, 2), 0),  # 3 of 240 are up to 3.6 %
    ],
)
def test_nothing_falls_while_what_waits_for_one_more_person_could_hold_it(counts: Counts, step: int) -> None:
    assert lived(new(), "2026-01-30", counts).step == step


def test_what_waits_for_one_more_person_brings_nothing_back() -> None:
    state = lived(new(), "2026-01-30")
    doubted = Counts(130, 0, 0, 90, 90)
    assert lived(state, "2026-12-31", doubted, doubted) == replace(state, day="2026-12-31")


def test_a_bound_above_the_limit_takes_one_step_back_and_the_next_a_week_later() -> None:
    state = lived(new(), "2026-03-01")
    assert state.step == 3
    state = lived(state, "2026-03-02", Counts(400, 10), Counts(20, 1))
    assert (state.step, state.cause, state.since) == (2, "loosened", "2026-03-03")
    assert lived(state, "2026-03-08", Counts(400, 10)).step == 2
    assert lived(state, "2026-03-09", Counts(400, 10)).step == 1
    assert lived(state, "2026-03-16", Counts(400, 10)).step == 0
    assert lived(state, "2026-12-31", Counts(400, 10)).number == state.number + 2


def test_what_came_back_by_single_steps_falls_again_after_a_week() -> None:
    state = lived(new(), "2026-01-30")
    state = lived(state, "2026-01-31", Counts(400, 10))
    assert (state.step, state.cause) == (0, "loosened")
    assert (lived(state, "2026-02-06").step, lived(state, "2026-02-07").step) == (0, 1)


def test_recent_runs_that_prove_it_bring_the_first_rate_back_at_once() -> None:
    state = lived(new(), "2026-03-01")
    state = lived(state, "2026-03-02", Counts(400, 2), BAD)
    assert (state.step, state.rate, state.cause, state.judged, state.failed) == (0, 0.2, "failing", 80, 20)
    assert state.zero == at("2026-03-03", 0)  # what was drawn before counts no more
    assert (lived(state, "2026-03-31").step, lived(state, "2026-04-01").step) == (0, 1)


def test_one_fail_of_few_proves_nothing_but_takes_a_step_back() -> None:
    state = lived(new(), "2026-03-01")
    assert Counts(1, 1).bounds[0] > 0.03
    assert lived(state, "2026-03-02", Counts(1, 1), Counts(1, 1)).step == 2
    assert lived(state, "2026-03-02", Counts(8, 2), Counts(8, 2)).step == 0


def test_at_the_first_rate_a_failing_agent_changes_nothing() -> None:
    state = lived(new(), "2026-12-31", BAD, BAD)
    assert (state.step, state.number, state.zero) == (0, 1, new().zero)


def test_a_day_is_judged_once_and_an_earlier_one_never_after_it() -> None:
    state = lived(new(), "2026-01-30")
    assert evaluate(state, "2026-01-30", GOOD, BAD) == state
    assert evaluate(state, "2026-01-12", GOOD, BAD) == state


def test_days_that_were_missed_are_judged_one_by_one() -> None:
    assert [*decide.due(new(), "2026-01-04")] == ["2026-01-01", "2026-01-02", "2026-01-03"]
    assert [*decide.due(lived(new(), "2026-01-03"), "2026-01-04")] == []


def test_a_new_version_brings_the_first_rate_back_once() -> None:
    state = lived(new(), "2026-03-01")
    back = met_version(state, "2", at("2026-03-02"))
    assert (back.rate, back.cause, back.what, back.version) == (0.2, "version", "2", "2")
    assert back.zero == at("2026-03-02")
    for version in ("1", "2", "1"):  # a canary: both run
        assert met_version(back, version, at("2026-03-03")) == back


def test_runs_of_an_old_version_that_come_late_change_nothing() -> None:
    state = lived(met_version(new(), "2", at("2026-01-05")), "2026-03-01")
    assert met_version(state, "1", at("2026-03-02")) == state
    # never seen, but stored before what brought the first rate back already: it is only remembered
    late = met_version(state, "0", at("2026-01-04"))
    assert (late.step, late.number, late.zero) == (state.step, state.number, state.zero)


def test_what_brings_it_back_does_so_whatever_the_order_and_however_often() -> None:
    state = lived(new(), "2026-03-01")
    early, late = ("incident", "budget_run", at("2026-03-02", 3)), ("halt", "agent.desk", at("2026-03-02", 9))
    in_order = snapped(snapped(state, *early), *late)  # type: ignore[arg-type]
    reversed_ = snapped(snapped(state, *late), *early)  # type: ignore[arg-type]
    again = snapped(snapped(in_order, *early), *late)  # type: ignore[arg-type]
    assert again == in_order
    assert (in_order.step, in_order.number) == (reversed_.step, reversed_.number) == (0, state.number + 1)
    tapered = lived(in_order, "2026-05-01")
    assert snapped(snapped(tapered, *late), *early) == tapered  # type: ignore[arg-type]


def test_what_comes_late_counts_from_when_it_happened() -> None:
    state = lived(new(), "2026-03-01")
    back = snapped(state, "drift", "drift", at("2026-02-20"))
    assert (back.step, back.since, back.zero) == (0, "2026-02-20", at("2026-02-20"))
    assert lived(back, "2026-03-21").step == 1


def test_at_the_first_rate_a_page_begins_the_days_anew_at_most_once_a_day() -> None:
    state = snapped(new(), "incident", "budget_run", at("2026-01-10", 8))
    again = snapped(state, "incident", "velocity", at("2026-01-10", 9))
    assert (state.since, state.number, again.number, again.zero) == ("2026-01-10", 2, 2, state.zero)
    assert (lived(again, "2026-02-07").step, lived(again, "2026-02-08").step) == (0, 1)


def test_a_changed_card_keeps_the_step_and_says_its_new_rate() -> None:
    state = lived(new(), "2026-02-06")
    assert follow_card(state, RULE) == state
    after = follow_card(state, policy.of(ReviewRule(rate=0.25, taper=(0.15, 0.08))))
    assert (after.step, after.rate, after.cause, after.number) == (2, 0.08, "card", state.number + 1)
    shorter = follow_card(state, policy.of(ReviewRule(taper=(0.1,))))
    assert (shorter.step, shorter.rate, shorter.cause) == (1, 0.1, "card")
    limit_only = follow_card(state, policy.of(ReviewRule(fail_limit=0.05)))
    assert (limit_only.number, limit_only.rule.fail_limit) == (state.number, 0.05)


@pytest.mark.parametrize(
    ("counts", "today", "expected"),
    [
        (NONE, "2026-01-11", "None of the runs drawn since 2026-01-01 has been judged."),
        (Counts(100, 4), "2026-01-11",
         "4 of 104 judged runs failed: it may fail in up to 9.5%, which is not under 3.0%."),
        (GOOD, "2026-01-11", "This rate holds for 30 days: 20 are left."),
        (GOOD, "2026-01-30", "This rate holds for 30 days: 1 is left."),
        (GOOD, "2026-01-31", "It falls when today is over, unless a verdict changes that."),
    ],
)  # fmt: skip
def test_why_it_does_not_fall_is_one_sentence(counts: Counts, today: str, expected: str) -> None:
    assert decide.why(new(), counts, today) == expected


def test_the_last_rate_says_so() -> None:
    assert decide.why(lived(new(), "2026-06-01"), GOOD, "2026-06-02") == "It is at the last rate of its taper."


def alert(**fields: object) -> AlertRaised:
    given = {
        "alert_id": "a",
        "rule": "budget_run",
        "severity": "page",
        "title": "t",
        "agent": "desk",
        "dedupe_key": "k",
    }
    return AlertRaised(**{**given, **fields})  # type: ignore[arg-type]


def halt(key: str, *, drill: bool = False, target: str | None = None) -> SwitchMoved:
    record = SwitchRecord(state="halted", reason="r", by="Ann", drill=drill)
    return SwitchMoved(key=key, epoch=1, record=record, written_at=datetime(2026, 1, 1, tzinfo=UTC), target=target)


@pytest.mark.parametrize(
    ("agent", "data", "expected"),
    [
        ("desk", alert(), Trigger("desk", "incident", "budget_run")),
        ("desk", alert(rule="drift", severity="ticket"), Trigger("desk", "drift", "drift")),
        ("desk", alert(severity="ticket"), None),
        ("desk", alert(mode="replay"), None),
        ("desk", alert(mode="drill"), None),
        ("desk", alert(rule="drift", severity="info", mode="shadow"), None),
        (subjects.FLEET, alert(agent=subjects.FLEET, rule="channel_dead"), None),
        ("desk", halt("agent.desk"), Trigger("desk", "halt", "agent.desk")),
        (subjects.FLEET, halt("fleet"), Trigger(None, "halt", "fleet")),
        ("desk", halt("agent.desk", drill=True), None),
        (subjects.FLEET, halt("fleet", drill=True), None),
        ("desk", halt("runs.desk", target="run-1"), None),
        ("desk", halt("tools.desk", target="pay"), None),
    ],
)
def test_drift_a_page_and_a_halt_bring_it_back_and_nothing_else_does(
    agent: str, data: object, expected: Trigger | None
) -> None:
    assert trigger_of(agent, data) == expected


def test_a_version_that_names_each_run_does_not_grow_without_end() -> None:
    state = new()
    for number in range(1000):
        state = met_version(state, f"{number}-" + "x" * 1000, at("2026-01-02") + number)
    assert len(state.versions) == policy.MANY_VERSIONS
    assert replace(state, versions=()).version == f"999-{'x' * 196}"
