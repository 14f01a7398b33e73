"""Reads a stream by direct gets: no consumer is made, which not every role may, and a range takes few round trips."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from midwatch.errors import Temporary

_BATCH = 1000  # messages of one request
_MAX_BYTES = 4 * 1024 * 1024  # of one request; the server stops after the message that exceeds it
_WINDOW = 64  # reads under way at once
_SINGLE = 256  # messages that are asked for one by one, before the answers are awaited
_PATIENCE = 1.0  # seconds in which those answers come
_SILENCE = 3.0  # seconds without a message after which the server is taken not to answer


class Stored(NamedTuple):
    """A message of the stream. `stored_at` is the server's time, as RFC 3339."""

    seq: int
    subject: str
    body: bytes
    stored_at: str


async def read_range(
    nc: Client, stream: str, subject: str, start: int | datetime, *, to: int | None = None
) -> AsyncGenerator[list[Stored], None]:
    """The messages that match `subject`, in order, from the sequence or time `start` to the sequence `to` or the end of
    the stream as the server that answers knows it; in batches. Raises Temporary where no server answers."""
    answers = _Answers(stream)
    subscription = await nc.subscribe(inbox := nc.new_inbox(), cb=answers.take)
    try:
        while True:
            where = {"seq": max(1, start)} if isinstance(start, int) else {"start_time": start.isoformat()}
            request = {**where, "next_by_subj": subject, "batch": _BATCH, "max_bytes": _MAX_BYTES}
            answers.begin()
            await nc.publish(f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(request), reply=inbox)
            found, message = await answers.whole()
            inside = [one for one in found if to is None or one.seq <= to]
            if inside:
                yield inside
            left = int((message.headers or {}).get("Nats-Num-Pending", 0))
            if not found or not left or len(inside) < len(found):
                return
            start = found[-1].seq + 1
    finally:
        with contextlib.suppress(NatsError):  # the connection may be gone, and takes the subscription with it
            await subscription.unsubscribe()


async def read_each(nc: Client, stream: str, seqs: Sequence[int]) -> AsyncIterator[list[Stored]]:
    """The messages with these sequences, in their order, as far as the stream has them; in batches. Ends early where an
    answer does not come."""
    inbox = nc.new_inbox()
    found: dict[str, Stored | None] = {}
    wanted: dict[str, int] = {}
    answered = asyncio.Event()

    async def take(message: Msg) -> None:
        there = not (message.headers or {}).get("Status")
        found[message.subject] = _stored(message) if there else None
        if len(found) >= len(wanted):
            answered.set()

    subscription = await nc.subscribe(f"{inbox}.*", cb=take)
    try:
        for start in range(0, len(seqs), _SINGLE):
            found.clear()
            answered.clear()
            wanted = {f"{inbox}.{seq}": seq for seq in seqs[start : start + _SINGLE]}
            for reply, seq in wanted.items():
                await nc.publish(f"$JS.API.DIRECT.GET.{stream}", b'{"seq":%d}' % seq, reply=reply)
            try:
                await asyncio.wait_for(answered.wait(), _PATIENCE)
            except TimeoutError:
                return
            yield [stored for reply in wanted if (stored := found.get(reply)) is not None]
    finally:
        with contextlib.suppress(NatsError):
            await subscription.unsubscribe()


class _Answers:
    """The answers to one request for a batch. Taken by a callback: to await each would cost more than all the rest."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self.begin()

    def begin(self) -> None:
        self._found: list[Stored] = []
        self._heard = 0
        self._end: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()

    async def take(self, message: Msg) -> None:
        self._heard += 1
        try:
            stored = _stored(message)
        except Temporary as error:
            if not self._end.done():
                self._end.set_exception(error)
            return
        if stored is not None:
            self._found.append(stored)
        elif not self._end.done():
            self._end.set_result(message)

    async def whole(self) -> tuple[list[Stored], Msg]:
        """All of the batch, and the message that ended it. Raises Temporary where no more comes."""
        heard = -1
        while not self._end.done():
            if heard == self._heard:
                raise Temporary(f"{self._stream} cannot be read: no answer")
            heard = self._heard
            await asyncio.wait([self._end], timeout=_SILENCE)
        return self._found, self._end.result()


def _stored(message: Msg) -> Stored | None:
    """The message of the stream; None at the end of a batch."""
    headers = message.headers or {}
    status = headers.get("Status")
    if status in ("204", "404"):
        return None
    if status:
        raise Temporary(f"the server answers {status} {headers.get('Description', '')}")
    return Stored(int(headers["Nats-Sequence"]), headers["Nats-Subject"], message.data, headers["Nats-Time-Stamp"])


async def last_of_each(js: JetStreamContext, stream: str, subject: str) -> list[RawStreamMsg]:
    """The last message of every subject of `stream` that matches `subject` (`>` for all). Needs no consumer, which not
    every role may create."""
    info = await js.stream_info(stream, subjects_filter=subject)
    window = asyncio.Semaphore(_WINDOW)

    async def last(one: str) -> RawStreamMsg | None:
        async with window:
            try:
                return await js.get_last_msg(stream, one, direct=True)
            except NotFoundError:
                return None  # it aged out meanwhile

    found = await asyncio.gather(*(last(one) for one in info.state.subjects or ()))
    return [message for message in found if message is not None]
