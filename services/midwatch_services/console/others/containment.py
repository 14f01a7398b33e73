"""How far a halt has got: heard on the bus from the press on, with every service and database of ours down."""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from midwatch.contracts import codec, subjects
from midwatch.contracts.control import SwitchRecord
from midwatch.contracts.envelope import Envelope
from midwatch.contracts.governance import InstanceReport, SwitchContained
from midwatch.errors import Temporary
from midwatch.runtime.stream_read import read_range
from midwatch.runtime.switchboard import Entry, Scope, Switchboard, Written, standing_of
from midwatch_services.kill_switch.decide import NO_PRESENCE, Verdict, Who
from midwatch_services.kill_switch.proof import Proof
from midwatch_services.kill_switch.witness import FirstCase, Witness

from .switch import MISSED

_LIMIT = 900.0  # seconds for which one halt is followed
_LINGER = 60.0  # seconds in which the runs and cases of a contained halt are still counted
_LISTEN_WITHIN = 1.0  # seconds; a halt waits no longer
_MOST = 20  # halts that are followed at once
_REPORTS = ("contained", "revoked")
_CLOCKS_DIFFER = timedelta(seconds=2)  # less than that may lie between a writer's clock and the server's

Said = Envelope[SwitchContained]
Phase = Literal["waiting", "contained", "revoked", "lifted", "never", "absent", "unknown"]


@dataclass(frozen=True)
class Told:
    """How a halt stands. `seconds`: from its write to the last confirmation; `after_press`: from the press here, if it
    was pressed here; `judged_by`: `here` or `kill-switch`, whose word it is; `at`: when it was found contained.
    `record`: of the halt, or what ended it. `never`: nobody halted it so far as the switch knows; `absent`: its key was
    never written, which is not running. `counted`: what it stopped was counted from its write on."""

    phase: Phase
    epoch: int
    record: SwitchRecord | None = None
    seconds: float | None = None
    after_press: float | None = None
    judged_by: str = "here"
    at: datetime | None = None
    instances: tuple[InstanceReport, ...] = ()
    blocking: frozenset[Who] = frozenset()
    runs_stopped: int = 0
    cases: int = 0
    counted: bool = False
    first_case: FirstCase | None = None
    processes: Mapping[Who, frozenset[str]] | None = None  # those of each name, once they were heard here
    why: str = ""
    goes_on: bool = False  # what it stops is still being counted

    @property
    def missing(self) -> list[InstanceReport]:
        """Those that have not confirmed."""
        return [one for one in self.instances if one.state in ("unconfirmed", "lapsed")]

    @property
    def moving(self) -> list[InstanceReport]:
        """Those that have confirmed, though something of theirs still moves."""
        return [one for one in self.instances if one.state == "applied" and (one.running or one.draining)]

    @property
    def moves(self) -> int:
        """Runs of theirs that still move."""
        return len({(one.agent, run) for one in self.moving for run in (*one.running, *one.draining)})

    @property
    def only_drains(self) -> bool:
        """Whether all of those are let finish a write."""
        return all(set(one.running) <= set(one.draining) for one in self.moving)

    @property
    def confirmed(self) -> int:
        return sum(one.state == "applied" for one in self.instances)

    def had(self, who: Who, process: str) -> bool:
        """Whether the process was there. Until processes are heard of here, its name tells it."""
        if self.processes is None:
            return any((one.agent, one.instance) == who for one in self.instances)
        return process in self.processes.get(who, ())

    def is_shared(self, one: InstanceReport) -> bool:
        """Whether more than one process uses its name."""
        return len((self.processes or {}).get((one.agent, one.instance), ())) > 1

    def is_stray(self, one: InstanceReport) -> bool:
        """Whether nobody knows which process it is."""
        return one.instance == NO_PRESENCE


