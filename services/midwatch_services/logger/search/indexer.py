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

TICK = 1.0  # seconds between looks at the log where nothing is left to do, or the logger itself has work
NOTED = 5_000  # events in one transaction
READ = 20  # runs in one transaction

log = structlog.get_logger("midwatch.logger")


class Indexer:
    """Any number of them may follow one log: the cursor moves by compare-and-set, and reading a run again is the same
    reading."""

    def __init__(
        self, js: JetStreamContext, database: Database, streams: Streams, reader: RunReader, now: Callable[[], datetime]
    ) -> None:
        self._js, self._streams, self._reader, self._now = js, streams, reader, now
        self._read_from = database
        # PostgreSQL: under a lock of its own, so that events are stored meanwhile. SQLite has one writer, one queue.
        self._own: Database | None = None
        if database.dialect == "postgresql":
            self._own = Database(database.engine.url.render_as_string(hide_password=False), name="logger-index")
        self._database = self._own or database

    async def run(self) -> None:
        """For the service's life."""
        try:
            while True:
                more = False
                try:
                    more = await self.step()
                except (Temporary, NatsError, TimeoutError) as error:
                    telemetry.PERIODIC_ERRORS.labels(subjects.LOGGER, "index").inc()
                    log.warning("index_waits", error=str(error) or repr(error))
                except Exception:
                    telemetry.PERIODIC_ERRORS.labels(subjects.LOGGER, "index").inc()
                    log.exception("index_failed")
                await asyncio.sleep(0 if more and self._reader.caught_up() else TICK)
        finally:
            if self._own:
                await asyncio.to_thread(self._own.close)

    async def step(self) -> bool:
        """A bounded piece of work. Whether there is more. Raises Temporary, NatsError, TimeoutError."""
        until = await self._safe()
        noted = await self._note(until)
        count = await self._read()
        now = self._now()
        behind = await self._read_from.read(
            lambda conn: index_store.oldest_unread(conn, *index_store.bounds(now), until)
        )
        lag = 0.0 if behind is None else max(0.0, (now - datetime.fromisoformat(behind)).total_seconds())
        telemetry.INDEX_LAG.labels(subjects.LOGGER).set(lag)
        swept = False
        if not noted and not count:
            swept = await self._database.write(index_store.sweep)
        return noted == NOTED or count == READ or swept

    async def _safe(self) -> int:
        """The place up to which all is in the log, or never will be: writers commit out of order."""
        number = await self._streams.refresh()
        info = await self._js.consumer_info(subjects.RUNS, subjects.LOGGER)
        return place(number, info.ack_floor.stream_seq if info.ack_floor else 0)

    async def _note(self, until: int) -> int:
        """Moves the cursor over new events and remembers whose they are. Returns how many they were."""

        def look(conn: Connection) -> tuple[int, list[tuple[int, str, str, str, str]]]:
            after = index_store.cursor(conn, index_store.INDEX)
            return after, index_store.new_events(conn, after, until, NOTED)

        after, events = await self._read_from.read(look)
        if not events:
            return 0
        runs: dict[tuple[str, str], tuple[str, bool]] = {}
        for _, agent, run_id, event, stored_at in events:
            at, done = runs.get((agent, run_id), (stored_at, False))
            runs[agent, run_id] = max(at, stored_at), done or event == "finished"

        def note(conn: Connection) -> bool:
            if not index_store.move_cursor(conn, index_store.INDEX, after, events[-1][0]):
                return False
            index_store.touch(conn, ((*key, at, done) for key, (at, done) in runs.items()))
            return True

        moved = await self._database.write(note)
        faults.reach("index.noted")
        return len(events) if moved else 0

    async def _read(self) -> int:
        """Reads a few of the runs that wait for it. Returns how many."""
        now = self._now()

        def look(conn: Connection) -> list[tuple[Reading | None, index_store.Unread]]:
            found = index_store.ready(conn, *index_store.bounds(now), READ)
            return [(_reading(conn, one), one) for one in found]

        found = await self._read_from.read(look)
        faults.reach("index.looked")

        def save(conn: Connection) -> None:
            for reading, unread in found:
                if reading is None:
                    index_store.forget(conn, unread.agent, [unread.run_id])
                else:
                    index_store.save(conn, reading, unread.times)

        if found:
            await self._database.write(save)
            faults.reach("index.saved")
        return len(found)


def _reading(conn: Connection, unread: index_store.Unread) -> Reading | None:
    """None where the run is in the log no more."""
    facts = facts_store.facts(conn, unread.agent, unread.run_id)
    return read(facts, facts_store.bodies(conn, unread.agent, unread.run_id)) if facts else None
