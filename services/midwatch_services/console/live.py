"""Tells open pages that something moved. A page then asks again for the part that shows it: a nudge carries no news, so
that one lost, doubled or late does no harm."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from midwatch.contracts.subjects import is_agent_name

from .access.roles import Role

GAP = 0.5  # seconds between two nudges of a topic
AGAIN = 5  # seconds after which a part asks by itself for what no event tells: that somebody has fallen silent
BEAT = 15.0  # seconds between two signs of life
MOST = 8  # topics of one page: who names agents that do not exist subscribes no more than this
MOST_OF_ONE = 12  # open pages of a session
MOST_OF_ALL = 500  # open pages
_HEARS = {True: b"event: ready\ndata: \n\n", False: b"event: lost\ndata: \n\n"}  # whether NATS is there
_OVER = b"event: over\ndata: \n\n"  # the session is over: the page asks, and is led to signing in

log = structlog.get_logger("midwatch.console")


@dataclass(frozen=True, slots=True)
class Topic:
    """What a page may follow: the subjects of the bus that move it, with `{agent}` where they may be narrowed, and who
    may know that it moved. `news`: makes what tells whether a message moves it; without, each does."""

    subjects: tuple[str, ...]
    role: Role = Role.VIEWER
    news: Callable[[], Callable[[Msg], bool]] | None = None

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

    def __init__(self, name: str, is_news: Callable[[Msg], bool] | None) -> None:
        self.name = name
        self._is_news = is_news
        self.listeners: set[Listener] = set()
        self.subscriptions: list[Subscription] = []
        self._quiet_until = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def heard(self, message: Msg) -> None:
        if self._is_news is None or self._is_news(message):
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
        self._listeners: set[Listener] = set()
        self._open: Counter[str] = Counter()
        self._changing = asyncio.Lock()
        self._closed = asyncio.Event()
        self._hears, self._reconnects = nc.is_connected, nc.stats["reconnects"]

    @property
    def pages(self) -> int:
        """Those that are open now."""
        return len(self._listeners)

    def known(self, names: Iterable[str], role: Role) -> list[str]:
        """Those of `names` that somebody with `role` can follow."""
        parsed = {name: self._parse(name) for name in names}
        return [name for name, one in parsed.items() if one and role.may(one[0].role)][:MOST]

    def _parse(self, name: str) -> tuple[Topic, str] | None:
        topic, _, agent = name.partition(":")
        if topic not in self._topics or (agent and not is_agent_name(agent)):
            return None
        return self._topics[topic], agent

    def refusal(self, session: str) -> int:
        """The status that tells a session that no more pages of it can be live; 0 where there is room."""
        return 429 if self._open[session] >= MOST_OF_ONE else 503 if self._open.total() >= MOST_OF_ALL else 0

    def enter(self, session: str) -> None:
        """Takes room for a page, until `leave`."""
        self._open[session] += 1

    def leave(self, session: str) -> None:
        self._open[session] -= 1
        if not self._open[session]:
            del self._open[session]

    async def follow(self, names: list[str], stands: Callable[[], bool]) -> AsyncIterator[bytes]:
        """Server-sent events of an open page, until it goes away, we do, or its session no longer `stands`."""
        listener = Listener()
        self._listeners.add(listener)
        try:
            await self._join(listener, names)
            hears = self._hears
            yield b"retry: 2000\n" + _HEARS[hears]
            while not self._closed.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(BEAT):
                        await listener.woken.wait()
                listener.woken.clear()
                if not stands():
                    yield _OVER
                    return
                said = [] if hears == self._hears else [_HEARS[self._hears]]
                hears = self._hears
                moved, listener.moved = sorted(listener.moved), set()
                said += [b"event: moved\ndata: %s\n\n" % name.encode() for name in moved]
                yield b"".join(said) or b"event: beat\ndata: \n\n"
        finally:
            self._listeners.discard(listener)
            await asyncio.shield(self._leave(listener, names))

    async def _join(self, listener: Listener, names: list[str]) -> None:
        async with self._changing:
            for name in names:
                followed = self._followed.get(name) or await self._subscribed(name)
                followed.listeners.add(listener)

    async def _subscribed(self, name: str) -> _Followed:
        parsed = self._parse(name)
        news = parsed[0].news if parsed else None
        followed = _Followed(name, news() if news else None)
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

    def look(self) -> None:
        """Tells every page when NATS went or came. One that was told so asks for all of its parts again; where it went
        and came unseen, every page is nudged, for nobody knows what was missed."""
        hears, reconnects = self._nc.is_connected, self._nc.stats["reconnects"]
        if hears != self._hears:
            self._hears = hears
            self._wake()
        elif reconnects != self._reconnects:
            for followed in self._followed.values():
                followed.move()
        self._reconnects = reconnects

    def recheck(self) -> None:
        """Has every page look at once whether its session still stands."""
        self._wake()

    def close(self) -> None:
        """Ends every page's stream."""
        self._closed.set()
        self._wake()

    def _wake(self) -> None:
        for listener in self._listeners:
            listener.woken.set()
