"""What the tests of kill-switch share: the service, instances made by hand, and what it said."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from nats.js import JetStreamContext

from helpers import all_read, eventually
from midwatch.contracts import codec, control, subjects
from midwatch.contracts.control import Presence
from midwatch.contracts.runs import RUN_EVENTS
from midwatch.runtime.service import Service, run_services
from midwatch.runtime.settings import Settings
from midwatch_services.kill_switch.app import build
from midwatch_services.kill_switch.policy import Policy

WHY = {"reason": "wrong refunds", "by": "ann"}
QUICK = Policy(
    silent_after=timedelta(seconds=0.3), limit=timedelta(seconds=0.6), grace=timedelta(seconds=0.2),
    prune_after=timedelta(0), armed_for=timedelta(0),
)  # fmt: skip


class Crash(BaseException):
    """The process is gone at this point."""


@asynccontextmanager
async def kill_switch(settings: Settings, policy: Policy = QUICK) -> AsyncIterator["asyncio.Task[None]"]:
    """The service, running. A crash of it is raised to whoever awaits the task."""
    running = asyncio.Event()
    service = Service(subjects.KILL_SWITCH, partial(build, policy=policy))
    task = asyncio.create_task(run_services([service], settings, started=lambda _: running.set(), restart=False))
    started = asyncio.create_task(running.wait())
    await asyncio.wait([task, started], return_when=asyncio.FIRST_COMPLETED)
    started.cancel()
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Crash):
            await task


@dataclass
class Pod:
    """An instance that says what the test tells it to."""

    js: JetStreamContext
    name: str = "pod-1"
    agent: str = "desk"
    lease: float = 5.0
    applied: dict[str, int] = field(default_factory=dict)

    async def say(self, applied: dict[str, int] | None = None, **more: Any) -> None:
        """One presence."""
        self.applied |= applied or {}
        said = Presence(
            agent=self.agent, instance=self.name, version="1", host="h", pid=7, applied=self.applied, lease=self.lease,
            **more,
        )  # fmt: skip
        await self.js.publish(subjects.presence(self.agent, self.name), control.encode(said))


async def said(js: JetStreamContext, noun: str = "switch") -> list[tuple[str, Any]]:
    """Event and data of everything that was said on `noun`, in order."""
    found = []
    info = await js.stream_info(subjects.GOVERNANCE)
    for seq in range(1, info.state.last_seq + 1):
        message = await js.get_msg(subjects.GOVERNANCE, seq)
        _, spoken, _, event = (message.subject or "").split(".")
        if spoken == noun:
            found.append((event, codec.decode(message.subject or "", message.data or b"").data))
    return found


async def running_keys(js: JetStreamContext) -> dict[str, int]:
    """Writes the agent's key; the four as an instance that has read all of them has applied them."""
    fleet = (await js.get_last_msg(subjects.key_stream(subjects.SWITCH), "$KV.MIDWATCH_SWITCH.fleet")).seq
    agent = await put(js, "agent.desk", b'{"state":"running"}')
    return {"fleet": fleet or 0, "agent.desk": agent, "tools.desk": 0, "runs.desk": 0}


async def alerts(js: JetStreamContext, *events: str, within: float = 20.0) -> list[Any]:
    """Data of the alerts, once they are exactly `events`."""
    return await heard(js, *events, within=within, noun="alert")


async def heard(js: JetStreamContext, *events: str, within: float = 20.0, noun: str = "switch") -> list[Any]:
    """Data of what was said on `noun`, once it is exactly `events`, in order."""

    async def look() -> list[Any]:
        spoken = await said(js, noun)
        assert [event for event, _ in spoken] == list(events)
        return [data for _, data in spoken]

    return await eventually(look, within)


async def writes_read(js: JetStreamContext) -> bool:
    return await all_read(js, subjects.key_stream(subjects.SWITCH), subjects.KILL_SWITCH_WRITES)


async def put(js: JetStreamContext, key: str, value: bytes, headers: dict[str, str] | None = None) -> int:
    """What `nats kv put` does; returns the revision."""
    return (await js.publish(subjects.key_subject(subjects.SWITCH, key), value, headers=headers)).seq


async def publish(
    js: JetStreamContext, event: str, run_id: str = "r1", *, agent: str = "desk", mode: str = "live", seq: int = 0,
    time: datetime | None = None, **fields: Any,
) -> None:  # fmt: skip
    """One run event, as the agent's SDK publishes it."""
    needed: dict[str, dict[str, Any]] = {
        "started": {"input": "Where is my refund?"}, "model_called": {"model": "m"}, "tool_called": {"tool": "lookup"},
        "finished": {"resolution": "resolved"}, "handed_off": {"to": "human", "reason": "wrong refunds"},
    }  # fmt: skip
    data = RUN_EVENTS[event](run_id=run_id, agent=agent, version="1", mode=mode, seq=seq, **(needed[event] | fields))  # type: ignore[arg-type]
    body = codec.encode(
        codec.envelope("run", event, data, source=f"/agents/{agent}/pod-1", time=time or datetime.now(UTC))
    )
    await js.publish(subjects.run(agent, event), body)


def states(report: Any) -> dict[str, str]:
    return {one.instance: one.state for one in report.instances}


def names(spoken: Sequence[tuple[str, Any]]) -> list[str]:
    return [event for event, _ in spoken]
