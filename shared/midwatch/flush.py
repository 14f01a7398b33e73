"""From the spool to the server: one event alone, several in one atomic batch, in order, until each is acknowledged.

Every event carries its id as `Nats-Msg-Id`, so that sending one again is safe: after a lost answer, a killed server, a
restart. Whatever goes wrong, events stay in the spool; only what no server will ever take is put aside.
"""

import asyncio
import logging
import random
import uuid
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import Any, TypeVar

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import BadSubjectError, Error, MaxPayloadError, NoRespondersError

from .contracts import subjects
from .spool import Record, Spool
from .spool_folder import REFUSED

T = TypeVar("T")
log = logging.getLogger("midwatch")

BATCH = 1_000  # messages; the server takes no more in one atomic batch
BATCH_BYTES = 4 * 1024 * 1024
WINDOW = 256  # messages on their way at once when they are sent one by one
PROBE = 64  # messages sent one by one to see whether the server has most of them already
YIELD_EVERY = 100  # messages between two turns of the loop, so that a halt is not kept waiting
HEADER_ROOM = 1_024  # bytes that headers may take of a message's size
ADOPT_EVERY = 30.0  # seconds between two looks for spools of dead processes
ADOPTED_TRIES = 3  # failures after which such a spool is left for another process, or for the next look
LOOK_EVERY = 0.25  # seconds between two looks whether the connection is back
SLOWEST = 5.0  # seconds between two tries at most

# Error codes of nats-server
_KNOWN_ID = 10201  # an id in the batch is known, or in it twice: the batch is refused whole
_TOO_LARGE = 10054  # larger than the stream takes
_NEVER = (BadSubjectError, MaxPayloadError)  # what our own client refuses to send at all


class Unsent(Exception):
    """The server did not take it now; it stays in the spool."""