class Watch:
    """One halt, from just before it is written."""

    def __init__(self, nc: Client, js: JetStreamContext, scope: Scope) -> None:
        self.scope = scope
        self.record: SwitchRecord | None = None  # of the halt
        self._proof, self._witness = Proof(nc, js), Witness(nc)
        self._verdict: Verdict | None = None
        self._pressed: float | None = None
        self._after_press: float | None = None
        self._contained_at: datetime | None = None
        self._task: asyncio.Task[None] | None = None

    async def listen(self) -> None:
        """Begins to hear, or hears nothing at all. Raises what the bus raises."""
        try:
            await self._proof.listen(self.scope.agent)
            await self._witness.listen(self.scope.agent)
        except BaseException:
            await self.close()
            raise

    def begin(self, epoch: int, record: SwitchRecord, pressed: float | None) -> "asyncio.Task[None]":
        """Follows the halt that was written. `pressed`: when, by the loop's clock, where it was pressed here."""
        self.record, self._pressed = record, pressed
        self._witness.follow(self.scope, epoch, lambda _: None)
        self._task = asyncio.create_task(self._follow(epoch, record), name="containment")
        return self._task

    async def _follow(self, epoch: int, record: SwitchRecord) -> None:
        try:
            verdict, lifted = await self._proof.wait(self.scope, epoch, record, _LIMIT, self._heard)
            self._verdict = verdict
            if verdict.contained and lifted is None:
                self._contained_at = self._contained_at or datetime.now(UTC)
                if self._pressed is not None:
                    held = self._proof.held_since or asyncio.get_running_loop().time()
                    self._after_press = held - self._pressed
                await asyncio.sleep(_LINGER)
        except MISSED:
            pass  # who has confirmed so far stays; the next look begins anew
        finally:
            await self.close()

    async def close(self) -> None:
        """Hears no more, though whoever asks be cut off meanwhile."""
        await asyncio.shield(self._close())

    async def _close(self) -> None:
        await self._proof.close()
        await self._witness.close()

    def _heard(self, verdict: Verdict) -> None:
        # Only the end of the wait knows that nobody is missing where nobody was heard yet.
        self._verdict = verdict if not verdict.contained or verdict.reports else self._verdict
        if verdict.contained and verdict.reports:
            self._contained_at = self._contained_at or datetime.now(UTC)

    @property
    def done(self) -> bool:
        """Whether it follows nothing any more."""
        return self._task is None or self._task.done()

    @property
    def over(self) -> bool:
        """Whether it follows nothing any more, though the halt was not contained."""
        return self.done and self._contained_at is None

    def told(self, epoch: int, record: SwitchRecord | None) -> Told:
        """What was heard so far."""
        verdict, caused = self._verdict, self._witness
        here = self._pressed is not None
        contained = self._contained_at is not None
        return Told(
            phase="contained" if contained else "waiting", epoch=epoch, record=record,
            seconds=verdict.seconds if verdict and contained and here else None, after_press=self._after_press,
            at=self._contained_at, instances=verdict.reports if verdict else (),
            blocking=verdict.blocking if verdict else frozenset(), processes=verdict.processes if verdict else None,
            runs_stopped=caused.runs_stopped, cases=caused.cases, counted=here, first_case=caused.first_case,
            goes_on=not self.done,
        )  # fmt: skip

    def end(self) -> None:
        if self._task is not None:
            self._task.cancel()


