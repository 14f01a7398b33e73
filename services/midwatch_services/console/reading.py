"""Reads what other services keep, never writes it; whatever does not answer costs its own block and no more."""

import asyncio
import time
from collections.abc import Awaitable, Callable
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
        self._open: dict[str, Database] = {}
        self._kept: dict[Any, _Kept] = {}

    async def read(
        self, service: str, work: Callable[[Connection], T], *, keep: tuple[Any, ...] = (), seconds: float = 0.0,
        stale: float = 0.0,
    ) -> Found[T]:  # fmt: skip
        """What `work`, queries of that service's store, finds. With `keep`, a name of the question, the answer is kept
        for `seconds` and asked for once, however many ask; for `stale` more an older answer is given at once while a
        newer one is fetched."""
        return await self._keep((service, *keep), partial(self._read, service, work), bool(keep), seconds, stale)

    async def ask(
        self, work: Callable[[], Awaitable[T]], *, keep: tuple[Any, ...] = (), seconds: float = 0.0, stale: float = 0.0
    ) -> Found[T]:
        """The same for what `work` reads from NATS."""
        return await self._keep((BUS, *keep), partial(self._ask, work), bool(keep), seconds, stale)

    async def _keep(
        self, name: tuple[Any, ...], work: Callable[[], Awaitable[Found[T]]], keep: bool, seconds: float, stale: float
    ) -> Found[T]:
        if not keep or not seconds:
            return await work()
        now, kept = time.monotonic(), self._kept.get(name)
        if kept is None or kept.stale < now:
            self._forget()
            kept = self._kept[name] = _Kept(asyncio.create_task(_of(work)), now + seconds, now + seconds + stale)
        elif kept.fresh < now and kept.newer is None:
            kept.newer = asyncio.create_task(self._renew(kept, work, seconds, stale))
        found = await asyncio.shield(kept.task)
        if not found.ok and self._kept.get(name) is kept:
            del self._kept[name]
        return cast("Found[T]", found)

    async def _renew(
        self, kept: _Kept, work: Callable[[], Awaitable[Found[T]]], seconds: float, stale: float
    ) -> Found[T]:
        task = asyncio.create_task(_of(work))
        found = await task
        now = time.monotonic()
        if found.ok:
            kept.task, kept.stale = task, now + seconds + stale
        kept.fresh, kept.newer = now + seconds, None  # what did not answer is asked again when it is due again
        return found

    async def _ask(self, work: Callable[[], Awaitable[T]]) -> Found[T]:
        try:
            async with asyncio.timeout(WITHIN):
                return Found(BUS, await work())
        except TimeoutError:
            return Found(BUS, problem="slow")
        except (MidwatchError, NatsError, OSError) as error:
            log.warning("block_not_read", of=BUS, why=str(error))
            return Found(BUS, problem="down")

    async def _read(self, service: str, work: Callable[[Connection], T]) -> Found[T]:
        try:
            database = self._open.get(service)
            if database is None:
                database = await asyncio.to_thread(self._opened, service)
            async with asyncio.timeout(WITHIN):
                return Found(service, await database.read(partial(_only_reading, work)))
        except NoDatabase:
            return Found(service, problem="none_yet")
        except TimeoutError:
            return Found(service, problem="slow")
        except sa.exc.DBAPIError as error:
            if _has_no_tables(error):
                return Found(service, problem="none_yet")
            log.exception("block_not_read", of=service)
            return Found(service, problem="down")
        except MidwatchError as error:
            log.warning("block_not_read", of=service, why=str(error))
            return Found(service, problem="down")

    def _opened(self, service: str) -> Database:
        found = Database(self._settings.database_for(service), name=service, must_exist=True)
        return self._open.setdefault(service, found)

    def _forget(self) -> None:
        if len(self._kept) >= _KEPT:
            now = time.monotonic()
            self._kept = {name: one for name, one in self._kept.items() if one.stale >= now}

    async def close(self) -> None:
        """Closes every database, once nobody reads any more."""
        renewing = [one.newer for one in self._kept.values() if one.newer]
        await asyncio.gather(*renewing, return_exceptions=True)
        for database in self._open.values():
            await asyncio.to_thread(database.close)


async def _of(work: Callable[[], Awaitable[T]]) -> T:
    return await work()


def _only_reading(work: Callable[[Connection], T], conn: Connection) -> T:
    conn.exec_driver_sql("PRAGMA query_only=ON" if conn.dialect.name == "sqlite" else "SET TRANSACTION READ ONLY")
    return work(conn)


def _has_no_tables(error: sa.exc.DBAPIError) -> bool:
    return "no such table" in str(error.orig) or type(error.orig).__name__ == "UndefinedTable"
