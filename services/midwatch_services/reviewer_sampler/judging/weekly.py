"""Says once a week what people corrected, for whoever writes an agent's prompts."""

from collections.abc import Callable
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy.engine import Connection

from midwatch.contracts import codec, subjects
from midwatch.contracts.erasure import ErasureResolved
from midwatch.contracts.reviews import DigestRun, ReviewSummed
from midwatch.errors import MidwatchError
from midwatch.runtime import faults
from midwatch.runtime.database import Database
from midwatch.runtime.outbox import Outbox, Outgoing
from midwatch.runtime.settings import Settings

from . import feedback, reading, render, sources
from .feedback import Note
from .handlers import SOURCE

PATIENCE = timedelta(hours=6)  # for which a run log that cannot be read is waited for
log = structlog.get_logger("midwatch.reviewer_sampler.weekly")


class Weekly:
    """Writes the note of the week that ended, once an agent. Of weeks that were missed only the last is written."""

    def __init__(self, database: Database, outbox: Outbox, settings: Settings, now: Callable[[], datetime]) -> None:
        self._database, self.outbox, self._settings, self._now = database, outbox, settings, now
        self._done = ""
        self._waits = ""

    async def tick(self) -> None:
        """Writes what is due: on Monday at the hour of digests, or later where nobody was there."""
        now = self._now()
        week = feedback.last_week(now)
        due = due_at(week, self._settings.digest_at, self._settings.digest_zone)
        if week == self._done or now < due:
            return

        # All is read within the transaction: an erasure comes before it, when the log is blank, or after it.
        def work(conn: Connection) -> int:
            agents, late = reading.agents(conn), now >= due + PATIENCE
            notes = sources.notes(conn, self._settings, week, agents, without_log=late)
            return sum(self._save(conn, note, now) for note in notes if note.groups)

        try:
            count = await self._database.write(work)
        except MidwatchError as error:
            if str(error) != self._waits:
                log.warning("corrections_wait", week=week, why=str(error))
            self._waits = str(error)
            return
        self._done, self._waits = week, ""
        faults.reach("reviewer_sampler.summed")
        log.info("corrections_summed", week=week, notes=count)
        await self.outbox.drain()

    def _save(self, conn: Connection, note: Note, now: datetime) -> bool:
        data = summed(note)
        id = f"summed-{note.agent}-{note.week}"
        if not self.outbox.fresh(conn, [(note.agent, id)]):
            return False
        body = codec.encode(codec.envelope("review", "summed", data, source=SOURCE, id=id, time=now))
        self.outbox.add(conn, Outgoing(id, subjects.review(note.agent, "summed"), body))
        return True

    async def publish(self, _: ErasureResolved) -> None:
        """Says what waits, so that none of it is under way when its runs are erased: the logger then finds it."""
        await self.outbox.drain()


def due_at(week: str, at: str, zone: str) -> datetime:
    """When the note of a week is due: on the Monday after it, at that time of day there."""
    monday = feedback.bounds(week)[1].date()
    return datetime.combine(monday, time.fromisoformat(at), ZoneInfo(zone))


def summed(note: Note) -> ReviewSummed:
    """A note as it is published."""
    runs = [DigestRun(agent=one.agent, run_id=one.run_id) for group in note.groups for one in group.entries]
    return ReviewSummed(
        agent=note.agent, week=note.week, title=note.title, text=render.text(note), markdown=render.markdown(note),
        html=render.html(note), brief=render.brief(note), runs=runs,
    )  # fmt: skip
