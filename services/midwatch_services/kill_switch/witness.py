"""What a halt sets off, as a client hears it: the runs that it ends, and the cases that reach the fallback."""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from midwatch.contracts import codec, subjects
from midwatch.contracts.control import CaseClaim
from midwatch.contracts.governance import CaseOpened
from midwatch.contracts.runs import Finished
from midwatch.runtime.broker import round_trip
from midwatch.runtime.switchboard import Scope

from .registry import RunKey

_SIGN = 0.25  # seconds for the first word of a run that was stopped
_FIRST = 1.0  # seconds for the first case


class FirstCase(NamedTuple):
    """The first case at the fallback. `seconds`: from the halt, by our clock. `to`: own, human or agent:<name>."""

    case_id: str
    to: str
    seconds: float


class _Cause(NamedTuple):
    """`key` is None of a run that ended: its event names the epoch alone."""

    key: str | None
    epoch: int | None
    run: RunKey


class Witness:
    """Hears what ends runs and opens cases from `listen` on, and tells what one halt caused."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._since = datetime.now(UTC)
        self._cases: list[tuple[_Cause, str, datetime]] = []
        self._ends: list[_Cause] = []
        self._halt: tuple[Scope, int] | None = None
        self._tell: Callable[[FirstCase], None] = lambda _: None
        self._first, self._sign = asyncio.Event(), asyncio.Event()
        self._heard_on: list[Subscription] = []

    async def listen(self, agent: str | None) -> None:
        """Begins to hear; to be called before the halt is written."""
        who = agent or "*"
        for subject, heard in (
            (subjects.run(who, "finished"), self._finished),
            (subjects.case(who, "opened"), self._opened),
            (subjects.key_subject(subjects.CASES, f"{who}.*"), self._claimed),
        ):
            self._heard_on.append(await self._nc.subscribe(subject, cb=heard))
        await round_trip(self._nc, within=2)
        self._since = datetime.now(UTC)

    async def close(self) -> None:
        """Hears no more, where the connection goes on."""
        for one in self._heard_on:
            with contextlib.suppress(NatsError):
                await one.unsubscribe()

    def follow(self, scope: Scope, epoch: int, tell: Callable[[FirstCase], None]) -> None:
        """`tell` hears of the first case that the halt of `scope` at `epoch` sent to its fallback, at once."""
        self._halt, self._tell = (scope, epoch), tell
        self._look()

    async def linger(self, moved: bool) -> None:
        """Waits a moment for the first case. Where nothing was seen to be in flight (`moved`), an instance may have
        stopped its runs before it was asked for the first time: what it says of them comes at once, or not at all."""
        with contextlib.suppress(TimeoutError):
            if not moved:
                async with asyncio.timeout(_SIGN):
                    await self._sign.wait()
            async with asyncio.timeout(_FIRST):
                await self._first.wait()

    @property
    def first_case(self) -> FirstCase | None:
        for cause, to, at in self._cases:
            if self._ours(cause):
                seconds = max(0.0, (at - self._since).total_seconds())
                return FirstCase(subjects.case_id(*cause.run), to, round(seconds, 6))
        return None

    @property
    def cases(self) -> int:
        """Cases heard of so far: a claim and the opening that follows it are one."""
        return len({cause.run for cause, _, _ in self._cases if self._ours(cause)})

    @property
    def runs_stopped(self) -> int:
        """Runs that were heard to end by the halt so far."""
        return len({cause.run for cause in self._ends if self._ours(cause)})

    def _ours(self, cause: _Cause) -> bool:
        """Whether the halt caused it. A run may have read a later write of the key, which left the halt as it was."""
        if self._halt is None or cause.epoch is None:
            return False
        scope, epoch = self._halt
        run_id = None if scope.run_id is None else scope.target
        return cause.key in (None, scope.key) and cause.epoch >= epoch and run_id in (None, cause.run[1])

    def _look(self) -> None:
        if self.runs_stopped or self.cases:
            self._sign.set()
        if not self._first.is_set() and (first := self.first_case):
            self._first.set()
            self._tell(first)

    async def _finished(self, message: Msg) -> None:
        with contextlib.suppress(codec.Refused):
            event = codec.decode_run(message.subject, message.data)
            data = event.data
            if isinstance(data, Finished) and data.mode == "live" and data.resolution in ("halted", "fell_back"):
                self._ends.append(_Cause(None, data.epoch, (event.agent, data.run_id)))
                self._look()

    async def _opened(self, message: Msg) -> None:
        with contextlib.suppress(codec.Refused):
            data = codec.decode(message.subject, message.data).data
            if isinstance(data, CaseOpened):
                self._case(_Cause(data.key, data.epoch, (data.agent, data.run_id)), data.to)

    async def _claimed(self, message: Msg) -> None:
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            claim = msgspec.json.decode(message.data, type=CaseClaim)
            own = subjects.key_subject(subjects.CASES, subjects.case_key(claim.agent, claim.run_id))
            if message.subject == own:  # an offer that is taken is no new case
                self._case(_Cause(claim.key, claim.epoch, (claim.agent, claim.run_id)), claim.to)

    def _case(self, cause: _Cause, to: str) -> None:
        self._cases.append((cause, to, datetime.now(UTC)))
        self._look()
