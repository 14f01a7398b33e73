"""The digests that were written: saved once, and read again."""

from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from midwatch.contracts.governance import DigestWritten
from midwatch.runtime.database import insert_new

from . import tables

PREFIX = "digest"
_written, _days = tables.Written.__table__, tables.Day.__table__
_COLUMNS = tuple(_written.columns.keys())
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Kept(NamedTuple):
    """A digest that was written."""

    written_at: datetime
    data: DigestWritten


def save(conn: Connection, data: DigestWritten, now: datetime) -> bool:
    """Keeps a digest, unless that day's of that agent is there. Returns whether it was new."""
    row = (data.date, data.agent, data.title, data.words, _micros(now), msgspec.json.encode(data))
    return bool(insert_new(conn, _written.name, _COLUMNS, [row], ("day", "agent")))


def done(conn: Connection, day: date, now: datetime) -> None:
    """Every digest of the day was written."""
    insert_new(conn, _days.name, ("day", "done_at"), [(day.isoformat(), _micros(now))], ("day",))


def days_done(conn: Connection, days: list[date]) -> set[date]:
    """Those of `days` that need nothing more."""
    query = sa.select(_days.c.day).where(_days.c.day.in_([day.isoformat() for day in days]))
    return {date.fromisoformat(day) for day in conn.execute(query).scalars()}


def read(conn: Connection, *, day: str | None = None, agent: str | None = None, limit: int = 100) -> list[Kept]:
    """Digests as they were published, the newest day first."""
    query = sa.select(_written)
    query = query if day is None else query.where(_written.c.day == day)
    query = query if agent is None else query.where(_written.c.agent == agent)
    rows = conn.execute(query.order_by(_written.c.day.desc(), _written.c.agent).limit(limit))
    return [
        Kept(_EPOCH + timedelta(microseconds=row.written_at), msgspec.json.decode(row.body, type=DigestWritten))
        for row in rows
    ]


def prune(conn: Connection, before: datetime) -> None:
    """Forgets what was written before then."""
    conn.execute(_written.delete().where(_written.c.written_at < _micros(before)))
    conn.execute(_days.delete().where(_days.c.done_at < _micros(before)))


def _micros(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)
