"""Tells open pages that something moved. A page then asks again for the part that shows it: a nudge carries no news, so
that one lost, doubled or late does no harm."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from midwatch.contracts.subjects import is_agent_name

GAP = 0.5  # seconds between two nudges of a topic
BEAT = 15.0  # seconds between two signs of life
MOST = 20  # topics of one page

log = structlog.get_logger("midwatch.console")


@dataclass(frozen=True, slots=True)
class Topic:
    """What a page may follow: the subjects of the bus that move it, with `{agent}` where they may be narrowed."""

    subjects: tuple[str, ...]

    def of(self, agent: str) -> list[str]:
        return [subject.format(agent=agent or "*") for subject in self.subjects]


@dataclass(slots=True, eq=False)
class Listener:
    """One open page. What has moved since it was last told is a set: it holds each topic once, however much happens."""

    moved: set[str] = field(default_factory=set)
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    def nudge(self, name: str) -> None:
        self.moved.add(name)
        self.woken.set()


class _Followed:
    """A topic that somebody follows, subscribed for as long as somebody does."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.listeners: set[Listener] = set()
        self.subscriptions: list[Subscription] = []
        self._quiet_until = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def heard(self, _: Msg) -> None:
        self.move()

    def move(self) -> None:
        """Nudges at once, then at most once a gap: a thousand events a second are two nudges."""
        loop = asyncio.get_running_loop()
        if self._timer:
            return
        if (wait := self._quiet_until - loop.time()) > 0:
            self._timer = loop.call_later(wait, self._fire)
        else:
            self._fire()

    def _fire(self) -> None:
        self._timer = None
        self._quiet_until = asyncio.get_running_loop().time() + GAP
        for listener in self.listeners:
            listener.nudge(self.name)

    def close(self) -> None:
        if self._timer:
            self._timer.cancel()


class Hub:
    """One a process. `topics` by name; a page follows `name`, or `name:agent`."""

    def __init__(self, nc: Client, topics: Mapping[str, Topic]) -> None:
        self._nc, self._topics = nc, topics
        self._followed: dict[str, _Followed] = {}
        self._changing = asyncio.Lock()
        self._closed = asyncio.Event()
        self.pages = 0  # that are open now

    def known(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that can be followed."""
        return [name for name in dict.fromkeys(names) if self._parse(name)][:MOST]

    def _parse(self, name: str) -> tuple[Topic, str] | None:
        topic, _, agent = name.partition(":")
        if topic not in self._topics or (agent and not is_agent_name(agent)):
            return None
        return self._topics[topic], agent

    async def follow(self, names: list[str]) -> AsyncIterator[bytes]:
        """Server-sent events of an open page, until it goes away or we do."""
        listener = Listener()
        self.pages += 1
        try:
            await self._join(listener, names)
            yield b"retry: 2000\nevent: ready\ndata: \n\n"
            while not self._closed.is_set():
                try:
                    async with asyncio.timeout(BEAT):
                        await listener.woken.wait()
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
                moved, listener.moved = sorted(listener.moved), set()
                listener.woken.clear()
                yield b"".join(b"event: moved\ndata: %s\n\n" % name.encode() for name in moved)
        finally:
            self.pages -= 1
            await asyncio.shield(self._leave(listener, names))

    async def _join(self, listener: Listener, names: list[str]) -> None:
        async with self._changing:
            for name in names:
                followed = self._followed.get(name) or await self._subscribed(name)
                followed.listeners.add(listener)

    async def _subscribed(self, name: str) -> _Followed:
        followed = _Followed(name)
        parsed = self._parse(name)
        for subject in parsed[0].of(parsed[1]) if parsed else ():
            try:
                followed.subscriptions.append(await self._nc.subscribe(subject, cb=followed.heard))
            except NatsError as error:
                log.warning("topic_not_followed", topic=name, why=str(error))
        self._followed[name] = followed
        return followed

    async def _leave(self, listener: Listener, names: list[str]) -> None:
        async with self._changing:
            for name in names:
                followed = self._followed.get(name)
                if followed is None:
                    continue
                followed.listeners.discard(listener)
                if not followed.listeners:
                    followed.close()
                    del self._followed[name]
                    for subscription in followed.subscriptions:
                        with contextlib.suppress(NatsError):
                            await subscription.unsubscribe()

    def all_moved(self) -> None:
        """Nudges every page: after the connection was lost nobody knows what was missed."""
        for followed in self._followed.values():
            followed.move()

    def close(self) -> None:
        """Ends every page's stream."""
        self._closed.set()
        for followed in self._followed.values():
            for listener in followed.listeners:
                listener.woken.set()
