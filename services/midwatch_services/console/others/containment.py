"""How far a halt has got: heard on the bus from the press on, with every service and database of ours down."""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from midwatch.contracts import codec, subjects
from midwatch.contracts.control import SwitchRecord
from midwatch.contracts.governance import InstanceReport, SwitchContained
from midwatch.runtime.switchboard import Scope, Switchboard, Written, standing_of
from midwatch_services.kill_switch.decide import NO_PRESENCE, Verdict, Who
from midwatch_services.kill_switch.proof import Proof
from midwatch_services.kill_switch.witness import FirstCase, Witness

from .switch import MISSED

_LIMIT = 900.0  # seconds for which one halt is followed
_LINGER = 60.0  # seconds in which the runs and cases of a contained halt are still counted
_LISTEN_WITHIN = 1.0  # seconds; a halt waits no longer
_MOST = 20  # halts that are followed at once
_REPORTS = ("contained", "unconfirmed", "revoked")

Phase = Literal["waiting", "contained", "revoked", "lifted", "unknown"]


@dataclass(frozen=True)
class Told:
    """How a halt stands. `seconds`: from its write to the last confirmation; `after_press`: from the press here, if it
    was pressed here; `judged_by`: `here` or `kill-switch`, whose word it is. `lifted`: the record that ended it."""

    phase: Phase
    epoch: int
    record: SwitchRecord | None = None
    seconds: float | None = None
    after_press: float | None = None
    judged_by: str = "here"
    instances: tuple[InstanceReport, ...] = ()
    blocking: frozenset[Who] = frozenset()
    runs_stopped: int = 0
    cases: int = 0
    first_case: FirstCase | None = None
    why: str = ""
    goes_on: bool = False  # what it stops is still being counted

    @property
    def missing(self) -> list[InstanceReport]:
        """Those that have not confirmed."""
        return [one for one in self.instances if one.state in ("unconfirmed", "lapsed")]

    @property
    def confirmed(self) -> int:
        return sum(one.state == "applied" for one in self.instances)

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
        self._task: asyncio.Task[None] | None = None

    async def listen(self) -> None:
        """Begins to hear. Raises what the bus raises."""
        await self._proof.listen(self.scope.agent)
        await self._witness.listen(self.scope.agent)

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
                if self._pressed is not None:
                    self._after_press = asyncio.get_running_loop().time() - self._pressed
                await asyncio.sleep(_LINGER)
        except MISSED:
            pass  # who has confirmed so far stays; the next look begins anew
        finally:
            await self.close()

    async def close(self) -> None:
        """Hears no more."""
        await self._proof.close()
        await self._witness.close()

    def _heard(self, verdict: Verdict) -> None:
        # Only the end of the wait knows that nobody is missing where nobody was heard yet.
        self._verdict = verdict if not verdict.contained or verdict.reports else self._verdict

    @property
    def over(self) -> bool:
        """Whether it follows nothing any more, though the halt was not contained."""
        done = self._task is None or self._task.done()
        return done and not (self._verdict and self._verdict.contained)

    def told(self, epoch: int, record: SwitchRecord | None) -> Told:
        """What was heard so far."""
        verdict, caused = self._verdict, self._witness
        here = self._pressed is not None
        contained = bool(verdict and verdict.contained and (verdict.reports or (self._task and self._task.done())))
        contained = contained or (verdict is not None and verdict.contained and self._after_press is not None)
        return Told(
            phase="contained" if contained else "waiting", epoch=epoch, record=record,
            seconds=verdict.seconds if verdict and contained and here else None, after_press=self._after_press,
            instances=verdict.reports if verdict else (), blocking=verdict.blocking if verdict else frozenset(),
            runs_stopped=caused.runs_stopped, cases=caused.cases, first_case=caused.first_case,
            goes_on=self._task is not None and not self._task.done(),
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
        watch, listens = Watch(self._nc, self._js, scope), True
        try:
            async with asyncio.timeout(_LISTEN_WITHIN):
                await watch.listen()
        except MISSED:
            listens = False
        written = await self._board.halt(scope, **how)  # type: ignore[arg-type]
        followed = self._of(scope, written.record)
        if listens and (written.changed or followed is None):
            self._keep(watch)
            self._last(watch.begin(written.revision, written.record, pressed if written.changed else None))
        else:
            await watch.close()
        return written

    async def told(self, scope: Scope) -> Told:
        """How the halt of `scope` stands now."""
        try:
            async with asyncio.timeout(4):
                entry = await self._board.read(scope.key)
                record = standing_of(entry, scope)
                epoch = entry.revision
                if scope.target is None and record is None:
                    record = SwitchRecord(state="halted")  # an absent key is not running
                if record is None or record.state == "running":
                    return Told("lifted", epoch, record)
                watch = await self._watch(scope, epoch, record)
                told = watch.told(epoch, record)
                return _with(told, await self._reports(scope, epoch))
        except MISSED:
            return Told("unknown", 0)

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
        for old in [one for one in self._found if one == place] or list(self._found)[: len(self._found) - _MOST]:
            self._found.pop(old).end()
        self._found[place] = watch

    async def _reports(self, scope: Scope, epoch: int) -> Mapping[str, SwitchContained]:
        """What kill-switch said of this halt, by event."""
        found = {}
        for event in _REPORTS:
            subject = subjects.switch(scope.agent or subjects.FLEET, event)
            with contextlib.suppress(NotFoundError, NatsError, codec.Refused):
                message = await self._js.get_last_msg(subjects.GOVERNANCE, subject, direct=True)
                data: SwitchContained = codec.decode(message.subject or "", message.data or b"").data
                is_this = data.epoch == epoch or (scope.target is not None and data.epoch <= epoch)
                if data.key == scope.key and data.target == scope.target and is_this:
                    found[event] = data
        return found

    def _last(self, task: "asyncio.Task[None]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _with(told: Told, reports: Mapping[str, SwitchContained]) -> Told:
    """What was heard here beside what kill-switch said, which saw the halt being written and sees what revokes it."""
    if revoked := reports.get("revoked"):
        return replace(told, phase="revoked", judged_by=subjects.KILL_SWITCH, why=revoked.reason)
    proven = reports.get("contained")
    if proven is None:
        return told
    better = told.phase != "contained" or told.seconds is None
    return replace(
        told,
        phase="contained",
        seconds=proven.seconds if better else told.seconds,
        judged_by=subjects.KILL_SWITCH if better else "here",
        instances=told.instances or tuple(proven.instances),
        runs_stopped=max(told.runs_stopped, proven.runs_stopped),
        cases=max(told.cases, proven.cases),
    )
