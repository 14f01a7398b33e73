"""Requests over NATS that a service answers in batches, each answer once what it says is saved."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Generic, NamedTuple, TypeVar

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from midwatch.errors import Temporary

from .broker import round_trip

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")
HEARD_WITHIN = 5.0  # seconds until the server has the subscription


class Request(NamedTuple, Generic[Ask, Answer]):
    """One request as it came: `verb` and `agent` are those of its subject. `ask` is the answer already where it cannot
    be judged."""

    verb: str
    agent: str
    ask: Ask | Answer
    reply: str


class Answering(Generic[Ask, Answer]):
    """Hears requests, and answers them in the order in which they came."""

    def __init__(
        self, subject: str, queue: str, *, batch: int, waiting: int,
        read: Callable[[str, bytes, str], Request[Ask, Answer]],
        judge: Callable[[list[Request[Ask, Answer]]], Awaitable[list[Answer]]],
        refuse: Callable[[Request[Ask, Answer], str], Answer],
        encode: Callable[[Answer], bytes],
    ) -> None:  # fmt: skip
        """Of several processes with the same `queue` one hears each. `judge` takes up to `batch` requests, saves and
        answers them all, or raises and has saved none; more than `waiting` that wait for it are refused.
        `encode` is called once for each answer, also where nobody waits for it."""
        self._subject, self._queue, self._batch, self._most = subject, queue, batch, waiting
        self._read, self._judge, self._refuse, self._encode = read, judge, refuse, encode
        self._waiting: list[Request[Ask, Answer]] = []
        self._arrived = asyncio.Event()
        self._log = structlog.get_logger("midwatch.answering").bind(subject=subject)

    async def subscribe(self, nc: Client) -> None:
        """From now on requests are heard."""

        async def hear(message: Msg) -> None:
            request = self._read(message.subject, message.data, message.reply)
            if len(self._waiting) >= self._most:
                await self._say(nc, request, self._refuse(request, "too many requests wait: ask again"))
                return
            self._waiting.append(request)
            self._arrived.set()

        await nc.subscribe(self._subject, queue=self._queue, cb=hear)
        await round_trip(nc, HEARD_WITHIN)

    async def serve(self, nc: Client) -> None:
        """Answers what was heard until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                batch, self._waiting = self._waiting[: self._batch], self._waiting[self._batch :]
                for request, answer in zip(batch, await self.answers(batch), strict=True):
                    await self._say(nc, request, answer)

    async def answers(self, batch: list[Request[Ask, Answer]]) -> list[Answer]:
        """The answers to some requests, saved, or that they could not be."""
        try:
            return await self._judge(batch)
        except Temporary as error:
            self._log.warning("answers_not_saved", error=str(error), requests=len(batch))
            return [self._refuse(request, str(error)) for request in batch]
        except Exception:
            if len(batch) > 1:  # one of them is not to stop the others
                return [answer for request in batch for answer in await self.answers([request])]
            self._log.exception("request_not_answered", agent=batch[0].agent)
            return [self._refuse(batch[0], f"the request could not be judged: the log of {self._queue} says why")]

    async def _say(self, nc: Client, request: Request[Ask, Answer], answer: Answer) -> None:
        body = self._encode(answer)
        if request.reply:
            with contextlib.suppress(NatsError):  # whoever asked asks again
                await nc.publish(request.reply, body)
