"""What ties one agent's local switch to the server: nudges, direct gets, presence."""

import asyncio
import contextlib
import logging
import os
import random
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from datetime import datetime
from typing import Any, Protocol

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from .contracts import control, subjects
from .contracts.control import Presence
from .switch import NEVER, Answer, LocalSwitch, clock

log = logging.getLogger("midwatch")

EACH = 1.0  # seconds between two readings, and two presences
CARD_EVERY = 5  # readings of the switch to one of the card: it is nudged too, and no lease hangs on it
PATIENCE = 2.0  # seconds for which a nudge is followed by readings that are older than it

_HOST = socket.gethostname()


class _Ack(msgspec.Struct):
    stream: str = ""
    error: Any = None


class Host(Protocol):
    """What a link needs of the engine."""

    instance: str

    async def request(self, subject: str, body: bytes, within: float) -> Msg:
        """Raises NoAnswer."""

    @property
    def spooled(self) -> tuple[int, int]:
        """Events that wait on disk, and events lost."""


class NoAnswer(Exception):
    """The server did not answer."""


class Link:
    """Follows the switch and the card of one agent for this process, and reports its presence. Runs in one loop."""

    def __init__(self, host: Host, agent: str, version: str, switch: LocalSwitch) -> None:
        self.switch = switch
        self.version = version
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._said = asyncio.Event()  # something that presence tells has changed
        self._woken = asyncio.Event()  # read all keys now
        self._wanted: dict[str, int] = {}  # revision that each nudged key must reach
        self._tasks: set[asyncio.Task[None]] = set()
        self._lapse: asyncio.TimerHandle | None = None
        card = subjects.control_card(agent)
        self._nudges = {subjects.control(key): key for key in switch.keys} | {card: card}
        self._gets = {key: (subjects.SWITCH, key) for key in switch.keys} | {card: (subjects.AGENTS, agent)}
        self._card = card
        switch.changed = self._changed

    def start(self) -> None:
        """Begins to read and to report."""
        self._spawn(self._for_ever(self._poll))
        self._spawn(self._for_ever(self._report))
        self._guard()

    async def subscribe(self, nc: Client) -> None:
        """Asks for the nudges on a new connection, and reads at once."""
        for subject in self._nudges:
            await nc.subscribe(subject, cb=self._nudged)
        self.wake()

    def wake(self) -> None:
        """Reads every key and reports now: the connection is back."""
        self._woken.set()
        self._said.set()

    async def close(self, *, within: float) -> None:
        """Stops following, and signs off if the server can be reached."""
        if self._lapse:
            self._lapse.cancel()
        self.switch.changed = lambda: None
        await end(self._tasks)
        with contextlib.suppress(NoAnswer):
            await self._present(within, leaving=True)

    # Reading.

    async def _nudged(self, msg: Msg) -> None:
        key = self._nudges.get(msg.subject)
        if key is None:
            return
        sequence = (msg.headers or {}).get("Nats-Sequence", "")
        wanted = int(sequence) if sequence.isdecimal() else 0
        reading = key in self._wanted
        self._wanted[key] = max(wanted, self._wanted.get(key, 0))
        if not reading:
            self._spawn(self._catch_up(key))

    async def _catch_up(self, key: str) -> None:
        # Ends by itself: a nudge may be forged, and a bucket made anew counts from 1 again.
        until, pause = clock() + PATIENCE, 0.002
        try:
            while await self._read(key) < self._wanted[key] and clock() < until:
                await asyncio.sleep(pause)
                pause = min(pause * 2, 0.25)
        finally:
            del self._wanted[key]

    async def _poll(self) -> None:
        readings = 0
        await asyncio.sleep(random.uniform(0, 0.05))  # noqa: S311  agents of one process need not ask in step
        while True:
            self._woken.clear()
            names = list(self.switch.keys)
            if readings % CARD_EVERY == 0 or self.switch.card_state != "present":
                names.append(self._card)
            await asyncio.gather(*(self._read(name) for name in names))
            readings += 1
            await _wait(self._woken, self._interval)

    async def _read(self, name: str) -> int:
        """Reads one key and applies it. Its revision, or -1 where the server gave no answer of use."""
        bucket, key = self._gets[name]
        asked = clock()
        try:
            msg = await self._host.request(subjects.direct_get(bucket, key), b"", self._within)
        except NoAnswer:
            return -1
        answer = _answer(msg, subjects.key_subject(bucket, key))
        if answer is None:
            return -1
        if name == self._card:
            self.switch.take_card(answer)
        else:
            self.switch.take(name, answer, asked)
        return answer.revision

    # Reporting.

    async def _report(self) -> None:
        while True:
            self._said.clear()
            with contextlib.suppress(NoAnswer):
                await self._present(self._within)
            await _wait(self._said, self._interval)

    async def _present(self, within: float, *, leaving: bool = False) -> None:
        """Publishes presence and waits for the server's acknowledgement. Raises NoAnswer."""
        switch, live = self.switch, [run for run in self.switch.live if run.moving]
        spooled, lost = self._host.spooled
        presence = Presence(
            agent=switch.agent, instance=self._host.instance, version=self.version, host=_HOST, pid=os.getpid(),
            applied=switch.applied, runs_in_flight=[run.run_id for run in live],
            draining=[run.run_id for run in live if run.draining], control_read_at=switch.read_at, leaving=leaving,
            lease=switch.rule.lease, lost_control=switch.lapsed, spooled=spooled, lost=lost,
        )  # fmt: skip
        sent = clock()
        subject = subjects.presence(switch.agent, self._host.instance)
        msg = await self._host.request(subject, control.encode(presence), within)
        try:
            ack = msgspec.json.decode(msg.data, type=_Ack)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return
        if ack.error is None and ack.stream == subjects.PRESENCE:
            switch.confirm(sent)

    def _changed(self) -> None:
        # Called from any thread.
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._said.set)

    # Keeping going.

    @property
    def _interval(self) -> float:
        return min(EACH, self.switch.rule.lease / 3)

    @property
    def _within(self) -> float:
        return min(EACH, self.switch.rule.lease / 2)

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
