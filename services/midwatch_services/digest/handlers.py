"""Writes the digests of the days that are due, each once, and has them published."""

from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from sqlalchemy.engine import Connection

from midwatch.contracts import codec, subjects
from midwatch.contracts.erasure import ErasureResolved
from midwatch.contracts.reviews import DigestRun, DigestWritten
from midwatch.errors import MidwatchError, Temporary
from midwatch.runtime import faults
from midwatch.runtime.card_book import CardBook
from midwatch.runtime.database import Database
from midwatch.runtime.outbox import Outbox, Outgoing
from midwatch.runtime.settings import Settings

from . import decide, render, store
from .behind import is_behind
from .decide import Digest
from .policy import PATIENCE, Policy
from .sources import Sources

SOURCE = f"/services/{subjects.DIGEST}"
log = structlog.get_logger("midwatch.digest")


class Writer:
    """Looks what is due, writes it, and says so through the outbox."""

    def __init__(
        self, nc: Client, database: Database, outbox: Outbox, cards: CardBook, settings: Settings, policy: Policy,
        now: Callable[[], datetime], keep: timedelta,
    ) -> None:  # fmt: skip
        self._nc, self._database, self.outbox, self._cards, self._settings = nc, database, outbox, cards, settings
        self._policy, self._now, self._keep = policy, now, keep
        self._waits = ""

    async def tick(self) -> None:
        """Writes what is due and not written yet."""
        await self.outbox.drain()
        days = decide.due(self._now(), self._policy)
        ready = await self._database.read(lambda conn: store.days_done(conn, days))
        for day in days:
            if day not in ready:
                await self._write(day)

    async def publish(self, _: ErasureResolved) -> None:
        """Says what waits, so that none of it is under way when its digest is erased: the logger then finds it."""
        await self.outbox.drain()

    async def _write(self, day: date) -> None:
        now, end = self._now(), decide.bounds(day, self._policy.zone)[1]
        behind = await self._is_behind(end)
        if behind and now < decide.hour_of(day, self._policy) + PATIENCE:
            self._wait(day, "the logger has not read all of that day yet")
            return

        # All is read within the transaction: an erasure comes before it, when the log is blank, or after it.
        def work(conn: Connection) -> int:
            fresh = sum(self._save(conn, digest, now) for digest in self._digests(day, now, behind))
            faults.reach("digest.saved")
            store.done(conn, day, now)
            return fresh

        try:
            fresh = await self._database.write(work)
        except MidwatchError as error:
            self._wait(day, str(error))
            return
        self._waits = ""
        faults.reach("digest.committed")
        log.info("digests_written", day=day.isoformat(), digests=fresh)
        await self.outbox.drain()

    def _wait(self, day: date, why: str) -> None:
        if why != self._waits:
            log.warning("digest_waits", day=day.isoformat(), why=why)
        self._waits = why

    async def _is_behind(self, end: datetime) -> bool:
        try:
            return await is_behind(self._nc, end)
        except (NatsError, TimeoutError) as error:
            raise Temporary(f"NATS does not say how far the logger is: {error or type(error).__name__}") from error

    def _digests(self, day: date, now: datetime, behind: bool) -> Sequence[Digest]:
        """The shop's, and each agent's that had runs; none while there never was a run."""
        with Sources(self._settings, self._policy) as sources:
            if not sources.is_used():
                return ()
            whole = sources.digest(day, None, now, budget=self._settings.fleet_budget_day, behind=behind)
            agents = sources.agents(day)
            return (
                whole,
                *(self._of_agent(sources, day, agent, now, behind) for agent in agents),
            )

    def _of_agent(self, sources: Sources, day: date, agent: str, now: datetime, behind: bool) -> Digest:
        card = self._cards.get(agent)
        budget = None if card.budget.day is None else Decimal(card.budget.day)
        return sources.digest(day, agent, now, budget=budget, behind=behind, words=card.log.digest_words)

    def _save(self, conn: Connection, digest: Digest, now: datetime) -> bool:
        data = written(digest, self._settings.console_url)
        if not store.save(conn, data, now):
            return False
        id = store.message_id(data.date, data.agent)
        body = codec.encode(codec.envelope("digest", "written", data, source=SOURCE, id=id, time=now))
        self.outbox.add(conn, Outgoing(id, subjects.digest(data.agent, "written"), body))
        return True

    async def prune(self) -> None:
        """Forgets what is older than the stream keeps it."""
        now = self._now()

        def work(conn: Connection) -> None:
            store.prune(conn, now - self._keep)
            self.outbox.forget(conn, int((now - self._keep).timestamp()))

        await self._database.write(work)


def written(digest: Digest, console: str | None) -> DigestWritten:
    """A digest as it is published."""
    return DigestWritten(
        agent=digest.agent, date=digest.day.isoformat(), title=digest.title, words=digest.words,
        brief=render.brief(digest), text=render.text(digest, console), markdown=render.markdown(digest, console),
        html=render.html(digest, console),
        runs=[DigestRun(agent=agent, run_id=run_id) for agent, run_id in digest.runs],
    )  # fmt: skip
