"""The sequencer: once a second it chains what was stored, behind a watermark. Any number of processes may do it.

All at or before the consumer's acknowledgement floor is committed, or was given up: what is read up to there is all
there will be, whichever process stored it and in whatever order. What comes at a place that was passed nevertheless,
from a stream that is gone or into a database that was restored, is in `logger_late` and goes to the end of its chain.
"""

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from nats.js import JetStreamContext
from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch.runtime import faults, telemetry
from midwatch.runtime.database import Database

from ..places import Streams, place
from . import chain, chain_store
from .chain import Part
from .chain_store import SEQUENCER

EVERY = 1.0  # seconds
AT_ONCE = 16_384  # leaves of one transaction
COUNTED = 100_000  # events not sealed yet: more are not counted

# One row an agent: each row fetched would give up and take back Python's global lock.
_NEXT = """
    SELECT agent, {leaves} AS leaves, count(*), max(place) FROM (
        SELECT agent, place, leaf FROM logger_events WHERE place > :after AND place <= :upto ORDER BY place LIMIT :most
    ) AS next GROUP BY agent ORDER BY agent
"""
_LEAVES = {
    "sqlite": "group_concat(printf('%016X', place) || hex(leaf), '') FILTER (WHERE length(leaf) = 32)",
    "postgresql": "string_agg(int8send(place) || leaf, ''::bytea ORDER BY place) FILTER (WHERE length(leaf) = 32)",
}


class Next(NamedTuple):
    """What is to be chained now: the events of (`after`, `upto`], `rows` of them, and `late` ones by (place, agent)."""

    after: int
    upto: int
    rows: int
    parts: Sequence[Part]
    late: Sequence[tuple[int, str]]


class Sequencer:
    """Chains what the log's processes have stored."""

    def __init__(self, js: JetStreamContext, database: Database, streams: Streams, now: Callable[[], datetime]) -> None:
        self._js, self._database, self._streams, self._now = js, database, streams, now
        self._unsealed = telemetry.UNSEALED.labels(subjects.LOGGER)
        self._sealed_at = telemetry.SEALED_AT.labels(subjects.LOGGER)
        self._counted = 0.0

    async def tick(self) -> None:
        """Chains all up to the watermark. Raises Temporary, NatsError, TimeoutError."""
        watermark = await self._watermark()
        while await self._step(watermark):
            self._sealed_at.set_to_current_time()
        if time.monotonic() - self._counted > 10:
            self._counted = time.monotonic()
            self._unsealed.set(await self._database.read(unsealed))

    async def _step(self, watermark: int) -> bool:
        """Whether something was sealed; where another process was first, there is time in a second."""
        found = await self._database.read(lambda conn: read_next(conn, watermark))
        if found.upto == found.after and not found.late:
            return False
        faults.reach("sequencer.read")
        done = await self._database.write(lambda conn: seal(conn, found, self._now()))
        faults.reach("sequencer.sealed")
        return done

    async def _watermark(self) -> int:
        # In this order: should the stream be made anew in between, its floor is taken for one of the stream before,
        # which has passed it long since.
        number = await self._streams.refresh()
        info = await self._js.consumer_info(subjects.RUNS, subjects.LOGGER)
        return place(number, info.ack_floor.stream_seq if info.ack_floor else 0)


def read_next(conn: Connection, watermark: int) -> Next:
    """The next leaves to chain, hashed to their roots already. Reads only."""
    after = chain_store.cursor(conn, SEQUENCER)
    dialect = conn.dialect.name
    query = sa.text(_NEXT.format(leaves=_LEAVES[dialect].replace(":", "\\:")))
    given = {"after": after, "upto": watermark, "most": AT_ONCE}
    rows = conn.execute(query, given).all() if watermark > after else []
    count = sum(row[2] for row in rows)
    # Fewer than asked for: there is nothing else up to the watermark.
    upto = max(row[3] for row in rows) if count == AT_ONCE else max(after, watermark)
    late = conn.execute(
        sa.text("SELECT place, agent, leaf FROM logger_late ORDER BY place, agent LIMIT :most"), {"most": AT_ONCE}
    ).all()
    by_agent: dict[str, list[tuple[int, bytes]]] = {}
    for one in late:
        by_agent.setdefault(one[1], []).append((one[0], bytes(one[2])))
    parts = [part for agent, leaves in by_agent.items() for part in chain.cut(agent, chain.pack(leaves))]
    parts += [part for row in rows if row[1] for part in chain.cut(row[0], _in_order(row[1]))]
    return Next(after, upto, count, parts, [(one[0], one[1]) for one in late])


def seal(conn: Connection, found: Next, at: datetime) -> bool:
    """Appends the blocks and moves the cursor, in one transaction; False, and nothing is done, where what was read is
    not what is there any more."""
    if found.upto > found.after and _count(conn, found.after, found.upto) != found.rows:
        return False
    with conn.begin_nested() as savepoint:
        moved = found.upto == found.after or chain_store.move_cursor(conn, SEQUENCER, found.after, found.upto)
        if not moved or not _forget_late(conn, found.late):
            savepoint.rollback()
            return False
        chain_store.append_parts(conn, found.parts, at)
        faults.reach("sequencer.appended")
    return True


def unsealed(conn: Connection) -> int:
    """How many events wait for the sequencer, at most `COUNTED`."""
    waiting = sa.text(
        "SELECT (SELECT count(*) FROM (SELECT 1 FROM logger_events WHERE place > :after LIMIT :most) AS next) "
        "+ (SELECT count(*) FROM logger_late)"
    )
    given = {"after": chain_store.cursor(conn, SEQUENCER), "most": COUNTED}
    return min(COUNTED, int(conn.execute(waiting, given).scalar_one()))


def oldest_unsealed(conn: Connection) -> str | None:
    """When the oldest event that waits for the sequencer was stored."""
    query = sa.text("SELECT stored_at FROM logger_events WHERE place > :after ORDER BY place LIMIT 1")
    found: str | None = conn.execute(query, {"after": chain_store.cursor(conn, SEQUENCER)}).scalar()
    return found


def _count(conn: Connection, after: int, upto: int) -> int:
    query = sa.text("SELECT count(*) FROM logger_events WHERE place > :after AND place <= :upto")
    return int(conn.execute(query, {"after": after, "upto": upto}).scalar_one())


def _forget_late(conn: Connection, late: Sequence[tuple[int, str]]) -> bool:
    gone = sa.text("DELETE FROM logger_late WHERE place = :place AND agent = :agent")
    return all(conn.execute(gone, {"place": place, "agent": agent}).rowcount == 1 for place, agent in late)


def _in_order(leaves: str | bytes) -> bytes:
    packed = bytes.fromhex(leaves) if isinstance(leaves, str) else bytes(leaves)
    size = chain.ENTRY
    return b"".join(sorted(packed[at : at + size] for at in range(0, len(packed), size)))
