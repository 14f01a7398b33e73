"""cost-watchdog as a whole: a real nats-server, a real database, the service as it is deployed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from helpers import eventually
from midwatch.contracts import codec, control, subjects
from midwatch.contracts.control import BudgetRule, Card, SwitchRecord
from midwatch.contracts.runs import Finished, ModelCalled, RunData, Started, ToolCalled
from midwatch.runtime import faults
from midwatch.runtime.database import Database
from midwatch.runtime.service import run_services
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Switchboard
from midwatch_services.cost_watchdog.app import SERVICE
from midwatch_services.cost_watchdog.state import RunState

AGENT = "refund-desk"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Crash(BaseException):
    """The process is gone at this point."""


def common(seq: int, run_id: str = "run-1", **fields: Any) -> dict[str, Any]:
    return {"run_id": run_id, "agent": AGENT, "version": "1", "mode": "live", "seq": seq, **fields}


def spending(amounts: Sequence[str], run_id: str = "run-1", **fields: Any) -> list[RunData]:
    """A run that starts and pays so much for each model call."""
    started = Started(**common(0, run_id, **fields), input="Where is my refund?")
    calls = [
        ModelCalled(**common(seq, run_id, **fields), model="m", cost_usd=amount)
        for seq, amount in enumerate(amounts, start=1)
    ]
    return [started, *calls]


def looping(times: int, run_id: str = "run-loop", **fields: Any) -> list[RunData]:
    """A run that asks for the same order again and again, and is told the same."""
    arguments = {"order_id": "A-1001"}
    return [
        ToolCalled(**common(seq, run_id, **fields), tool="lookup_order", arguments=arguments, result="not found")
        for seq in range(times)
    ]


async def publish(js: JetStreamContext, events: Sequence[RunData], *, known: bool = True) -> None:
    """Publishes the events; their ids follow from run and seq. With `known` False the server cannot tell a repeat."""
    names = {Started: "started", ModelCalled: "model_called", ToolCalled: "tool_called", Finished: "finished"}
    for data in events:
        event, id = names[type(data)], f"{data.mode}-{data.run_id}-{data.seq}"
        body = codec.encode(codec.envelope("run", event, data, source=f"/agents/{AGENT}/pod-7", id=id))
        headers = {subjects.TRACEPARENT: TRACE} | ({subjects.MSG_ID: id} if known else {})
        await js.publish(subjects.run(AGENT, event), body, headers=headers)


@dataclass
class Said:
    """What stands in the governance stream."""

    raised: list[Any]
    resolved: list[Any]
    traces: set[str | None]


async def said(js: JetStreamContext) -> Said:
    info = await js.stream_info(subjects.GOVERNANCE)
    found = Said([], [], set())
    for seq in range(max(1, info.state.first_seq), info.state.last_seq + 1):
        message = await js.get_msg(subjects.GOVERNANCE, seq)
        if (message.subject or "").startswith("midwatch.alert."):
            event = codec.decode(message.subject or "", message.data or b"")
            (found.raised if event.type.endswith("raised.v1") else found.resolved).append(event.data)
            found.traces.add((message.headers or {}).get(subjects.TRACEPARENT))
    return found


async def halts(js: JetStreamContext) -> dict[str, SwitchRecord]:
    """The runs of the agent that the switch holds a record of."""
    try:
        entry = await js.get_last_msg(
            subjects.key_stream(subjects.SWITCH), subjects.key_subject(subjects.SWITCH, subjects.runs_key(AGENT))
        )
    except NotFoundError:
        return {}
    return control.decode_map(entry.data or b"") or {}


async def all_read(js: JetStreamContext) -> bool:
    """Whether the service has acknowledged every event of the stream."""
    stream = await js.stream_info(subjects.RUNS)
    consumer = await js.consumer_info(subjects.RUNS, subjects.COST_WATCHDOG)
    return consumer.ack_floor is not None and consumer.ack_floor.stream_seq == stream.state.last_seq


@asynccontextmanager
async def watchdog(settings: Settings) -> AsyncIterator["asyncio.Task[None]"]:
    """The service, running. Ends when the block does; a crash of it is raised to whoever awaits the task."""
    running = asyncio.Event()
    task = asyncio.create_task(
        run_services([SERVICE], settings, started=lambda _: running.set(), restart=False), name="watchdog"
    )
    started = asyncio.create_task(running.wait())
    await asyncio.wait([task, started], return_when=asyncio.FIRST_COMPLETED)
    started.cancel()
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Crash):
            await task


async def states(settings: Settings) -> dict[str, RunState]:
    """What the service remembers of each run, from its table."""
    database = Database(settings.database_for(SERVICE.name), must_exist=True)
    try:
        rows = await database.read(
            lambda conn: conn.execute(sa.text("SELECT key, state FROM cost_watchdog_runs")).all()
        )
    finally:
        database.close()
    return {key: msgspec.msgpack.decode(state, type=RunState) for key, state in rows}


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


async def crash_at(js: JetStreamContext, settings: Settings, point: str) -> None:
    """Runs the service until it passes `point` for the first time, and no further."""
    consumer = await js.consumer_info(subjects.RUNS, subjects.COST_WATCHDOG)
    await js.add_consumer(subjects.RUNS, consumer.config.evolve(ack_wait=1.0))  # so that what it held comes back soon

    def hook(name: str) -> None:
        if name == point:
            raise Crash

    faults.set_hook(hook)
    try:
        async with watchdog(settings) as task:
            with pytest.raises(Crash):
                await asyncio.wait_for(asyncio.shield(task), 5)
    finally:
        faults.set_hook(None)


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
