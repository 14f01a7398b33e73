"""The one loop by which services read streams: pull, decode, hand over, publish what was decided, acknowledge."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Generic

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from typing_extensions import TypeVar

from midwatch.contracts import codec
from midwatch.contracts.codec import Refused, RunEvent
from midwatch.errors import Permanent, Temporary

from . import faults, straight, telemetry
from .dead_letters import bury, bury_together, groups, pack
from .garbage import spare_collections
from .outbox import Outbox

E = TypeVar("E", default=RunEvent)
Headers = Mapping[str, str] | None
log = logging.getLogger("midwatch.delivery")

EXPIRES = 5.0  # seconds that one pull request waits on the server
SILENCE = EXPIRES + 2.0  # with neither message nor status for so long, the pull is taken to be lost
AHEAD = 4  # batches under way or waiting beside the one that is handled
LINGER = 0.02  # seconds to wait for a batch to fill while the server has more
TICK = 0.2  # seconds between looks at the connection and at deliveries that wait
MAX_BYTES = 16 * 1024 * 1024  # of one pull; bounds memory where events are large
LONGEST_DELAY = 60.0  # seconds between attempts
BURIALS = 50  # dead letters under way at once, where they go one by one
_REMEMBERED = 10_000  # messages whose failures are counted


@dataclass(slots=True)
class Received(Generic[E]):
    """One message as the server delivered it. `delivered` counts from 1; `stored_at` is the server's clock."""

    event: E
    body: bytes
    subject: str
    headers: Headers
    stream_seq: int
    delivered: int
    stored_at: datetime
    reply: str


@dataclass(slots=True)
class _Refusal:
    received: Received[None]
    reason: str
    error: str

    @property
    def reply(self) -> str:
        return self.received.reply


