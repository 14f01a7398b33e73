"""The proof of a halt as a client sees it fill: from the switch and presence alone, with every service of ours dead."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg

from midwatch.contracts import subjects
from midwatch.contracts.control import SwitchRecord
from midwatch.runtime.broker import round_trip
from midwatch.runtime.stream_read import last_of_each
from midwatch.runtime.switchboard import Entry, Scope, Switchboard

from . import decide
from .decide import Halt, Surroundings, Verdict, Who
from .policy import POLICY
from .registry import Instances, read_presence

_LOOK = 0.25  # seconds between two readings of the key
ANNOUNCE = 1.5  # seconds in which whoever runs says so; before, that nobody else does is not known


class _Info(msgspec.Struct):
    ts: datetime | None = None


async def last_words(nc: Client, js: JetStreamContext, pattern: str) -> list[tuple[RawStreamMsg, datetime]]:
    """The last presence on each subject of `pattern`, and when it came by our clock. None where the server has lost its
    memory in a restart: who runs says so again within a second."""
    before = datetime.now(UTC)
    answer = await nc.request(f"$JS.API.STREAM.INFO.{subjects.PRESENCE}", timeout=2)
    server_time = msgspec.json.decode(answer.data, type=_Info).ts
    if server_time is None:
        return []
    ahead = server_time - before
    found = await last_of_each(js, subjects.PRESENCE, pattern)
    return [(message, min((message.time or server_time) - ahead, datetime.now(UTC))) for message in found]


class Proof:
    """Hears presence from `listen` on, and judges one halt."""

    def __init__(self, nc: Client, js: JetStreamContext) -> None:
        self._nc, self._js = nc, js
        self._board = Switchboard(js)
        self._instances = Instances()
        self._heard = asyncio.Event()
        self._since = datetime.now(UTC)
        self._heard_on: Subscription | None = None
        self.held_since: float | None = None  # by the loop's clock: since when nobody who was heard is missing

    async def listen(self, agent: str | None) -> None:
        """Begins to hear the instances; to be called before the halt is written."""
        self._heard_on = await self._nc.subscribe(subjects.presence(agent or "*", "*"), cb=self._hear)
        await round_trip(self._nc, within=2)
        self._since = datetime.now(UTC)

    async def close(self) -> None:
        """Hears no more, where the connection goes on."""
        if self._heard_on is not None:
            with contextlib.suppress(NatsError):
                await self._heard_on.unsubscribe()

    async def _hear(self, message: Msg) -> None:
        if instance := read_presence(message.subject, message.data, datetime.now(UTC)):
            self._instances.hear(instance)
            self._heard.set()

    async def wait(
        self, scope: Scope, epoch: int, record: SwitchRecord, limit: float, tell: Callable[[Verdict], None]
    ) -> tuple[Verdict, SwitchRecord | None]:
        """Judges until the halt is contained, lifted by someone else, or `limit` seconds are over; `tell` hears each
        verdict. Returns the last one, and the record that lifted the halt if one did. It is contained once whoever runs
        has had the time to say so: the server keeps one word a name, and none after a restart."""
        halt = Halt(scope.key, scope.target, epoch, record, self._since)
        cleared: dict[Who, datetime] = {}
        until = self._since + timedelta(seconds=limit)
        await self._catch_up(scope.agent)
        while True:
            self._heard.clear()
            entry = await self._board.read(scope.key)
            now = datetime.now(UTC)
            around = Surroundings(now, self._since, entry.revision)
            instances = self._instances.processes(scope.agent)
            verdict = decide.judge(halt, instances, around, cleared, POLICY)
            cleared = dict(verdict.cleared)
            self.held_since = (self.held_since or asyncio.get_running_loop().time()) if verdict.contained else None
            known = now - self._since >= timedelta(seconds=min(ANNOUNCE, limit))
            verdict = replace(verdict, contained=verdict.contained and known)
            tell(verdict)
            if entry.revision >= epoch and (lifted := _lifted(entry, scope)):
                return verdict, lifted
            if verdict.contained or now >= until:
                return verdict, None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(_LOOK, (until - now).total_seconds())):
                    await self._heard.wait()

    async def _catch_up(self, agent: str | None) -> None:
        for message, seen_at in await last_words(self._nc, self._js, subjects.presence(agent or "*", "*")):
            if instance := read_presence(message.subject or "", message.data or b"", seen_at):
                self._instances.recall(instance)


def _lifted(entry: Entry, scope: Scope) -> SwitchRecord | None:
    """The record by which `scope` is not halted by its own key any more."""
    if scope.target is None:
        record = entry.record()
        return record if record is not None and record.state == "running" else None
    records = entry.map()
    if records is None:
        return None
    record = records.get(scope.target, SwitchRecord(state="running", reason="its record was removed"))
    return record if record.state == "running" else None
