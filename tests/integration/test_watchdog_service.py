"""cost-watchdog as a whole: a real nats-server, a real database, the service as it is deployed."""

from datetime import timedelta

import pytest
from nats.js import JetStreamContext

from helpers import eventually
from midwatch.contracts import control, subjects
from midwatch.contracts.control import BudgetRule, Card, SwitchRecord
from midwatch.contracts.runs import Finished
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Switchboard
from watchdog_helpers import (
    AGENT,
    TRACE,
    all_read,
    common,
    crash_at,
    halts,
    looping,
    publish,
    said,
    spending,
    states,
    watchdog,
)  # fmt: skip


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def stored(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """Settings with each database in turn."""
    if request.param == "sqlite":
        return settings
    return settings.model_copy(update={"database_url": request.getfixturevalue("postgres_url")})


async def test_a_run_over_its_budget_is_halted_on_the_switch_and_a_person_paged(js, stored):
    async with watchdog(stored):
        await publish(js, spending(["0.30", "0.52", "0.23"], ticket="T-1"))
        await eventually(lambda: all_read(js))
        (record,) = (await halts(js)).values()
        assert (record.state, record.by) == ("halted", "cost-watchdog/budget_run")
        assert record.reason == "Run run-1 of refund-desk has spent $1.05 of its $1.00 budget"
        first, second, of_ticket = (await said(js)).raised
        assert (of_ticket.rule, of_ticket.severity, of_ticket.value) == ("budget_ticket", "info", "1.05")
        assert (first.severity, first.value, first.action_taken) == ("ticket", "0.82", "none")
        assert (second.severity, second.value, second.action_taken) == ("page", "1.05", "halted_run")
        assert (second.event_id, second.seq, second.ticket) == ("live-run-1-3", 3, "T-1")
        assert second.evidence == "midwatch show run-1"
        await publish(js, [Finished(**common(4), resolution="halted")])
        await eventually(lambda: all_read(js))
        found = await said(js)
        assert {one.alert_id for one in found.resolved} == {first.alert_id, second.alert_id, of_ticket.alert_id}
        assert found.traces == {TRACE}


async def test_a_loop_is_halted_at_its_fifth_call_without_new_state(js, settings):
    async with watchdog(settings):
        await publish(js, looping(6))
        await eventually(lambda: all_read(js))
        assert (await halts(js))["run-loop"].by == "cost-watchdog/loop_no_new_state"
        assert [(one.value, one.seq) for one in (await said(js)).raised] == [(3, 3), (5, 5)]


async def test_a_repeated_event_counts_once(js, settings):
    async with watchdog(settings):
        for _ in range(3):
            await publish(js, spending(["0.45"]), known=False)
        await eventually(lambda: all_read(js))
    async with watchdog(settings):
        await publish(js, spending(["0.45"]), known=False)
        await eventually(lambda: all_read(js))
    assert str((await states(settings))[f"live/{AGENT}/run-1"].spent.amount) == "0.45"
    assert (await said(js)).raised == []


async def test_a_replay_writes_no_switch_and_counts_for_itself(js, settings):
    async with watchdog(settings):
        await publish(js, spending(["0.40"]))
        await publish(js, [*spending(["0.60", "0.60"], mode="replay"), *looping(6, mode="replay")])
        await eventually(lambda: all_read(js))
    assert await halts(js) == {}
    found = (await said(js)).raised
    assert {one.mode for one in found} == {"replay"}
    assert {one.rule for one in found if one.action_taken == "would_halt_run"} == {"budget_run", "loop_no_new_state"}


async def test_a_changed_card_takes_effect_on_a_run_in_flight(js, settings):
    async with watchdog(settings):
        await publish(js, spending(["0.70"]))
        await eventually(lambda: all_read(js))
        card = Card(agent=AGENT, owner="o", purpose="p", can=["c"], budget=BudgetRule(run="0.5", ticket="9"))
        await js.publish(subjects.key_subject(subjects.AGENTS, AGENT), control.encode(card))
        await eventually(lambda: halts(js))

        async def paged():
            return [one for one in (await said(js)).raised if one.severity == "page"]  # after its halt

        raised = await eventually(paged)
        assert raised[-1].title.startswith("Run run-1 of refund-desk has spent $0.70 of its $0.50")


async def test_a_full_map_of_runs_halts_the_agent_instead(js, settings):
    many = {f"run-{number:0120d}": SwitchRecord(state="halted", reason="r" * 480, by="b") for number in range(1350)}
    await js.publish(subjects.key_subject(subjects.SWITCH, subjects.runs_key(AGENT)), control.encode(many))
    async with watchdog(settings):
        await publish(js, spending(["1.10"]))
        entry = await eventually(lambda: _agent_halt(js))
    assert entry.by == "cost-watchdog/budget_run"


async def _agent_halt(js: JetStreamContext) -> SwitchRecord | None:
    record = (await Switchboard(js).read(subjects.agent_key(AGENT))).record()
    return record if record and record.state == "halted" else None


POINTS = [
    "delivery.received", "cost_watchdog.saved", "delivery.handled", "outbox.read", "cost_watchdog.halted",
    "outbox.published", "outbox.deleted", "delivery.drained", "delivery.acked",
]  # fmt: skip


async def assert_once(js: JetStreamContext, settings: Settings) -> None:
    """Two runs went too far; each alert was raised once, each halt stands, and nothing was counted twice."""
    found = await said(js)
    assert sorted((one.rule, one.run_id, one.value) for one in found.raised) == [
        ("budget_run", "run-1", "0.8"), ("budget_run", "run-1", "1"),
        ("loop_no_new_state", "run-loop", 3), ("loop_no_new_state", "run-loop", 5),
    ]  # fmt: skip
    assert {run_id: record.state for run_id, record in (await halts(js)).items()} == {
        "run-1": "halted", "run-loop": "halted",
    }  # fmt: skip
    switch = await js.stream_info(
        subjects.key_stream(subjects.SWITCH), subjects_filter=subjects.key_subject(subjects.SWITCH, ">")
    )
    assert (switch.state.subjects or {})[subjects.key_subject(subjects.SWITCH, subjects.runs_key(AGENT))] == 2
    remembered = await states(settings)
    assert str(remembered[f"live/{AGENT}/run-1"].spent.amount) == "1.20"
    assert remembered[f"live/{AGENT}/run-loop"].streak == 7


@pytest.mark.parametrize("point", POINTS)
async def test_a_crash_between_two_steps_loses_and_doubles_nothing(js, settings, point):
    await publish(js, [*spending(["0.40", "0.40", "0.20", "0.20"]), *looping(8)])
    await crash_at(js, settings, point)
    async with watchdog(settings):
        await eventually(lambda: all_read(js))
        await eventually(lambda: assert_settled(js, settings))


async def assert_settled(js: JetStreamContext, settings: Settings) -> bool:
    await assert_once(js, settings)
    return True


@pytest.mark.postgres
async def test_a_crash_loses_and_doubles_nothing_on_postgresql(js, settings, postgres_url):
    on_postgres = settings.model_copy(update={"database_url": postgres_url})
    await publish(js, [*spending(["0.40", "0.40", "0.20", "0.20"]), *looping(8)])
    await crash_at(js, on_postgres, "cost_watchdog.saved")
    await crash_at(js, on_postgres, "cost_watchdog.halted")
    await crash_at(js, on_postgres, "outbox.published")
    async with watchdog(on_postgres):
        await eventually(lambda: all_read(js))
        await eventually(lambda: assert_settled(js, on_postgres))


async def a_day_of(js, budget):
    card = Card(agent=AGENT, owner="o", purpose="p", can=["c"], budget=BudgetRule(run="9", ticket="9", day=budget))
    await js.publish(subjects.key_subject(subjects.AGENTS, AGENT), control.encode(card))


async def agent_record(js):
    return (await Switchboard(js).read(subjects.agent_key(AGENT))).record()


async def test_an_agent_over_its_day_falls_back_until_midnight(js, stored):
    await a_day_of(js, "2")
    async with watchdog(stored):
        await publish(js, spending(["0.70"], "run-1"))
        await publish(js, spending(["0.70"], "run-2"))
        await eventually(lambda: all_read(js))
    async with watchdog(stored):  # the sum outlives the process
        await publish(js, spending(["0.70"], "run-3"))
        record = await eventually(lambda: agent_record(js))
        await eventually(lambda: all_read(js))
    assert (record.state, record.by) == ("halted", "cost-watchdog/budget_day")
    day = f"{record.at:%Y-%m-%d}"
    assert record.reason == f"Agent refund-desk has spent $2.10 of its $2.00 budget for {day}"
    assert f"{record.expires_at - timedelta(seconds=1):%Y-%m-%d %H:%M:%S}" == f"{day} 23:59:59"
    (page,) = [one for one in (await said(js)).raised if one.severity == "page"]
    assert (page.rule, page.agent, page.action_taken, page.run_id) == ("budget_day", AGENT, "halted_agent", None)


async def test_a_lowered_budget_for_the_day_counts_what_was_spent_before(js, stored):
    async with watchdog(stored):
        await publish(js, spending(["0.70"]))
        await eventually(lambda: all_read(js))
        await a_day_of(js, "0.5")
        record = await eventually(lambda: agent_record(js))
    assert record.reason.startswith("Agent refund-desk has spent $0.70 of its $0.50 budget for ")
