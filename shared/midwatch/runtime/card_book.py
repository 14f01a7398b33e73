"""The scope cards as the services see them: in memory, and following the bucket without a restart."""

import asyncio
import contextlib
from typing import Any

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from midwatch.contracts import subjects
from midwatch.contracts.control import Card
from midwatch.errors import Temporary

from .switchboard import is_deleted

REREAD = 30.0  # seconds between two readings of the whole bucket
_TICK = 1.0  # seconds between two looks at whether the connection was lost meanwhile
_STREAM = subjects.key_stream(subjects.AGENTS)
UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)

log = structlog.get_logger("midwatch.card_book")


class CardBook:
    """Every agent's card. A nudge says which one changed; the whole bucket is read again each 30 s and whenever the
    connection came back. Cards are read from the stream's leader, so an old copy is never taken for news."""

    def __init__(self, js: JetStreamContext, nc: Client) -> None:
        self._js = js
        self._nc = nc
        self._cards: dict[str, Card] = {}
        self._changed: set[str] = set()
        self._wake = asyncio.Event()
        self._seen: tuple[Any, ...] | None = None
        self._failing = False
        self._reconnects = 0
        self._subscription: Any = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Reads every card and begins to follow them. Raises Temporary while the bucket cannot be read."""
        self._reconnects = self._nc.stats["reconnects"]
        self._subscription = await self._nc.subscribe(subjects.control_card(">"), cb=self._nudged)
        try:
            await self._read_all()
        except Exception as error:
            await self._unsubscribe()
            raise Temporary(
                f"the bucket {subjects.AGENTS} cannot be read ({error!r}): is `midwatch topology apply` done?"
            ) from error
        self._task = asyncio.create_task(self._follow(), name="card-book")

    def get(self, agent: str) -> Card:
        """The agent's card, or one of safe defaults where none is applied."""
        return self._cards.get(agent) or Card(agent=agent, owner="", purpose="", can=[])

    def all(self) -> list[Card]:
        """The cards that are applied."""
        return list(self._cards.values())

    async def close(self) -> None:
        """Stops following; the cards read last stay."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._unsubscribe()

    async def _unsubscribe(self) -> None:
        with contextlib.suppress(NatsError):  # the connection may be closing, and takes the subscription with it
            if self._subscription:
                await self._subscription.unsubscribe()

    async def _nudged(self, message: Msg) -> None:
        self._changed.add(message.subject.rsplit(".", 1)[1])
        self._wake.set()

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + REREAD
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK):
                    await self._wake.wait()
            self._wake.clear()
            reconnects = self._nc.stats["reconnects"]
            whole = loop.time() >= due or reconnects != self._reconnects
            try:
                if whole:
                    await self._read_all()
                    self._reconnects, due = reconnects, loop.time() + REREAD
                while self._changed:
                    await self._read(next(iter(self._changed)))
                self._failing = False
            except Exception as error:
                due = loop.time()
                if not self._failing:
                    log.warning("cards_not_read", error=repr(error), kept=len(self._cards))
                self._failing = True

    async def _read_all(self) -> None:
        info = await self._js.stream_info(_STREAM, subjects_filter=subjects.key_subject(subjects.AGENTS, ">"))
        seen = (info.created, info.state.last_seq, info.state.messages)
        if seen == self._seen:
            return
        present = {subject.rsplit(".", 1)[1] for subject in info.state.subjects or ()}
        for agent in present:
            await self._read(agent)
        for agent in self._cards.keys() - present:
            del self._cards[agent]
        self._seen = seen

    async def _read(self, agent: str) -> None:
        """Takes the agent's card as the bucket holds it now; one that cannot be understood leaves the last in force."""
        self._changed.discard(agent)  # before it is read: what is written meanwhile is read again
        try:
            entry = await self._js.get_last_msg(_STREAM, subjects.key_subject(subjects.AGENTS, agent))
        except NotFoundError:
            entry = None
        except BaseException:
            self._changed.add(agent)
            raise
        if entry is None or is_deleted(entry.headers):
            self._cards.pop(agent, None)
            return
        try:
            self._cards[agent] = _card(agent, entry.data)
        except UNREADABLE as error:
            if agent not in self._cards and (before := await self._before(agent, entry.seq or 0)) is not None:
                self._cards[agent] = before
            log.error("card_unreadable", agent=agent, revision=entry.seq, error=str(error), kept=agent in self._cards)

    async def _before(self, agent: str, revision: int) -> Card | None:
        """The card that was in force before a revision that cannot be understood, as after a restart."""
        found, seq = None, 1
        while True:
            try:
                subject = subjects.key_subject(subjects.AGENTS, agent)
                entry = await self._js.get_msg(_STREAM, seq, subject=subject, next=True)
            except NotFoundError:
                return found
            seq = (entry.seq or 0) + 1
            if seq > revision:
                return found
            if is_deleted(entry.headers):
                found = None
                continue
            with contextlib.suppress(*UNREADABLE):
                found = _card(agent, entry.data)


def _card(agent: str, data: bytes | None) -> Card:
    card = msgspec.json.decode(data or b"", type=Card)
    if card.agent != agent:
        raise ValueError(f"it is the card of {card.agent!r}")
    return card
