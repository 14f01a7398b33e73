"""cost-watchdog as it is deployed, and what it is fed, for tests."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from midwatch.contracts import codec, control, subjects
from midwatch.contracts.control import SwitchRecord
from midwatch.contracts.runs import Finished, ModelCalled, RunData, Started, ToolCalled
from midwatch.runtime import faults
from midwatch.runtime.database import Database
from midwatch.runtime.service import run_services
from midwatch.runtime.settings import Settings
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
                await asyncio.wait_for(asyncio.shield(task), 20)
    finally:
        faults.set_hook(None)
