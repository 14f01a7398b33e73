"""The digests that were written: saved once, and read again."""

from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from midwatch.contracts.reviews import DigestWritten
from midwatch.runtime.database import insert_new

from . import tables

PREFIX = "digest"
_written, _named, _days = tables.Written.__table__, tables.Named.__table__, tables.Day.__table__
_COLUMNS = tuple(_written.columns.keys())
_NAMED_COLUMNS = tuple(_named.columns.keys())
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Kept(NamedTuple):
    """A digest that was written."""

    written_at: datetime
    data: DigestWritten


def save(conn: Connection, data: DigestWritten, now: datetime) -> bool:
    """Keeps a digest, unless that day's of that agent is there. Returns whether it was new."""
    row = (data.date, data.agent, data.title, data.words, _micros(now), msgspec.json.encode(data))
    if not insert_new(conn, _written.name, _COLUMNS, [row], ("day", "agent")):
        return False
    runs = [(one.agent, one.run_id, data.date, data.agent) for one in data.runs]
    insert_new(conn, _named.name, _NAMED_COLUMNS, runs, _NAMED_COLUMNS)
    return True


def message_id(day: str, agent: str) -> str:
    """The id of the message that brings it."""
    return f"digest-{agent}-{day}"


def naming(conn: Connection, agent: str, run_id: str) -> list[tuple[str, str]]:
    """The digests (day, agent) that name or quote a run."""
    query = sa.select(_named.c.day, _named.c.agent).where(_named.c.run_agent == agent, _named.c.run_id == run_id)
    return [(row.day, row.agent) for row in conn.execute(query)]


def replace(conn: Connection, data: DigestWritten) -> None:
    """Puts another text in the place of that day's digest of that agent; it names no run any more."""
    which = (_written.c.day == data.date, _written.c.agent == data.agent)
    body = msgspec.json.encode(data)
    conn.execute(_written.update().where(*which).values(title=data.title, words=data.words, body=body))
    conn.execute(_named.delete().where(_named.c.day == data.date, _named.c.agent == data.agent))


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
    old = sa.select(_written.c.day, _written.c.agent).where(_written.c.written_at < _micros(before))
    for day, agent in conn.execute(old).all():
        conn.execute(_named.delete().where(_named.c.day == day, _named.c.agent == agent))
    conn.execute(_written.delete().where(_written.c.written_at < _micros(before)))
    conn.execute(_days.delete().where(_days.c.done_at < _micros(before)))


def _micros(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)