class RunReader(Generic[E]):
    """Reads one durable pull consumer with explicit acknowledgement until it is cancelled.

    A lone message is handed over at once; under load a batch is what arrived while the last one was handled.
    """

    def __init__(
        self,
        nc: Client,
        js: JetStreamContext,
        *,
        stream: str,
        consumer: str,
        service: str,
        handle: Callable[[list[Received[E]]], Awaitable[None]],
        decode: Callable[[str, bytes], E] = codec.decode_run,  # type: ignore[assignment]
        outbox: Outbox | None = None,
        batch: int = 500,
        max_attempts: int = 8,
    ) -> None:
        self._nc, self._js = nc, js
        self._stream, self._consumer, self._service = stream, consumer, service
        self._handle, self._decode, self._outbox = handle, decode, outbox
        self._batch, self._max_attempts = batch, max_attempts
        self._requests = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = nc.new_inbox()
        self._pulls = 0
        self._credit = 0  # messages that the server may still send
        self._waiting: list[Received[E] | _Refusal] = []
        self._working: dict[str, Received[E] | _Refusal] = {}  # by reply subject; not yet answered
        self._arrived, self._full = asyncio.Event(), asyncio.Event()
        self._heard = monotonic()
        self._ack_wait = 30.0
        self._failures: dict[int, int] = {}  # by stream sequence
        self._undelivered = 0  # messages of the stream, as of the last delivery
        labels = (service, consumer)
        self._handled, self._retried = telemetry.HANDLED.labels(*labels), telemetry.RETRIED.labels(*labels)
        self._last = telemetry.LAST_HANDLED.labels(*labels)
        self._seconds, self._lag = telemetry.BATCH_SECONDS.labels(*labels), telemetry.LAG.labels(*labels)
        self.error: str | None = None  # why nothing can be read, in one line
        self._stuck: tuple[str, float] | None = None  # why it cannot be handled, and until when that holds

    async def run(self) -> None:
        """Reads until cancelled. What was delivered and not yet handled goes back to the server at once."""
        await self._find_consumer()
        spare_collections()
        subscription = await self._nc.subscribe(f"{self._inbox}.*", cb=self._on_message)
        ticker = asyncio.create_task(self._tick())
        with straight.taken_by(self._nc, subscription, self._take):
            try:
                await self._read()
            finally:
                ticker.cancel()
                with contextlib.suppress(NatsError, asyncio.CancelledError):
                    await ticker
                await self._let_go(subscription)

    async def _let_go(self, subscription: Subscription) -> None:
        """Gives back what was delivered. First it ends the pulls, to which the server would give it again, and takes
        what is on its way meanwhile."""
        with contextlib.suppress(NatsError):
            await subscription.unsubscribe()
        if self._nc.is_connected:
            with contextlib.suppress(NatsError, TimeoutError):
                await self._nc.flush(timeout=1)
            await self._answer([*self._working.values(), *self._waiting], b"-NAK")

    async def _read(self) -> None:
        while True:
            await self._pull()
            await self._arrived.wait()
            while self._waiting:
                await self._fill()
                self._arrived.clear()
                batch, self._waiting = self._waiting[: self._batch], self._waiting[self._batch :]
                self._working = {item.reply: item for item in batch}
                await self._pull()
                with self._seconds.time():
                    await self._work(batch)
                self._lag.set(self._undelivered + len(self._waiting))

    def caught_up(self) -> bool:
        """Whether, by what was heard of the server a moment ago, all that it has was handled."""
        heard = self.error is None and monotonic() - self._heard < SILENCE
        return heard and not (self._undelivered or self._waiting or self._working)

    def trouble(self) -> str | None:
        """Why it cannot read, or cannot handle what it reads, in one line; None where all is well.

        What it gave back may have gone to another process since: trouble that is not met again is over."""
        if self.error is None and self._stuck is not None and (self._working or monotonic() < self._stuck[1]):
            return self._stuck[0]
        return self.error

    def behind(self) -> int:
        """How many messages wait to be handled, by what was heard of the server a moment ago."""
        return self._undelivered + len(self._waiting) + len(self._working)

    # Receiving

    async def _find_consumer(self) -> None:
        while True:
            try:
                info = await self._js.consumer_info(self._stream, self._consumer)
                break
            except (NatsError, TimeoutError) as error:
                self._complain(f"cannot read {self._stream}: consumer {self._consumer} is not there ({error})")
                await asyncio.sleep(1)
        self._ack_wait = info.config.ack_wait or 30.0
        if info.config.max_ack_pending and info.config.max_ack_pending > 0:
            self._batch = max(1, min(self._batch, info.config.max_ack_pending // (AHEAD + 1)))
        self.error = None

    def _complain(self, what: str) -> None:
        text = f"{what}: run `midwatch topology apply`"
        if self.error != text:
            log.warning("%s: %s", self._service, text)
        self.error = text

    async def _pull(self) -> None:
        """Asks for as much as fits while one batch is handled and others wait."""
        room = AHEAD * self._batch - self._credit - len(self._waiting)
        if room < self._batch and self._credit > 0:
            return
        if room <= 0 or not self._nc.is_connected:
            return
        if self._credit == 0:
            self._heard = monotonic()
        self._pulls += 1
        self._credit += room
        request = {"batch": room, "expires": int(EXPIRES * 1e9), "max_bytes": MAX_BYTES}
        with contextlib.suppress(NatsError):  # the tick asks again once the connection is back
            await self._nc.publish(self._requests, msgspec.json.encode(request), reply=f"{self._inbox}.{self._pulls}")

    async def _fill(self) -> None:
        """Waits a moment for a whole batch where the server has more; never where what came is all there is."""
        if self._undelivered and len(self._waiting) < self._batch:
            self._full.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LINGER):
                    await self._full.wait()

    async def _on_message(self, message: Msg) -> None:
        if message.reply.startswith("$JS.ACK."):
            self._receive(message.subject, message.reply, message.data, message.headers)
        else:
            await self._on_status(message)

    def _take(self, subject: bytes, reply: bytes, body: bytes, headers: bytes) -> bool:
        """`_on_message` for what comes the short way."""
        if is_acked := reply.startswith(b"$JS.ACK.") and straight.is_plain(headers):
            self._receive(subject.decode(), reply.decode(), body, straight.Headers(headers) if headers else None)
        return is_acked

    def _receive(self, subject: str, reply: str, body: bytes, headers: Headers) -> None:
        self._heard, self.error = monotonic(), None
        self._credit = max(0, self._credit - 1)
        received, self._undelivered = _received(subject, reply, body, headers)
        try:
            received.event = self._decode(received.subject, received.body)  # type: ignore[assignment]
            self._waiting.append(received)  # type: ignore[arg-type]
        except Refused as refused:
            self._waiting.append(_Refusal(received, refused.reason, str(refused)))
        except Exception as error:  # a body that breaks the decoder itself, for instance nested too deep
            self._waiting.append(_Refusal(received, "malformed", f"the body cannot be read: {error!r}"))
        self._arrived.set()
        if len(self._waiting) >= self._batch or not self._undelivered:
            self._full.set()

    async def _on_status(self, message: Msg) -> None:
        """The end of a pull: it expired, was refused, or its consumer went away."""
        self._heard, headers = monotonic(), message.headers or {}
        status, description = headers.get("Status", ""), headers.get("Description", "")
        if status == "100":
            return
        # Without the header it is unknown which pull was how far: count none, and rather ask for a batch too many.
        unsent = headers.get("Nats-Pending-Messages")
        self._credit = max(0, self._credit - int(unsent)) if unsent else 0
        if status in ("404", "408") or unsent:
            self.error = None
            await self._pull()
            return
        if status == "503" or "Deleted" in description:
            self._complain(f"cannot read {self._stream}: consumer {self._consumer} is not there")
        else:
            self._complain(f"cannot read {self._stream}: the server answers {status} {description}")

    async def _tick(self) -> None:
        reconnects = self._nc.stats["reconnects"]
        complained, kept_alive = 0.0, monotonic()
        while True:
            await asyncio.sleep(TICK)
            now = monotonic()
            if self._nc.stats["reconnects"] != reconnects or (self._credit and now - self._heard > SILENCE):
                reconnects = self._nc.stats["reconnects"]
                self._credit = 0
            if self._credit == 0 and self._nc.is_connected and (self.error is None or now - complained > 1):
                complained = now
                await self._pull()
            if now - kept_alive > self._ack_wait / 3 and self._nc.is_connected:
                kept_alive = now
                await self._answer([*self._working.values(), *self._waiting], b"+WPI")

    # Handling

    async def _work(self, batch: Sequence[Received[E] | _Refusal]) -> None:
        good = [item for item in batch if isinstance(item, Received)]
        if good:
            await self._apply(good)
        bad = [item for item in batch if isinstance(item, _Refusal)]
        for some in groups(bad, lambda item: len(item.received.body)):
            if len(some) == 1 or not await self._refuse_together(some):
                for start in range(0, len(some), BURIALS):
                    await asyncio.gather(*(self._refuse(item) for item in some[start : start + BURIALS]))

    async def _apply(self, batch: list[Received[E]]) -> bool:
        """Handles and answers the batch. False where the service cannot work at the moment."""
        faults.reach("delivery.received")
        try:
            with telemetry.spans_for(batch, self._service):
                await self._handle(batch)
            faults.reach("delivery.handled")
            if self._outbox is not None:
                await self._outbox.drain()
                faults.reach("delivery.drained")
        except (Temporary, NatsError, TimeoutError) as error:
            delay = error.delay if isinstance(error, Temporary) else 1.0
            why = str(error) or repr(error)
            log.warning("%s: %s; trying again in %g s", self._service, why, delay)
            self._stuck = (why, monotonic() + delay + SILENCE)
            await self._send_back(batch, delay)
            await asyncio.sleep(delay)
            return False
        except Exception as error:
            if len(batch) == 1:
                await self._give_up_or_retry(batch[0], error)
            else:
                await self._apply_each(batch)
            return True
        self._stuck = None
        for received in batch if self._failures else ():
            self._failures.pop(received.stream_seq, None)
        await self._settle(batch, b"")
        self._handled.inc(len(batch))
        self._last.set_to_current_time()
        faults.reach("delivery.acked")
        return True

    async def _apply_each(self, batch: list[Received[E]]) -> None:
        for place, received in enumerate(batch):
            if not await self._apply([received]):
                await self._send_back(batch[place + 1 :], 0.0)
                return

    async def _give_up_or_retry(self, received: Received[E], error: Exception) -> None:
        failures = self._failures.pop(received.stream_seq, 0) + 1
        if failures < self._max_attempts and not isinstance(error, Permanent):
            self._failures[received.stream_seq] = failures
            if len(self._failures) > _REMEMBERED:
                del self._failures[next(iter(self._failures))]
            log.warning("%s: %s failed (attempt %d): %r", self._service, received.subject, failures, error)
            await self._send_back([received], min(LONGEST_DELAY, 0.25 * 2**failures))
            return
        reason = error.reason if isinstance(error, Permanent) else "failed"
        await self._bury(received, reason, str(error) or repr(error), failures)

    async def _refuse_together(self, refusals: Sequence[_Refusal]) -> bool:
        """One by one, each letter costs the server a sync of its disk, and good events wait behind them."""
        letters = [
            pack(self._service, **self._letter(one.received, one.reason, one.error, one.received.delivered))
            for one in refusals
        ]
        if not await bury_together(self._nc, letters):
            return False
        for one in refusals:
            self._say_dead(one.received, one.reason, one.error)
        faults.reach("delivery.buried")
        await self._settle([one.received for one in refusals], b"")
        return True

    async def _refuse(self, refusal: _Refusal) -> None:
        await self._bury(refusal.received, refusal.reason, refusal.error, refusal.received.delivered)

    async def _bury(self, received: Received[E] | Received[None], reason: str, error: str, attempts: int) -> None:
        try:
            await bury(self._js, self._service, **self._letter(received, reason, error, attempts))
        except Temporary as failure:
            log.warning("%s: %s", self._service, failure)
            await self._send_back([received], failure.delay)
            return
        self._say_dead(received, reason, error)
        faults.reach("delivery.buried")
        await self._settle([received], b"")

    def _letter(self, received: Received[E] | Received[None], reason: str, error: str, attempts: int) -> dict[str, Any]:
        stored = int(received.stored_at.timestamp() * 1e6)
        return {
            "id": f"{self._service}-{self._stream}-{received.stream_seq}-{stored}", "reason": reason, "error": error,
            "attempts": attempts, "subject": received.subject, "body": received.body, "stream": self._stream,
            "stream_seq": received.stream_seq, "headers": received.headers,
        }  # fmt: skip

    def _say_dead(self, received: Received[E] | Received[None], reason: str, error: str) -> None:
        log.warning("%s: %s is dead-lettered (%s): %s", self._service, received.subject, reason, error)
        telemetry.DEAD.labels(self._service, reason).inc()

    # Answering

    async def _send_back(self, batch: Sequence[Received[E] | Received[None]], delay: float) -> None:
        self._retried.inc(len(batch))
        await self._settle(batch, b'-NAK {"delay": %d}' % int(delay * 1e9) if delay else b"-NAK")

    async def _settle(self, batch: Sequence[Received[E] | Received[None]], answer: bytes) -> None:
        """The last word on these deliveries: they are no longer kept alive."""
        await self._answer(batch, answer)
        for received in batch:
            self._working.pop(received.reply, None)

    async def _answer(self, batch: Sequence[Received[E] | Received[None] | _Refusal], answer: bytes) -> None:
        """One answer a message. A lost one costs one more delivery, no more."""
        with contextlib.suppress(NatsError):
            await straight.publish_each(self._nc, [item.reply for item in batch], answer)


def _received(subject: str, reply: str, body: bytes, headers: Headers) -> tuple[Received[None], int]:
    """The message, still undecoded, and how many are left; from the tokens of its reply subject, counted from the end
    of the old form (9 tokens) or from the new one's domain and account (11 or more)."""
    tokens = reply.split(".")
    if len(tokens) > 9:
        tokens = tokens[2:]
    stored_at = datetime.fromtimestamp(int(tokens[7]) / 1e9, UTC)
    return Received(None, body, subject, headers, int(tokens[5]), int(tokens[4]), stored_at, reply), int(tokens[8])
