"""Who watches the watchdog: a page when events wait too long for cost-watchdog, and its end when they do not."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError
from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch.errors import Temporary
from midwatch.runtime import telemetry
from midwatch.runtime.database import Database

from . import store
from .file import PagerBook
from .handlers import Pager
from .policy import WATCHDOG_BEHIND
from .words import span

LOOK = 5.0  # seconds between two looks
CAUGHT_UP = 5.0  # seconds; an event that has waited no longer is as fresh as a look can tell
KEY = f"{WATCHDOG_BEHIND}/{subjects.COST_WATCHDOG}"
_WITHIN = 3.0  # seconds for one answer


class _Floor(msgspec.Struct):
    stream_seq: int = 0


class _Info(msgspec.Struct):
    ts: datetime | None = None  # the server's clock
    num_pending: int = 0
    num_ack_pending: int = 0
    ack_floor: _Floor = msgspec.field(default_factory=_Floor)
    error: dict[str, object] | None = None


class Lag(NamedTuple):
    """How many events wait for a consumer, and for how long the oldest of them has."""

    waiting: int
    seconds: float


async def lag(nc: Client, stream: str, consumer: str) -> Lag | None:
    """How far a consumer is behind, by the server's own clock: a stream in which nothing happens is no lag. None where
    the server does not know the consumer. Raises NatsError or TimeoutError."""
    answer = await nc.request(f"$JS.API.CONSUMER.INFO.{stream}.{consumer}", timeout=_WITHIN)
    info = msgspec.json.decode(answer.data, type=_Info)
    if info.error is not None or info.ts is None:
        return None
    waiting = info.num_pending + info.num_ack_pending
    if not waiting:
        return Lag(0, 0.0)
    oldest = msgspec.json.encode({"seq": info.ack_floor.stream_seq + 1, "next_by_subj": ">"})
    message = await nc.request(f"$JS.API.DIRECT.GET.{stream}", oldest, timeout=_WITHIN)
    stored = (message.headers or {}).get("Nats-Time-Stamp")
    if stored is None:  # it is gone by its age
        return Lag(waiting, 0.0)
    return Lag(waiting, max(0.0, (info.ts - msgspec.convert(stored, datetime)).total_seconds()))


class Watch:
    """Looks every few seconds. While NATS does not answer nothing is judged, and the time until it was first seen again
    is not the watchdog's."""

    def __init__(
        self, nc: Client, database: Database, pager: Pager, book: PagerBook, now: Callable[[], datetime]
    ) -> None:
        self._nc, self._database, self._pager, self._book, self._now = nc, database, pager, book, now
        self._since: datetime | None = None  # from when on NATS has answered without a break
        self._reconnects = 0

    async def look(self) -> None:
        """Raises or resolves `watchdog_behind`."""
        now, reconnects = self._now(), self._nc.stats["reconnects"]
        try:
            found = await lag(self._nc, subjects.RUNS, subjects.COST_WATCHDOG) if self._nc.is_connected else None
        except (NatsError, TimeoutError):
            found = None
        if found is None or self._since is None or reconnects != self._reconnects:
            self._since = None if found is None else now
        self._reconnects = reconnects
        if found is None or self._since is None:
            return
        telemetry.WATCHDOG_LAG.labels(subjects.PAGER).set(found.seconds)
        limit = self._book.policy.watchdog_behind.total_seconds()
        if min(found.seconds, (now - self._since).total_seconds()) > limit:
            await self._behind(found, limit)
        elif found.seconds <= min(CAUGHT_UP, limit):
            await self._caught_up()

    async def _behind(self, found: Lag, limit: float) -> None:
        title = (
            f"cost-watchdog is {span(timedelta(seconds=found.seconds))} behind: {found.waiting} events wait for it, "
            "and budgets and loops of their runs are not watched"
        )

        def work(conn: Connection) -> bool:
            if store.open_under(conn, KEY) is not None:
                return False
            self._pager.raise_(conn, WATCHDOG_BEHIND, KEY, title, round(found.seconds, 1), limit)
            return True

        if await self._database.write(work):
            await self._told()

    async def _caught_up(self) -> None:
        if await self._database.read(lambda conn: store.open_under(conn, KEY)) is None:
            return
        if await self._database.write(lambda conn: self._pager.resolve(conn, KEY, "cost-watchdog has caught up")):
            await self._told()

    async def _told(self) -> None:
        self._pager.wake()
        try:
            await self._pager.outbox.drain()
        except Temporary:
            return  # the next tick says it