class Watches:
    """The halts that somebody looks at."""

    def __init__(self, nc: Client, js: JetStreamContext, tasks: "set[asyncio.Task[Any]]") -> None:
        """`tasks`: those that are ended with the console."""
        self._nc, self._js, self._tasks = nc, js, tasks
        self._board = Switchboard(js)
        self._found: dict[tuple[str, str | None], Watch] = {}

    async def halt(self, scope: Scope, pressed: float, **how: object) -> Written:
        """Halts and follows it. That it cannot be followed keeps nothing from being halted. Raises what `Switchboard`
        raises."""
        watch, listens, begun = Watch(self._nc, self._js, scope), True, False
        try:
            try:
                async with asyncio.timeout(_LISTEN_WITHIN):
                    await watch.listen()
            except MISSED:
                listens = False
            written = await self._board.halt(scope, **how)  # type: ignore[arg-type]
            if listens and (written.changed or self._of(scope, written.record) is None):
                self._keep(watch)
                self._last(watch.begin(written.revision, written.record, pressed if written.changed else None))
                begun = True
        finally:
            if not begun:
                await watch.close()
        return written

    async def told(self, scope: Scope) -> Told:
        """How the halt of `scope` stands now."""
        try:
            async with asyncio.timeout(4):
                entry = await self._board.read(scope.key)
                record = standing_of(entry, scope)
                epoch = entry.revision
                if scope.target is None and not epoch:
                    return Told("absent", epoch)
                if scope.target is None and record is None:
                    record = SwitchRecord(state="halted")  # an absent key is not running
                if record is None or record.state == "running":
                    never = record is None or (scope.target is None and await self._is_first(entry))
                    return Told("never" if never else "lifted", epoch, record)
                watch = await self._watch(scope, epoch, record)
                told = watch.told(epoch, record)
                return _with(told, await self._reports(scope, entry, record))
        except MISSED:
            return Told("unknown", 0)

    async def _is_first(self, entry: Entry) -> bool:
        """Whether nothing was written to the key before."""
        subject = subjects.key_subject(subjects.SWITCH, entry.key)
        first = await self._js.get_msg(subjects.key_stream(subjects.SWITCH), seq=1, subject=subject, next=True)
        return first.seq == entry.revision

    async def _watch(self, scope: Scope, epoch: int, record: SwitchRecord) -> Watch:
        watch = self._of(scope, record)
        if watch is None:
            watch = Watch(self._nc, self._js, scope)
            await watch.listen()
            self._keep(watch)
            self._last(watch.begin(epoch, record, None))
        return watch

    def _of(self, scope: Scope, record: SwitchRecord) -> Watch | None:
        """The one that follows just this halt. Its record knows it: the key of a map moves on with other records."""
        watch = self._found.get((scope.key, scope.target))
        return watch if watch is not None and watch.record == record and not watch.over else None

    def _keep(self, watch: Watch) -> None:
        place = (watch.scope.key, watch.scope.target)
        if before := self._found.pop(place, None):
            before.end()
        oldest = sorted(self._found, key=lambda one: not self._found[one].done)  # those that are done first
        for old in oldest[: max(0, len(oldest) + 1 - _MOST)]:
            self._found.pop(old).end()
        self._found[place] = watch

    async def _reports(self, scope: Scope, entry: Entry, record: SwitchRecord) -> Mapping[str, Said]:
        """What kill-switch said of the halt that stands, by event."""
        found = {}
        for event in _REPORTS:
            subject = subjects.switch(scope.agent or subjects.FLEET, event)
            with contextlib.suppress(NotFoundError, NatsError, Temporary):
                message = await self._js.get_last_msg(subjects.GOVERNANCE, subject, direct=True)
                said = await self._said(subject, message.data or b"", scope, entry, record)
                if said is None and record.at is not None:  # another halt of the agent may have been told of since
                    async for some in read_range(self._nc, subjects.GOVERNANCE, subject, record.at - _CLOCKS_DIFFER):
                        for one in some:
                            said = await self._said(subject, one.body, scope, entry, record) or said
                if said is not None:
                    found[event] = said
        return found

    async def _said(self, subject: str, body: bytes, scope: Scope, entry: Entry, record: SwitchRecord) -> Said | None:
        """What it says, if that is of the halt that stands."""
        with contextlib.suppress(codec.Refused):
            said: Said = codec.decode(subject, body)
            if await self._is_of(said.data, scope, entry, record):
                return said
        return None

    async def _is_of(self, said: SwitchContained, scope: Scope, entry: Entry, record: SwitchRecord) -> bool:
        """Whether `said` is of the halt that stands and of none before it: the write that it names made `record`. The
        key of a map moves on with other records, and one without a time may have been written twice."""
        if (said.key, said.target) != (scope.key, scope.target):
            return False
        write = entry
        if said.epoch != entry.revision:
            if scope.target is None or record.at is None:
                return False
            found = await self._board.writes(said.epoch - 1, 1)
            if not found or found[0].revision != said.epoch:  # the bucket holds it no more
                return said.requested_at >= record.at - _CLOCKS_DIFFER
            write = found[0]
            if write.key != scope.key or standing_of(write, scope) != record:
                return False
        return write.written_at is not None and abs(said.requested_at - write.written_at) < _CLOCKS_DIFFER

    def _last(self, task: "asyncio.Task[None]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _with(told: Told, reports: Mapping[str, Said]) -> Told:
    """What was heard here beside what kill-switch said, which saw the halt being written and sees what revokes it. No
    word of it stands against a process that is missing here."""
    if revoked := reports.get("revoked"):
        return replace(told, phase="revoked", judged_by=subjects.KILL_SWITCH, why=revoked.data.reason)
    said = reports.get("contained")
    if said is None or told.missing:
        return told
    proven, better = said.data, told.phase != "contained" or told.seconds is None
    return replace(
        told,
        phase="contained",
        seconds=proven.seconds if better else told.seconds,
        judged_by=subjects.KILL_SWITCH if better else "here",
        at=told.at or said.time,
        instances=told.instances or tuple(proven.instances),
        runs_stopped=max(told.runs_stopped, proven.runs_stopped),
        cases=max(told.cases, proven.cases),
    )
