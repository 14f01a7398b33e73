"""What ties one agent's local switch, route and card to the server: nudges, direct gets, presence."""

import asyncio
import contextlib
import logging
import os
import random
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from .contracts import control, subjects
from .contracts.control import Presence
from .switch import NEVER, Answer, LocalSwitch, clock

log = logging.getLogger("midwatch")

EACH = 1.0  # seconds between two readings, and two presences
BEAT = (
    0.1  # seconds of the wall clock to whose multiples these keep: many instances together wake the server less often
)
OTHERS_EVERY = 5  # readings of the switch to one of route and card: they are nudged too, and no lease hangs on them
PAUSE = 0.01  # seconds between two presences at least: many runs end at once where an agent is halted
PATIENCE = 2.0  # seconds for which a nudge is followed by readings that are older than it
FORGOTTEN = 30.0  # seconds after which an answer is of no use any more
SAVE_AFTER = 0.1  # seconds after which halts seen are written to disk, off the shortest path

_PRESENCE = "presence"  # what an acknowledgement is to

_HOST = socket.gethostname()
_PROCESS = secrets.token_hex(6)  # a container that starts again has the same name, host and pid


class _Ack(msgspec.Struct):
    stream: str = ""
    error: Any = None


class Host(Protocol):
    """What a link needs of the engine."""

    instance: str

    @property
    def spooled(self) -> tuple[int, int]:
        """Events that wait on disk, and events lost."""


@dataclass(slots=True)
class _Wanted:
    """A nudge that no answer has caught up with."""

    revision: int
    until: float  # by `clock`
    pause: float = 0.002  # seconds before it is asked again


