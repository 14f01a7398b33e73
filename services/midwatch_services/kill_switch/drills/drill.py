"""One drill: halts an agent for real under a flow of its own tickets, measures, restores, and says what it found."""

import asyncio
import contextlib
import hashlib
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import msgspec
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from midwatch import link
from midwatch.client import connect
from midwatch.contracts import codec, control, subjects
from midwatch.contracts.governance import InstanceReport, SwitchDrilled
from midwatch.errors import MidwatchError
from midwatch.runtime.broker import connection
from midwatch.runtime.outbox import Outgoing
from midwatch.runtime.switchboard import Scope, Switchboard, Written

from .. import reports
from ..proof import Proof
from ..registry import Instances, read_presence
from . import drill_check, drill_plan
from .drill_check import NotReady, Ready
from .drill_flow import Flow, Readback
from .drill_plan import LIMITS, SHAPE, Limits, Shape, Tally

_LOOK = 0.02  # seconds between two looks at what was read
_AGAIN = 1.0  # seconds between two attempts at what must be done
_PUBLISH_WITHIN = 30.0  # seconds

T = TypeVar("T")
_MAY_PASS = (NatsError, OSError, TimeoutError, MidwatchError)


@dataclass(frozen=True)
class Order:
    """What is to be drilled, by whom, at which address the tickets flow. `ready` is the answer of the pre-flight."""

    ready: Ready
    by: str
    url: str
    drill_id: str
    scheduled: bool = False
    shape: Shape = SHAPE
    limits: Limits = LIMITS

    @property
    def agent(self) -> str:
        return self.ready.card.agent


def new_id(now: datetime) -> str:
    """A name for a drill that people can type, as `drill_plan.is_id` knows it again."""
    return f"drill-{now:%Y%m%d}-{secrets.token_hex(3)}"


def message(result: SwitchDrilled, kind: str) -> Outgoing:
    """`drilled`, to be said once a drill and `kind`: `result`, `unreported` or `signed`."""
    id = hashlib.sha256(repr(("drilled", result.drill_id, kind)).encode()).hexdigest()[:32]
    envelope = codec.envelope("switch", "drilled", result, source=reports.SOURCE, id=id)
    return Outgoing(id, subjects.switch(result.agent, "drilled"), codec.encode(envelope))


async def publish(js: JetStreamContext, result: SwitchDrilled, kind: str) -> None:
    """Says a result, however long NATS is away, within reason. Raises the last error."""
    said = message(result, kind)
    headers = {subjects.MSG_ID: said.msg_id, subjects.CONTENT_TYPE: subjects.CLOUDEVENTS_JSON}
    async with asyncio.timeout(_PUBLISH_WITHIN):
        while True:
            try:
                await js.publish(said.subject, said.body, timeout=2, headers=headers)
                return
            except (NatsError, OSError, TimeoutError):
                await asyncio.sleep(_AGAIN)


@asynccontextmanager
async def lasting_connection(url: str) -> AsyncIterator[Client]:
    """A connection that comes back: a halt must be lifted after a restart of NATS too. Raises Temporary where no server
    answers now."""
    async with connection(url):
        pass

    async def quiet(_: Exception) -> None:
        """What matters is raised as well."""

    nc = await nats.connect(url.split(","), max_reconnect_attempts=-1, reconnect_time_wait=1, error_cb=quiet)
    try:
        yield nc
    finally:
        await nc.close()


