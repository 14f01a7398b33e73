"""Reads what other services keep, never writes it; whatever does not answer costs its own block and no more."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar, cast

import sqlalchemy as sa
import structlog
from sqlalchemy.engine import Connection

from midwatch.errors import MidwatchError
from midwatch.runtime.database import Database, NoDatabase
from midwatch.runtime.settings import Settings

T = TypeVar("T")
WITHIN = 3.0  # seconds for one block; a page does not wait longer for any of them
_KEPT = 1000  # answers that are kept for a while

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


class Reading:
    """The databases of the other services, each opened when it is first asked for."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._open: dict[str, Database] = {}
        self._kept: dict[Any, tuple[float, asyncio.Task[Found[Any]]]] = {}

    async def read(
        self, service: str, work: Callable[[Connection], T], *, keep: tuple[Any, ...] = (), seconds: float = 0.0
    ) -> Found[T]:
        """What `work`, queries of that service's store, finds. With `keep`, a name of the question, the answer is kept
        for `seconds` and asked for once, however many ask."""
        if not keep or not seconds:
            return await self._read(service, work)
        name = (service, *keep)
        until, task = self._kept.get(name, (0.0, None))
        if task is None or until < time.monotonic():
            self._forget()
            task = asyncio.create_task(self._read(service, work))
            self._kept[name] = (time.monotonic() + seconds, task)
        found = await asyncio.shield(task)
        if not found.ok:
            self._kept.pop(name, None)
        return cast("Found[T]", found)

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
            self._kept = {name: one for name, one in self._kept.items() if one[0] >= now}

    async def close(self) -> None:
        """Closes every database."""
        for database in self._open.values():
            await asyncio.to_thread(database.close)


def _only_reading(work: Callable[[Connection], T], conn: Connection) -> T:
    conn.exec_driver_sql("PRAGMA query_only=ON" if conn.dialect.name == "sqlite" else "SET TRANSACTION READ ONLY")
    return work(conn)


def _has_no_tables(error: sa.exc.DBAPIError) -> bool:
    return "no such table" in str(error.orig) or type(error.orig).__name__ == "UndefinedTable"