class Link:
    """Follows switch, route and card of one agent for this process, and reports its presence. Runs in one loop.

    Questions and reports are published without waiting; what comes back on the link's own inbox is applied as it
    comes. What does not come back costs the lease, nothing else.
    """

    def __init__(self, host: Host, agent: str, version: str, switch: LocalSwitch) -> None:
        self.switch = switch
        self.version = version
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._nc: Client | None = None
        self._said = asyncio.Event()  # something that presence tells has changed
        self._woken = asyncio.Event()  # read all keys now
        self._wanted: dict[str, _Wanted] = {}
        self._inbox = ""
        self._asked: dict[str, tuple[str, float]] = {}  # what each answer on the inbox is to, and when it was asked
        self._questions = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._lapse: asyncio.TimerHandle | None = None
        self._card, self._route = subjects.control_card(agent), subjects.control_route(agent)
        self._gets = {key: (subjects.SWITCH, key) for key in switch.keys}
        self._gets |= {self._card: (subjects.AGENTS, agent), self._route: (subjects.ROUTES, agent)}
        self._nudges = {subjects.control(key): key for key in switch.keys}
        self._nudges |= {self._card: self._card, self._route: self._route}
        switch.changed = self._changed

    def start(self) -> None:
        """Begins to read and to report."""
        self._spawn(self._for_ever(self._keep_up))
        self._spawn(self._for_ever(self._tell_changes))
        self._guard()

    async def subscribe(self, nc: Client) -> None:
        """Asks for nudges and answers on a new connection, and reads at once."""
        self._inbox = nc.new_inbox()
        self._asked.clear()
        await nc.subscribe(f"{self._inbox}.*", cb=self._answered)
        for subject in self._nudges:
            await nc.subscribe(subject, cb=self._nudged)
        self._nc = nc
        self.wake()

    def wake(self) -> None:
        """Reads every key and reports now: the connection is there."""
        self._woken.set()
        self._said.set()

    async def close(self, *, within: float) -> None:
        """Stops following, and signs off if the server can be reached."""
        if self._lapse:
            self._lapse.cancel()
        self.switch.changed = lambda: None
        await end(self._tasks)
        self.switch.save()
        if self._nc is not None and self._nc.is_connected:
            subject, presence = self._presence(leaving=True)
            with contextlib.suppress(nats.errors.Error, TimeoutError):
                await self._nc.request(subject, presence, timeout=within)

    # Reading.

    async def _nudged(self, msg: Msg) -> None:
        key = self._nudges.get(msg.subject)
        if key is None:
            return
        sequence = (msg.headers or {}).get("Nats-Sequence", "")
        revision = int(sequence) if sequence.isdecimal() else 0
        if wanted := self._wanted.get(key):
            wanted.revision = max(wanted.revision, revision)
        else:
            self._wanted[key] = _Wanted(revision, clock() + PATIENCE)
            await self._ask(key)

    async def _keep_up(self) -> None:
        """Each second reads the switch and reports, in one packet: what costs the server is to be woken."""
        readings = 0
        await asyncio.sleep(random.uniform(0, 0.05))  # noqa: S311  agents of one process need not ask in step
        while True:
            if self._woken.is_set():
                readings = 0  # nudges may have been missed: read all
            self._woken.clear()
            now = clock()
            self._asked = {token: it for token, it in self._asked.items() if now - it[1] < FORGOTTEN}
            self._wanted = {key: it for key, it in self._wanted.items() if it.until > now}
            for key in self.switch.keys:
                await self._ask(key)
            if readings % OTHERS_EVERY == 0 or self.switch.card_state != "present":
                await self._ask(self._card)
            if readings % OTHERS_EVERY == 0 or not self.switch.route.read:
                await self._ask(self._route)
            await self._report()
            # Those whom a server's restart brought back together must not stay in step.
            pause = self._interval if readings else random.uniform(BEAT, self._interval)  # noqa: S311
            readings += 1
            await _wait(self._woken, to_beat(pause, time.time()))

    async def _ask(self, key: str) -> None:
        """Asks the server for one key."""
        bucket, name = self._gets[key]
        await self._publish(subjects.direct_get(bucket, name), b"", key)

    async def _publish(self, subject: str, body: bytes, about: str) -> None:
        nc = self._nc
        if nc is None or not nc.is_connected:
            return  # it would be sent when the connection is back, and be old
        self._questions += 1
        token = str(self._questions)
        self._asked[token] = (about, clock())
        with contextlib.suppress(nats.errors.Error):
            await nc.publish(subject, body, reply=f"{self._inbox}.{token}")

    async def _answered(self, msg: Msg) -> None:
        about, asked = self._asked.pop(msg.subject.rsplit(".", 1)[1], ("", 0.0))
        if about == _PRESENCE:
            if _acknowledged(msg):
                self.switch.confirm(asked)
        elif about:
            bucket, name = self._gets[about]
            answer = _answer(msg, subjects.key_subject(bucket, name))
            if answer is not None:
                self._take(about, answer, asked)

    def _take(self, key: str, answer: Answer, asked: float) -> None:
        wanted = self._wanted.get(key)
        if wanted is not None:
            if answer.revision < wanted.revision and clock() < wanted.until:
                # Older than its nudge: a replica lags. It ends by itself, for a nudge may be forged, and a bucket
                # made anew counts from 1 again.
                self._loop.call_later(wanted.pause, lambda: self._spawn(self._ask(key)))
                wanted.pause = min(wanted.pause * 2, 0.25)
            else:
                del self._wanted[key]
        saving = self.switch.unsaved
        if key == self._card:
            self.switch.take_card(answer)
        elif key == self._route:
            self.switch.take_route(answer, asked)
        else:
            self.switch.take(key, answer, asked)
        if self.switch.unsaved and not saving:
            self._loop.call_later(SAVE_AFTER, lambda: self._spawn(asyncio.to_thread(self.switch.save)))

    # Reporting.

    async def _tell_changes(self) -> None:
        while True:
            await self._said.wait()
            await self._report()
            await asyncio.sleep(PAUSE)

    async def _report(self) -> None:
        self._said.clear()
        subject, presence = self._presence()
        await self._publish(subject, presence, _PRESENCE)

    def _presence(self, *, leaving: bool = False) -> tuple[str, bytes]:
        """What this process says of itself, and where."""
        switch, live = self.switch, [run for run in self.switch.live if run.moving]
        without = switch.without_control
        spooled, lost = self._host.spooled
        presence = Presence(
            agent=switch.agent, instance=self._host.instance, version=self.version, host=_HOST, pid=os.getpid(),
            applied=switch.applied, runs_in_flight=[run.run_id for run in live],
            draining=[run.run_id for run in live if run.draining], control_read_at=switch.read_at, leaving=leaving,
            lease=switch.rule.lease, lost_control=without is not None, spooled=spooled, lost=lost,
            control_age=switch.read_age, without_control=without, own_fallback=switch.own_fallback,
            no_case=[run.run_id for run in live if not run.awaited], blocking=switch.blocking,
            stage=switch.route.standing.stage, process=_PROCESS,
        )  # fmt: skip
        return subjects.presence(switch.agent, self._host.instance), control.encode(presence)

    def _changed(self) -> None:
        # Called from any thread. What is said already is told by the presence to come, which is made later.
        if not self._said.is_set():
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._said.set)

    # Keeping going.

    @property
    def _interval(self) -> float:
        return min(EACH, self.switch.rule.lease / 3)

    def _guard(self) -> None:
        """Looks at the switch when the lease ends, not a reading later."""
        self.switch.review()
        left = self.switch.lease_ends - clock() if self.switch.lease_ends != NEVER else EACH
        self._lapse = self._loop.call_later(left + 0.001 if left > 0 else EACH, self._guard)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _for_ever(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except Exception:
                log.exception("midwatch: following the switch of agent %s failed, going on", self.switch.agent)
                await asyncio.sleep(EACH)


def to_beat(pause: float, now: float) -> float:
    """`pause` seconds from `now` (seconds since 1970), moved by half a beat at most to where all others' end too; one
    that is short beside a beat, for a short lease, is left as it is."""
    return pause if pause < 4 * BEAT else round((now + pause) / BEAT) * BEAT - now


async def end(tasks: Iterable[asyncio.Task[None]], *, again: float = 0.05) -> None:
    """Cancels the tasks, and again each `again` seconds, until they have ended: nats-py swallows a cancellation that
    finds it flushing."""
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=again)


async def _wait(event: asyncio.Event, within: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within):
            await event.wait()


def _acknowledged(msg: Msg) -> bool:
    """Whether the stream of presences took it."""
    try:
        ack = msgspec.json.decode(msg.data, type=_Ack)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return ack.error is None and ack.stream == subjects.PRESENCE


def _answer(msg: Msg, subject: str) -> Answer | None:
    """A direct get's answer, or None where it is none."""
    headers = msg.headers or {}
    if status := headers.get("Status"):
        return Answer(0, 0, None) if status == "404" else None
    try:
        if headers["Nats-Subject"] != subject:
            return None
        gone = headers.get("KV-Operation") in ("DEL", "PURGE") or "Nats-Marker-Reason" in headers
        written = nanoseconds(headers["Nats-Time-Stamp"])
        return Answer(int(headers["Nats-Sequence"]), written, None if gone else msg.data)
    except (KeyError, ValueError):
        return None


def nanoseconds(stamp: str) -> int:
    """The server's time stamp (RFC 3339, up to nine decimals, UTC) as nanoseconds since 1970. Raises ValueError."""
    whole, _, decimals = stamp.removesuffix("Z").partition(".")
    return int(datetime.fromisoformat(f"{whole}+00:00").timestamp()) * 1_000_000_000 + int(f"{decimals:0<9}"[:9])
