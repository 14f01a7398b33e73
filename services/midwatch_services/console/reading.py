"""Reads what other services keep, never writes it; whatever does not answer costs its own block and no more."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar, cast

import sqlalchemy as sa
import structlog
from nats.errors import Error as NatsError
from sqlalchemy.engine import Connection

from midwatch.errors import MidwatchError
from midwatch.runtime.database import Database, NoDatabase
from midwatch.runtime.settings import Settings

T = TypeVar("T")
WITHIN = 3.0  # seconds for one block; a page does not wait longer for any of them
# Threads of their own: what may take long does not stand in the way of alerts, cases and Stop.
QUICK, SEARCHES, SUMS = "quick", "searches", "sums"
_KEPT = 1000  # answers that are kept for a while
BUS = "bus"  # in place of a service: what is read from NATS itself

log = structlog.get_logger("midwatch.console")


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """What was read, or why not: `problem` is `none_yet`, `down` or `slow`, told by the texts `reading.<problem>`."""

    service: str
    value: T | None = None
    problem: str = ""

    @property
    def ok(self) -> bool:
        return not self.problem

    def __or__(self, other: T) -> T:
        """The value, or `other` where there is none."""
        return other if self.problem or self.value is None else self.value


@dataclass(slots=True)
class _Kept:
    """An answer that is kept: `fresh` until then, and given until `stale` while a newer one is fetched."""

    task: asyncio.Task[Found[Any]]
    fresh: float
    stale: float
    newer: asyncio.Task[Found[Any]] | None = None


class Reading:
    """The databases of the other services, each opened when it is first asked for."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._open: dict[tuple[str, str], Database] = {}
        self._kept: dict[Any, _Kept] = {}

    async def read(
        self, service: str, work: Callable[[Connection], T], *, keep: tuple[Any, ...] = (), seconds: float = 0.0,
        stale: float = 0.0, lane: str = QUICK, within: float = WITHIN,
    ) -> Found[T]:  # fmt: skip
        """What `work`, queries of that service's store, finds. With `keep`, a name of the question, the answer is kept
        for `seconds` and asked for once, however many ask; for `stale` more an older answer is given at once while a
        newer one is fetched. `lane`: whose threads do it. `within`: how long they may take for an answer that is kept,
        though no page waits so long."""
        read = partial(self._read, service, lane, work, within)
        return await self._keep((service, *keep), read, bool(keep), seconds, stale)

    async def ask(
        self, work: Callable[[], Awaitable[T]], *, keep: tuple[Any, ...] = (), seconds: float = 0.0, stale: float = 0.0
    ) -> Found[T]:
        """The same for what `work` reads from NATS."""
        return await self._keep((BUS, *keep), partial(self._ask, work), bool(keep), seconds, stale)

    async def _keep(
        self, name: tuple[Any, ...], work: Callable[[], Coroutine[Any, Any, Found[T]]], keep: bool, seconds: float,
        stale: float,
    ) -> Found[T]:  # fmt: skip
        try:
            async with asyncio.timeout(WITHIN):
                if not keep or not seconds:
                    return await work()
                kept = self._kept_for(name, work, seconds, stale)
                return cast("Found[T]", await asyncio.shield(kept.task))
        except TimeoutError:
            return Found(name[0], problem="slow")

    def _kept_for(
        self, name: tuple[Any, ...], work: Callable[[], Coroutine[Any, Any, Found[T]]], seconds: float, stale: float
    ) -> _Kept:
        now, kept = time.monotonic(), self._kept.get(name)
        if kept is None or (kept.stale < now and kept.task.done()):
            self._forget(now)
            kept = self._kept[name] = _Kept(asyncio.create_task(work()), now + seconds, now + seconds + stale)
            kept.task.add_done_callback(partial(self._keep_what_is_found, name))
        elif kept.fresh < now and kept.newer is None and kept.task.done():
            kept.newer = asyncio.create_task(self._renew(kept, work, seconds, stale))
        return kept

    def _keep_what_is_found(self, name: tuple[Any, ...], task: asyncio.Task[Found[Any]]) -> None:
        kept = self._kept.get(name)
        if kept and kept.task is task and (task.cancelled() or not task.result().ok):
            del self._kept[name]

    async def _renew(
        self, kept: _Kept, work: Callable[[], Coroutine[Any, Any, Found[T]]], seconds: float, stale: float
    ) -> Found[T]:
        task = asyncio.create_task(work())
        try:
            found = await task
            if found.ok:
                kept.task, kept.stale = task, time.monotonic() + seconds + stale
            return found
        finally:  # what did not answer is asked again when it is due again
            kept.fresh, kept.newer = time.monotonic() + seconds, None

    async def _ask(self, work: Callable[[], Awaitable[T]]) -> Found[T]:
        try:
            async with asyncio.timeout(WITHIN):
                return Found(BUS, await work())
        except TimeoutError:
            return Found(BUS, problem="slow")
        except (MidwatchError, NatsError, OSError) as error:
            log.warning("block_not_read", of=BUS, why=str(error))
        except Exception:
            log.exception("block_not_read", of=BUS)
        return Found(BUS, problem="down")

    async def _read(self, service: str, lane: str, work: Callable[[Connection], T], within: float) -> Found[T]:
        try:
            database = self._open.get((service, lane))
            if database is None:
                database = await asyncio.to_thread(self._opened, service, lane)
            return Found(service, await database.read(partial(_only_reading, work), within=within))
        except NoDatabase:
            return Found(service, problem="none_yet")
        except TimeoutError:
            return Found(service, problem="slow")
        except MidwatchError as error:
            log.warning("block_not_read", of=service, why=str(error))
        except Exception as error:
            if isinstance(error, sa.exc.DBAPIError) and _has_no_tables(error):
                return Found(service, problem="none_yet")
            log.exception("block_not_read", of=service)
        return Found(service, problem="down")

    def _opened(self, service: str, lane: str) -> Database:
        found = Database(self._settings.database_for(service), name=f"{service}-{lane}", must_exist=True)
        return self._open.setdefault((service, lane), found)

    def _forget(self, now: float) -> None:
        """Drops what is over, and the oldest where that is not enough."""
        self._kept = {name: one for name, one in self._kept.items() if one.stale >= now or not one.task.done()}
        while len(self._kept) >= _KEPT:
            del self._kept[next(iter(self._kept))]

    async def close(self) -> None:
        """Ends what is read still, and closes every database."""
        tasks = [task for one in self._kept.values() for task in (one.task, one.newer) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(asyncio.to_thread(database.close) for database in self._open.values()))


def _only_reading(work: Callable[[Connection], T], conn: Connection) -> T:
    if conn.dialect.name == "postgresql":
        conn.exec_driver_sql("SET TRANSACTION READ ONLY")  # an SQLite file was opened so
    return work(conn)


def _has_no_tables(error: sa.exc.DBAPIError) -> bool:
    return "no such table" in str(error.orig) or type(error.orig).__name__ == "UndefinedTable"
