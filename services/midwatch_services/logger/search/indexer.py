"""Follows the log and reads its runs into the index, beside the logger's own work and never before it."""

import asyncio
from collections.abc import Callable
from datetime import datetime

import structlog
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch.errors import Temporary
from midwatch.runtime import faults, telemetry
from midwatch.runtime.database import Database
from midwatch.runtime.delivery import RunReader

from ..places import Streams, place
from . import facts_store, index_store
from .reading import Reading, read

TICK = 1.0  # seconds between looks at the log where nothing is left to do
YIELD = 5.0  # seconds between steps while the logger itself has `BEHIND` events to catch up with
BEHIND = 2_000
NOTED = 5_000  # events in one transaction
READ = 20  # runs in one transaction

log = structlog.get_logger("midwatch.logger")


class Index:
    """The index of one database. Any number of processes may fill it: the cursor moves by compare-and-set, and a
    reading is saved only where nothing came to its run since it was begun."""

    def __init__(self, database: Database) -> None:
        self._log = database
        # PostgreSQL: under a lock of its own, so that events are stored meanwhile. SQLite has one writer, one queue.
        self._own: Database | None = None
        if database.dialect == "postgresql":
            self._own = Database(database.engine.url.render_as_string(hide_password=False), name="logger-index")
        self._database = self._own or database

    def close(self) -> None:
        """Closes what it opened itself."""
        if self._own:
            self._own.close()

    async def note(self, until: int) -> int:
        """Moves the cursor over new events and remembers whose they are. Returns how many they were."""

        def look(conn: Connection) -> tuple[int, list[tuple[int, str, str, str, str]]]:
            after = index_store.cursor(conn, index_store.INDEX)
            return after, index_store.new_events(conn, after, until, NOTED)

        after, events = await self._log.read(look)
        if not events:
            return 0
        runs: dict[tuple[str, str], tuple[str, bool]] = {}
        for _, agent, run_id, event, stored_at in events:
            at, done = runs.get((agent, run_id), (stored_at, False))
            runs[agent, run_id] = max(at, stored_at), done or event == "finished"

        def note(conn: Connection) -> bool:
            if not index_store.move_cursor(conn, index_store.INDEX, after, events[-1][0]):
                return False
            faults.reach("index.moved")
            index_store.touch(conn, ((*key, at, done) for key, (at, done) in runs.items()))
            return True

        moved = await self._database.write(note)
        faults.reach("index.noted")
        return len(events) if moved else 0

    async def read(self, now: datetime) -> int:
        """Reads a few of the runs that wait for it. Returns how many."""

        def look(conn: Connection) -> list[tuple[Reading | None, index_store.Unread]]:
            found = index_store.ready(conn, *index_store.bounds(now), READ)
            return [(_reading(conn, one), one) for one in found]

        found = await self._log.read(look)
        faults.reach("index.looked")

        def save(conn: Connection) -> None:
            for reading, unread in found:
                if reading is None:
                    index_store.forget(conn, unread.agent, [unread.run_id])
                else:
                    index_store.save(conn, reading, unread.times)
                faults.reach("index.saving")

        if found:
            await self._database.write(save)
            faults.reach("index.saved")
        return len(found)

    async def sweep(self) -> bool:
        """Takes words of what was forgotten out of the file. Whether there is more."""
        return await self._database.write(index_store.sweep)

    async def behind(self, now: datetime, until: int) -> float:
        """For how many seconds the oldest of what could be read has waited."""
        since = await self._log.read(lambda conn: index_store.oldest_unread(conn, *index_store.bounds(now), until))
        return 0.0 if since is None else max(0.0, (now - datetime.fromisoformat(since)).total_seconds())


class Indexer:
    """Keeps the index up to date while the logger runs."""

    def __init__(
        self, js: JetStreamContext, database: Database, streams: Streams, reader: RunReader, now: Callable[[], datetime]
    ) -> None:
        self._js, self._streams, self._reader, self._now = js, streams, reader, now
        self._index = Index(database)

    async def run(self) -> None:
        """For the service's life."""
        try:
            while True:
                more = False
                try:
                    more = await self._step()
                except (Temporary, NatsError, TimeoutError) as error:
                    telemetry.PERIODIC_ERRORS.labels(subjects.LOGGER, "index").inc()
                    log.warning("index_waits", error=str(error) or repr(error))
                except Exception:
                    telemetry.PERIODIC_ERRORS.labels(subjects.LOGGER, "index").inc()
                    log.exception("index_failed")
                await asyncio.sleep(YIELD if self._reader.behind() > BEHIND else 0 if more else TICK)
        finally:
            await asyncio.to_thread(self._index.close)

    async def _step(self) -> bool:
        """A bounded piece of work. Whether there is more. Raises Temporary, NatsError, TimeoutError."""
        until = await self._safe()
        noted = await self._index.note(until)
        count = await self._index.read(self._now())
        telemetry.INDEX_LAG.labels(subjects.LOGGER).set(await self._index.behind(self._now(), until))
        swept = False if noted or count else await self._index.sweep()
        return noted == NOTED or count == READ or swept

    async def _safe(self) -> int:
        """The place up to which all is in the log, or never will be: writers commit out of order."""
        number = await self._streams.refresh()
        info = await self._js.consumer_info(subjects.RUNS, subjects.LOGGER)
        return place(number, info.ack_floor.stream_seq if info.ack_floor else 0)


def _reading(conn: Connection, unread: index_store.Unread) -> Reading | None:
    """None where the run is in the log no more."""
    facts = facts_store.facts(conn, unread.agent, unread.run_id)
    if facts is None:
        return None
    events = facts_store.bodies(conn, unread.agent, unread.run_id)
    try:
        return read(facts, events)
    except Exception:  # whatever it is, it must not keep all other runs from being read
        log.exception("run_not_read", agent=unread.agent, run=unread.run_id)
        return read(facts, [])