class Drill:
    """One drill. `tell` hears in words how far it is; `result` is there once it is over."""

    def __init__(self, nc: Client, js: JetStreamContext, order: Order, tell: Callable[[str], None]) -> None:
        self._nc, self._js, self._order, self._tell = nc, js, order, tell
        self._scope = Scope(order.agent)
        self._by = drill_plan.signature(order.drill_id, order.by)
        self._board = Switchboard(js)
        self._read = Readback(nc, js, order.agent, order.drill_id)
        self._following: asyncio.Task[None] | None = None
        self._instances = Instances()
        self._started_at = datetime.now(UTC)
        self._asked_at = self._lifted_at = self._started_at  # by our clock
        self._halted_at: datetime | None = None  # by the server's
        self._written: Written | None = None
        self._inconclusive: list[str] = []
        self._behind_at_end: list[str] = []
        self._reports: list[InstanceReport] = []
        self._contained_seconds: float | None = None
        self._restored = False
        self._restore_seconds: float | None = None
        self._tally: Tally | None = None
        self._tickets: list[str] = []
        self.result: SwitchDrilled | None = None

    @property
    def halted(self) -> bool:
        """Whether the agent was halted by this drill."""
        return self._written is not None

    async def perform(self) -> SwitchDrilled:
        """Drills, and says the result on the bus. Raises NotReady where it came to no halt. Cancelled, it restores and
        reports before it ends."""
        cancelled: asyncio.CancelledError | None = None
        try:
            await self._drill()
        except asyncio.CancelledError as error:
            cancelled = error
            self._inconclusive.append("inconclusive: it was interrupted; its tickets were not counted")
        except _MAY_PASS as error:
            if self._written is None:
                raise
            self._inconclusive.append(f"inconclusive: it could not go on: {error or type(error).__name__}")
        if self._written is None and cancelled is not None:
            raise cancelled
        result = await uninterrupted(self._report())
        if cancelled is not None:
            raise cancelled
        return result

    # The course of it

    async def _drill(self) -> None:
        order, agent = self._order, self._order.agent
        with tempfile.TemporaryDirectory(prefix="midwatch-drill-") as home:
            heard = await self._nc.subscribe(subjects.presence(agent, "*"), cb=self._hear)
            await self._read.begin()
            self._following = asyncio.create_task(self._read.follow())
            try:
                async with connect(order.url, home=home, instance=order.drill_id) as mw:
                    ours = mw.agent(agent, version="drill")
                    flow = Flow(ours, order.drill_id, order.ready.tool, order.shape)
                    self._tickets = flow.sent
                    async with _running(flow):
                        await self._warm_up()
                        await self._halt_and_restore()
                        await self._back_to_normal()
                        await asyncio.sleep(order.shape.after)
                await self._settle()
            finally:
                await end(self._following)
                with contextlib.suppress(NatsError):
                    await heard.unsubscribe()

    async def _hear(self, message: Msg) -> None:
        if instance := read_presence(message.subject, message.data, datetime.now(UTC)):
            self._instances.hear(instance)

    async def _warm_up(self) -> None:
        shape = self._order.shape
        self._tell(f"{shape.per_second:g} tickets a second flow to {self._order.agent}")
        if not await self._until(lambda: bool(self._read.answers), shape.settle):
            raise NotReady(
                why=f"none of the drill's tickets was answered within {shape.settle:g} s, so nothing was halted: see "
                "that the drill may speak for the agent (MIDWATCH_DRILL_NATS_URL) and `midwatch doctor`"
            )
        await asyncio.sleep(shape.before)

    async def _halt_and_restore(self) -> None:
        shape, limits = self._order.shape, self._order.limits
        proof = Proof(self._nc, self._js)
        await proof.listen(self._order.agent)
        self._asked_at = datetime.now(UTC)
        expires_at = self._asked_at + timedelta(seconds=shape.expires)
        reason = f"a drill: it ends by itself, at the latest at {expires_at:%H:%M:%S} UTC"
        try:
            written = await self._board.halt(self._scope, reason=reason, by=self._by, expires_at=expires_at, drill=True)
            if not (written.changed and written.record.by == self._by and written.record.drill):
                raise NotReady(why=f"{self._order.agent} was halted meanwhile by {written.record.by}: that halt stays")
            self._written = written
            self._tell("halted, until every process has confirmed it and a case has come")
            verdict, _ = await proof.wait(
                self._scope, written.revision, written.record, limits.effective, lambda _: None
            )
            self._halted_at = (await self._js.get_msg(subjects.key_stream(subjects.SWITCH), written.revision)).time
            self._reports = list(verdict.reports)
            self._contained_seconds = verdict.seconds if verdict.contained else None
            await self._until(lambda: self._first_case_at() is not None, self._left(limits.first_fallback))
            await asyncio.sleep(self._left(shape.hold))
        finally:
            await uninterrupted(self._restore())

    def _left(self, limit: float) -> float:
        return max(0.0, limit - (datetime.now(UTC) - self._asked_at).total_seconds())

    async def _restore(self) -> None:
        """Lifts the halt, if it stands and is still ours, however long NATS is away; once the halt has expired that is
        kill-switch's to do."""
        self._tell("restoring")
        self._lifted_at = datetime.now(UTC)
        until = self._asked_at + timedelta(seconds=self._order.shape.expires)
        while True:
            try:
                self._written = self._written or await self._arrived()
                if self._written is not None:
                    self._restored = await self._board.restore(
                        self._scope, self._written, by=self._by, reason="the drill is over"
                    )
                return
            except _MAY_PASS as error:
                if datetime.now(UTC) >= until:
                    self._inconclusive.append(f"inconclusive: its halt could not be lifted ({error}), and has expired")
                    return
            await asyncio.sleep(_AGAIN)

    async def _arrived(self) -> Written | None:
        """Our halt, where it was written though its answer was lost."""
        subject = subjects.key_subject(subjects.SWITCH, self._scope.key)
        found = await drill_check.last(self._js, subjects.key_stream(subjects.SWITCH), subject)
        record = control.decode_record(found.data or b"") if found else None
        if found is None or record is None or record.by != self._by or record.state != "halted":
            return None
        return Written(self._scope.key, found.seq or 0, True, record)

    async def _back_to_normal(self) -> None:
        """Measures the restore, or says who has overtaken the drill."""
        assert self._written is not None
        writes = [one for one in await self._board.writes(self._written.revision) if one.key == self._scope.key]
        if not self._restored or not writes:
            by = next((record for one in writes if (record := one.record()) is not None), None)
            what = f"{'halted' if by.state == 'halted' else 'resumed'} by {by.by} ({by.reason})" if by else "deleted"
            self._inconclusive.append(
                f"inconclusive: it was overtaken: {self._scope.key} was {what} meanwhile, which was left as it is"
            )
            return
        resumed, at = writes[0].revision, writes[0].written_at or self._lifted_at
        self._tell("restored; waiting until every instance has applied it and a ticket is answered")
        until = self._order.limits.restore
        applied = await self._until(lambda: not self._behind(resumed), until)
        applied_seconds = (datetime.now(UTC) - self._lifted_at).total_seconds()
        if await self._until(lambda: bool(self._answers_after(at)), until - applied_seconds) and applied:
            answered_seconds = (min(self._answers_after(at)) - at).total_seconds()
            self._restore_seconds = round(max(applied_seconds, answered_seconds), 3)
        elif (fleet := (await self._board.read(subjects.FLEET_KEY)).record()) is None or fleet.state == "halted":
            by_whom = fleet.by if fleet else "nobody knows whom"
            self._inconclusive.append(f"inconclusive: it was overtaken: the fleet was halted meanwhile by {by_whom}")
        else:
            self._behind_at_end = self._behind(resumed)

    def _behind(self, resumed: int) -> list[str]:
        """Instances that speak and have not applied the resume."""
        now = datetime.now(UTC)
        return [
            one.instance
            for one in self._instances.of(self._order.agent)
            if not one.left and now - one.seen_at <= one.lease and one.applied.get(self._scope.key, 0) < resumed
        ]

    def _answers_after(self, at: datetime) -> list[datetime]:
        return [stored for stored in self._read.answered_at.values() if stored > at]

    async def _settle(self) -> None:
        """Counts the tickets once their events are in the streams and the router has seen to all of them."""
        self._tell("counting the tickets")
        settle = self._order.shape.settle
        await self._until(lambda: self._read.settled(self._tickets), settle)
        async with asyncio.timeout(settle):
            while True:
                info = await self._js.consumer_info(subjects.RUNS, subjects.KILL_SWITCH)
                if info.ack_floor and info.ack_floor.stream_seq >= self._read.last_run_event:
                    break
                await asyncio.sleep(_LOOK)
        if self._following is not None:
            await end(self._following)
        await self._read.catch_up()
        self._tally = drill_plan.tally(self._tickets, self._read.answers, self._read.cases)

    async def _until(self, there: Callable[[], bool], within: float) -> bool:
        loop = asyncio.get_running_loop()
        until = loop.time() + within
        while not there():
            if self._following is not None and self._following.done():
                self._following.result()
            if loop.time() >= until:
                return False
            await asyncio.sleep(_LOOK)
        return True

    # What it found

    def _first_case_at(self) -> datetime | None:
        return self._read.case_at.get((self._scope.key, self._written.revision if self._written else None))

    async def _report(self) -> SwitchDrilled:
        self.result = self._conclude()
        await publish(self._js, self.result, "result")
        return self.result

    def _conclude(self) -> SwitchDrilled:
        order, tally = self._order, self._tally or Tally(tickets=len(self._tickets))
        epoch = self._written.revision if self._written else None
        case_at, after = self._first_case_at(), None
        if case_at is not None and self._halted_at is not None:
            after = round((case_at - self._halted_at).total_seconds(), 3)
        calls = [began for began in self._read.calls if self._asked_at < began < self._lifted_at]
        last_call = round((max(calls) - self._asked_at).total_seconds(), 3) if calls else 0.0
        contained = self._contained_seconds
        result = SwitchDrilled(
            drill_id=order.drill_id, agent=order.agent, by=order.by, started_at=self._started_at, passed=False,
            scheduled=order.scheduled, signed_off_by="" if order.scheduled else order.by, epoch=epoch,
            effective_seconds=None if contained is None else round(max(contained, last_call), 3),
            last_call_seconds=last_call, first_fallback_seconds=after, restore_seconds=self._restore_seconds,
            tickets=tally.tickets, answered=tally.answered, fell_back=tally.fell_back, lost=tally.lost,
            doubled=tally.doubled, restored=self._restored, instances=self._reports,
        )  # fmt: skip
        found = self._inconclusive or drill_plan.failures(result, order.limits)
        if self._behind_at_end:
            found.append(f"the resume was not applied by {', '.join(self._behind_at_end)}")
        return msgspec.structs.replace(result, passed=not found, failures=found)


@asynccontextmanager
async def _running(flow: Flow) -> AsyncIterator[None]:
    sending = asyncio.create_task(flow.run())
    try:
        yield
        await end(sending)
        await flow.over()
    finally:
        await end(sending)


async def end(task: "asyncio.Task[None]") -> None:
    """Ends a task, and again where nats-py has swallowed its cancellation."""
    await link.end([task])
    if not task.cancelled():
        task.exception()  # whoever waits for what it does has looked


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """Does `work` to its end, whoever cancels; then the cancellation goes on."""
    task, cancelled = asyncio.ensure_future(work), False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    result = task.result()
    if cancelled:
        raise asyncio.CancelledError
    return result
