"""A pass of retention: what is past goes in short transactions with rests between, in which the logger writes."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import TypeVar

import structlog
from sqlalchemy.engine import Connection

from midwatch.contracts.envelope import utc_now
from midwatch.errors import MidwatchError
from midwatch.runtime import faults
from midwatch.runtime.database import Database

from ..decide import text_of
from ..partitions import partitions
from . import keep_store
from .decide import Clock, Leapt, clock, cutoffs
from .keep_store import Gone, Past
from .policy import KEEPING, Keeping, KeepOf

T = TypeVar("T")
log = structlog.get_logger("midwatch.logger.keeping")


class ClockLeapt(MidwatchError):
    """By the clock it is {at}, long after {counted_to}, to which retention has counted: nothing was removed. If the
    clock is right, say so with `midwatch keep run`; `midwatch keep run --dry-run` shows what would go."""


@dataclass
class Report:
    """What a pass removed, by agent; in a dry run what it would. `held`: runs that are past and must be kept."""

    at: datetime | None = None  # the time by which ages were counted; None where the log is empty
    gone: dict[str, Gone] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    months: list[str] = field(default_factory=list)  # dropped whole
    being_read: list[str] = field(default_factory=list)  # to be dropped next time

    def add(self, agent: str, gone: Gone) -> None:
        """Adds to what is gone of an agent."""
        if gone != Gone():
            self.gone[agent] = self.gone.get(agent, Gone()) + gone


@dataclass
class Sweep:
    """One pass over the log. `asked`: by a person, who has looked at the clock."""

    database: Database
    keep_of: KeepOf
    now: Callable[[], datetime] = utc_now
    asked: bool = False
    keeping: Keeping = KEEPING
    told: Callable[[Report], None] = lambda _: None
    _report: Report = field(default_factory=Report)
    _before: dict[str, str] = field(default_factory=dict)

    async def preview(self) -> Report:
        """What a pass would remove now. Raises ClockLeapt."""
        if await self._begin() is None:
            return self._report
        for agent, cutoff in self._before.items():
            now = text_of(self._at())
            gone, held = await self.database.read(_counting(agent, cutoff, now))
            self._report.add(agent, gone)
            if held:
                self._report.held[agent] = held
        return self._report

    async def run(self) -> Report:
        """Removes what is past. What a crash leaves, the next pass removes. Raises ClockLeapt, Temporary."""
        if await self._begin() is None:
            return self._report
        await self._write(lambda conn: keep_store.count_to(conn, self._at()))
        faults.reach("keeping.counted")
        await self._months()
        for agent, cutoff in self._before.items():
            await self._runs(agent, cutoff)
            await self._alerts(agent, cutoff)
            if held := (await self.database.read(_counting(agent, cutoff, text_of(self._at()))))[1]:
                self._report.held[agent] = held
        return self._report

    async def _begin(self) -> Clock | None:
        newest, counted = await self.database.read(lambda conn: (keep_store.newest(conn), keep_store.counted_to(conn)))
        found = clock(self.now(), newest, counted, asked=self.asked, keeping=self.keeping)
        if isinstance(found, Leapt):
            raise ClockLeapt(at=text_of(found.at), counted_to=text_of(found.counted_to))
        if found:
            self._report.at = found.at
            agents = await self.database.read(keep_store.agents)
            self._before = cutoffs(agents, self.keep_of, found.at)
        return found

    def _at(self) -> datetime:
        assert self._report.at is not None
        return self._report.at

    async def _months(self) -> None:
        """PostgreSQL: drops the months in which nothing must be kept."""
        if not self._before:
            return
        last = max(self._before.values())[:7]
        for month in await self.database.read(partitions):
            if month <= last:
                await self._month(month)

    async def _month(self, month: str) -> None:
        now = text_of(self._at())

        def may_go(conn: Connection) -> bool:
            still_there = month in partitions(conn)  # another logger may make its pass at the same time
            return still_there and keep_store.whole_month(conn, month, self._before.items(), now)

        if not await self.database.read(may_go):
            return
        # Nothing changes in what is past, so that only the drop itself need keep others waiting.
        found = await self.database.read(lambda conn: keep_store.spans_of_month(conn, month))

        def work(conn: Connection) -> bool:
            if not may_go(conn) or not found.keys() <= self._before.keys():
                return False
            keep_store.drop_month(conn, month, found, self._before, self._at(), self.keeping)
            faults.reach("keeping.dropped")
            return True

        for _ in range(self.keeping.lock_attempts):
            try:
                if await self._write(work):
                    self._report.months.append(month)
                return
            except keep_store.BeingRead:
                continue
        self._report.being_read.append(month)

    async def _runs(self, agent: str, cutoff: str) -> None:
        after: Past | None = None
        at, now = self._at(), text_of(self._at())

        def work(conn: Connection) -> tuple[Past | None, Gone]:
            runs = keep_store.past(conn, agent, cutoff, now, after, self.keeping)
            if not runs:
                return None, Gone()
            gone = keep_store.remove(conn, agent, runs, cutoff, at, self.keeping)
            faults.reach("keeping.removed")
            return runs[-1], gone

        while True:
            after, gone = await self._write(work)
            if after is None:
                return
            self._report.add(agent, gone)
            self.told(self._report)

    async def _alerts(self, agent: str, cutoff: str) -> None:
        now = text_of(self._at())
        while count := await self._write(lambda conn: keep_store.remove_alerts(conn, agent, cutoff, now, self.keeping)):
            self._report.add(agent, Gone(alerts=count))

    async def _write(self, work: Callable[[Connection], T]) -> T:
        """One transaction, and a rest in which others write."""
        began = monotonic()
        took = 0.0

        def timed(conn: Connection) -> T:
            nonlocal began
            began = monotonic()  # waiting for the lock is no writing
            return work(conn)

        try:
            done = await self.database.write(timed)
            took = monotonic() - began
            return done
        finally:
            await asyncio.sleep(max(self.keeping.least_rest, took * self.keeping.rest))


def _counting(agent: str, cutoff: str, now: str) -> Callable[[Connection], tuple[Gone, int]]:
    return lambda conn: keep_store.count_past(conn, agent, cutoff, now)


def hourly(database: Database, keep_of: KeepOf, now: Callable[[], datetime]) -> Callable[[], Awaitable[None]]:
    """The pass that the logger makes by itself: once it has begun, then each hour; to be called more often."""
    due = 0.0

    async def sweep() -> None:
        nonlocal due
        if monotonic() < due:
            return
        try:
            report = await Sweep(database, keep_of, now).run()
        except ClockLeapt as error:
            log.error("nothing_removed", why=str(error))
            due = monotonic() + KEEPING.every
            return
        due = monotonic() + KEEPING.every
        for month in report.months:
            log.info("month_dropped", month=month)
        for month in report.being_read:
            log.warning("month_is_being_read", month=month, again="with the next pass")
        for agent, gone in report.gone.items():
            log.info("removed", agent=agent, runs=gone.runs, events=gone.events, alerts=gone.alerts)

    return sweep