class _Error(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _PubAck(msgspec.Struct):
    """The server's answer to a publish."""

    error: _Error | None = None
    duplicate: bool = False
    batch: str = ""
    count: int = 0


_decode = msgspec.json.Decoder(_PubAck).decode


class Sender:
    """Sends what one spool holds over one connection. `put_aside` is called for each record that is refused."""

    def __init__(
        self, nc: Client, spool: Spool, timeout: float, put_aside: Callable[[Spool, Record, str], None]
    ) -> None:
        self.spool = spool
        self._nc = nc
        self._timeout = timeout
        self._put_aside = put_aside
        self._suspect = False  # the server may have most of what comes next already
        self._no_batch_until = 0.0
        self._no_batch_for = 0.25  # seconds, doubled each time the server takes no batch

    async def send(self) -> None:
        """Sends the next events, at most one batch of them, and acknowledges those that the server has.

        Raises Unsent where the server did not take one of them, OSError where the spool cannot be read.
        """
        records = _of_one_stream(self._without_oversized(self.spool.read(BATCH, BATCH_BYTES)))
        todo = [records] if records else []
        while todo:
            chunk = todo.pop()
            if len(chunk) == 1 or self._suspect or asyncio.get_running_loop().time() < self._no_batch_until:
                window = chunk[: PROBE if self._suspect else WINDOW]
                known = await self._one_by_one(window)
                # Where few of them were known, those stand alone, and what follows goes in batches again.
                self._suspect = known * 2 > len(window)
                rest = chunk[len(window) :]
                todo += [rest] if rest else []
            elif not await self._batch(chunk):
                middle = len(chunk) // 2
                todo += [chunk[middle:], chunk[:middle]] if len(chunk) > PROBE else [chunk]

    def _without_oversized(self, records: list[Record]) -> list[Record]:
        """The records up to the first that is larger than the server takes; a first one that is, is put aside."""
        limit = self._nc.max_payload - HEADER_ROOM
        for position, record in enumerate(records):
            if len(record.body) + len(record.id) + len(record.traceparent or "") > limit:
                if position == 0:
                    self._put_aside(
                        self.spool, record, f"it is larger than the server takes ({self._nc.max_payload} bytes)"
                    )
                    self.spool.acknowledge(1)
                return records[:position]
        return records

    async def _batch(self, records: Sequence[Record]) -> bool:
        """Sends an atomic batch. False where it was refused as a batch, and another way is to be tried."""
        try:
            ack = _read(await self._within_limits(self._publish_batch(records)))
        except _NEVER:
            ack = _PubAck()
        except Unsent:
            # The server may have it all and its answer was lost, or one message in it was met with silence: find out.
            self._suspect = True
            raise
        if ack.error is None and ack.count == len(records):
            self.spool.acknowledge(len(records))
            self._no_batch_for = 0.25
            return True
        if ack.error is not None and ack.error.err_code == _KNOWN_ID:
            self._suspect = True
        else:
            # Too many open batches on the stream, one message refused, a server that knows no batches: the answer is
            # "incomplete" for most of them, and the way out is the same.
            pause = self._no_batch_for * random.uniform(0.5, 1.5)  # noqa: S311
            self._no_batch_until = asyncio.get_running_loop().time() + pause
            self._no_batch_for = min(self._no_batch_for * 2, 10.0)
        return False

    async def _publish_batch(self, records: Sequence[Record]) -> Msg:
        batch = uuid.uuid4().hex
        for sequence, record in enumerate(records[:-1], 1):
            headers = _headers(record)
            headers["Nats-Batch-Id"] = batch
            headers["Nats-Batch-Sequence"] = str(sequence)
            await self._nc.publish(record.subject, record.body, headers=headers)
            if sequence % YIELD_EVERY == 0:
                await asyncio.sleep(0)
        last = records[-1]
        commit = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(len(records)), "Nats-Batch-Commit": "1"}
        return await self._nc.request(last.subject, last.body, timeout=self._timeout, headers=_headers(last) | commit)

    async def _one_by_one(self, records: Sequence[Record]) -> int:
        """Sends each on its own, all of them on their way at once. How many of them the server knew already."""
        answers = await self._within_limits(self._request_all(records))
        done = known = 0
        try:
            for record, answer in zip(records, answers, strict=True):
                known += self._taken(record, answer)
                done += 1
        finally:
            self.spool.acknowledge(done)
        return known

    def _taken(self, record: Record, answer: Msg | BaseException) -> bool:
        """Whether the server knew the record already. Puts aside what it will never take; raises Unsent."""
        if isinstance(answer, _NEVER):
            self._put_aside(self.spool, record, str(answer))
            return False
        if isinstance(answer, BaseException):
            raise self._unsent(answer)
        ack = _read(answer)
        if ack.error is None:
            return ack.duplicate
        if ack.error.err_code != _TOO_LARGE:
            raise Unsent(f"the server does not take {record.subject} now: {ack.error.description}")
        self._put_aside(self.spool, record, f"the stream does not take it: {ack.error.description}")
        return False

    async def _request_all(self, records: Sequence[Record]) -> list[Msg | BaseException]:
        requests = [
            self._nc.request(record.subject, record.body, timeout=self._timeout, headers=_headers(record))
            for record in records
        ]
        return await asyncio.gather(*requests, return_exceptions=True)

    async def _within_limits(self, work: Coroutine[Any, Any, T]) -> T:
        """Awaits an answer no longer than it can still come: not over a lost connection, not past the time limit."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout * 2
        reconnects = self._nc.stats["reconnects"]
        task = loop.create_task(work)
        try:
            while not (await asyncio.wait({task}, timeout=LOOK_EVERY))[0]:
                if not self._nc.is_connected or self._nc.stats["reconnects"] != reconnects:
                    raise Unsent("the connection to the server was lost")
                if loop.time() > deadline:
                    raise self._unsent(TimeoutError())
            return task.result()
        except _NEVER:
            raise
        except (Error, TimeoutError) as error:
            raise self._unsent(error) from error
        finally:
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # it has been seen

    def _unsent(self, error: BaseException) -> Unsent:
        if isinstance(error, NoRespondersError):
            return Unsent("no stream takes the events: run `midwatch topology apply`, which declares it")
        if not isinstance(error, TimeoutError):
            return Unsent(f"the server cannot be reached: {error}")
        # A denied publish is answered by silence; the client remembers what the server said of it.
        said = str(self._nc.last_error or "")
        return Unsent(
            f"the server does not take the events, give this user the right to publish them: {said}"
            if "permissions violation" in said
            else f"the server did not answer within {self._timeout:g} s"
        )


class Flusher:
    """Keeps a spool empty: its own, and those that dead processes left beside it. `error` says in one line why events
    wait, if they do. `on_refused` is called with each record that no server will take, after it was put aside."""

    def __init__(
        self, nc: Client, spool: Spool, *, interval: float = 0.25, timeout: float = 5.0,
        on_refused: Callable[[Record, str], None] | None = None,
    ) -> None:  # fmt: skip
        self.error: str | None = None
        self.refused = 0
        self._nc = nc
        self._spool = spool
        self._interval = interval
        self._timeout = timeout
        self._on_refused = on_refused
        self._woken = asyncio.Event()  # by an append, from any thread
        self._pending = asyncio.Event()
        self._empty = asyncio.Event()

    async def run(self) -> None:
        """Publishes until it is cancelled, whatever happens to the server, the connection or the disk."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._flush_own())
                group.create_task(self._sync())
                group.create_task(self._adopt(group))
        finally:
            self._spool.wake_once(None)

    async def drain(self, timeout: float) -> bool:
        """Waits while `run` works until nothing is pending, at most `timeout` seconds. Whether that is so."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._spool.pending:
                    self._empty.clear()
                    await self._empty.wait()
        return self._spool.pending == 0

    async def _flush_own(self) -> None:
        sender = Sender(self._nc, self._spool, self._timeout, self._put_aside)
        failures = 0
        while True:
            if not self._spool.pending:
                self._empty.set()
                await self._appended()
                continue
            self._pending.set()
            if not self._nc.is_connected:
                self.error = "the server is not connected"
                await asyncio.sleep(LOOK_EVERY)
                continue
            self.error = await _tried(sender)
            failures = failures + 1 if self.error else 0
            if failures:
                await asyncio.sleep(_delay(failures))

    async def _appended(self) -> None:
        """Waits until something is pending."""
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._woken.set)

        self._woken.clear()
        self._spool.wake_once(wake)
        if not self._spool.pending:
            await self._woken.wait()

    async def _sync(self) -> None:
        """Bounds what a loss of power can cost to one interval, and gets the spool back to a disk that had failed."""
        while True:
            if not self._spool.pending and self._spool.error is None:
                self._pending.clear()
                await self._pending.wait()
            await asyncio.sleep(self._interval)
            if self._spool.pending or self._spool.error is not None:
                await asyncio.to_thread(self._spool.sync)

    async def _adopt(self, group: asyncio.TaskGroup) -> None:
        while True:
            for spool in self._spool.adopt():
                group.create_task(self._flush_adopted(spool))
            await asyncio.sleep(ADOPT_EVERY * random.uniform(0.8, 1.2))  # noqa: S311

    async def _flush_adopted(self, spool: Spool) -> None:
        """Sends what a dead process left. Given up after some failures: another process may have the right to."""
        sender = Sender(self._nc, spool, self._timeout, self._put_aside)
        failures = 0
        try:
            while spool.pending and failures < ADOPTED_TRIES:
                if not self._nc.is_connected:
                    await asyncio.sleep(LOOK_EVERY)
                elif error := await _tried(sender):
                    failures += 1
                    log.warning("midwatch: events that %s left wait: %s", spool.instance, error)
                    await asyncio.sleep(_delay(failures))
        finally:
            spool.close()

    def _put_aside(self, spool: Spool, record: Record, reason: str) -> None:
        self.refused += 1
        spool.refuse(record, reason)
        log.error("midwatch: event %s is put aside in %s: %s", record.id, spool.folder / REFUSED, reason)
        try:
            if self._on_refused is not None:
                self._on_refused(record, reason)
        except Exception:
            log.exception("midwatch: what was to be called for a refused event failed")


async def _tried(sender: Sender) -> str | None:
    """Sends once; why it did not work, or None."""
    try:
        await sender.send()
    except (Unsent, OSError) as error:
        return str(error)
    except Exception as error:  # a spool must never stop for good
        log.exception("midwatch: events could not be sent, trying again")
        return f"events could not be sent: {error!r}"
    return None


def _of_one_stream(records: list[Record]) -> list[Record]:
    """The records up to the first of another noun than theirs: no batch goes to two streams."""
    noun = records[0].subject.split(".", 2)[1] if records else ""
    return list(takewhile(lambda record: record.subject.split(".", 2)[1] == noun, records))


def _headers(record: Record) -> dict[str, str]:
    headers = {subjects.MSG_ID: record.id, subjects.CONTENT_TYPE: subjects.CLOUDEVENTS_JSON}
    if record.traceparent is not None:
        headers[subjects.TRACEPARENT] = record.traceparent
    return headers


def _read(answer: Msg) -> _PubAck:
    try:
        return _decode(answer.data)
    except msgspec.MsgspecError as error:
        raise Unsent(f"what answers on {answer.subject} is no stream: {error}") from error


def _delay(failures: int) -> float:
    """Seconds until the next try: 0.1, 0.2, 0.4 … up to SLOWEST, each spread so that processes do not try together."""
    return min(0.1 * 2.0 ** min(failures - 1, 10), SLOWEST) * random.uniform(0.75, 1.25)  # noqa: S311
