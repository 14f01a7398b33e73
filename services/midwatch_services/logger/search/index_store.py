"""The tables by which runs are found: what is still to be read, readings, and their full-text index."""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..cursors import cursor as cursor
from ..cursors import move_cursor as move_cursor
from ..decide import text_of
from . import marks
from .grammar import Question, broadened, for_postgres, for_sqlite, holds
from .reading import Reading, lines

INDEX = "index"  # cursor: the runs of all events up to that place are read, or wait in `logger_unread`
SWEEP = "index-sweep"  # cursor: 1 or 2 while words of what was forgotten may still stand in SQLite's file
_ATTEMPTS = 16  # to give a reading a number that no other run has
IDLE = timedelta(seconds=30)  # without an event, until a run that has not ended is read
LONGEST = timedelta(minutes=5)  # until it is read though it goes on
_SWEPT_PAGES = 500  # of SQLite's index in one step
_WINDOW_GROWS = 4
_LOOKED_AT = 300  # readings


@dataclass(frozen=True, slots=True)
class Unread:
    """A run with something new. `times`: how often it was touched; `since`: when first, of what is not read yet."""

    agent: str
    run_id: str
    since: str
    touched: str
    done: bool
    times: int


# What is to be read


def bounds(now: datetime) -> tuple[str, str]:
    """Since when a run must rest, and since when at the latest it waits, to be read now."""
    return text_of(now - IDLE), text_of(now - LONGEST)


def new_events(conn: Connection, after: int, until: int, limit: int) -> list[tuple[int, str, str, str, str]]:
    """The events between two places in order: (place, agent, run id, event, stored at)."""
    query = sa.text(
        "SELECT place, agent, run_id, event, stored_at FROM logger_events "
        "WHERE place > :after AND place <= :until ORDER BY place LIMIT :limit"
    )
    found = conn.execute(query, {"after": after, "until": until, "limit": limit})
    return [(place, agent, run_id, event, stored_at) for place, agent, run_id, event, stored_at in found]


def touch(conn: Connection, runs: Iterable[tuple[str, str, str, bool]]) -> None:
    """Has runs read again, each (agent, run id, since when, whether at once)."""
    rows = [
        {"agent": agent, "run_id": run_id, "at": at, "done": int(done)} for agent, run_id, at, done in sorted(set(runs))
    ]
    if rows:
        conn.execute(
            sa.text(
                "INSERT INTO logger_unread (agent, run_id, since, touched, done, times) "
                "VALUES (:agent, :run_id, :at, :at, :done, 1) ON CONFLICT (agent, run_id) DO UPDATE SET "
                "touched = CASE WHEN excluded.touched > logger_unread.touched THEN excluded.touched "
                "ELSE logger_unread.touched END, "
                "done = CASE WHEN excluded.done > logger_unread.done THEN excluded.done ELSE logger_unread.done END, "
                "times = logger_unread.times + 1"
            ),
            rows,
        )


def touch_late(conn: Connection, rows: Iterable[tuple[str, str, int, str]]) -> None:
    """Has runs read again whose events, each (agent, run id, place, stored at), are stored behind the cursor."""
    passed = cursor(conn, INDEX)
    touch(conn, ((agent, run_id, at, True) for agent, run_id, place, at in rows if place <= passed))


def ready(conn: Connection, idle: str, waiting: str, limit: int) -> list[Unread]:
    """Runs to read now, the newest first: ended, untouched since `idle`, or unread since `waiting`."""
    query = sa.text(
        "SELECT agent, run_id, since, touched, done, times FROM logger_unread "
        "WHERE done = 1 OR touched <= :idle OR since <= :waiting ORDER BY touched DESC LIMIT :limit"
    )
    found = conn.execute(query, {"idle": idle, "waiting": waiting, "limit": limit})
    return [Unread(row.agent, row.run_id, row.since, row.touched, bool(row.done), row.times) for row in found]


def oldest_unread(conn: Connection, idle: str, waiting: str, until: int | None = None) -> str | None:
    """Since when the log has something that could be read and is not; None where all is. `until`: a place."""
    of_runs = sa.text("SELECT min(touched) FROM logger_unread WHERE done = 1 OR touched <= :idle OR since <= :waiting")
    unread: str | None = conn.execute(of_runs, {"idle": idle, "waiting": waiting}).scalar()
    return min(filter(None, (unread, _unseen_since(conn, until))), default=None)


def unread_since(conn: Connection) -> str | None:
    """Since when the log has something that is not read yet, be it that its run goes on; None where all is."""
    unread: str | None = conn.execute(sa.text("SELECT min(since) FROM logger_unread")).scalar()
    return min(filter(None, (unread, _unseen_since(conn))), default=None)


def _unseen_since(conn: Connection, until: int | None = None) -> str | None:
    given: dict[str, Any] = {"after": cursor(conn, INDEX), "until": until}
    bound = "" if until is None else "AND place <= :until"
    unseen: str | None = conn.execute(
        sa.text(f"SELECT stored_at FROM logger_events WHERE place > :after {bound} ORDER BY place LIMIT 1"),  # noqa: S608
        given,
    ).scalar()
    return unseen


# Readings


def save(conn: Connection, reading: Reading, times: int) -> None:
    """Puts a reading in the place of the one before; not where the run was touched, or read by another, meanwhile."""
    unread = sa.text("DELETE FROM logger_unread WHERE agent = :agent AND run_id = :run_id AND times = :times")
    if not conn.execute(unread, {"agent": reading.agent, "run_id": reading.run_id, "times": times}).rowcount:
        return
    _drop(conn, reading.agent, [reading.run_id])
    number = _number(conn, reading)
    text = lines(reading, number)
    row: dict[str, Any] = {
        "number": number, "agent": reading.agent, "run_id": reading.run_id, "events": reading.events,
        "tools": msgspec.json.encode(reading.tools).decode(),
    }  # fmt: skip
    if conn.dialect.name == "sqlite":
        row["text"] = pack(text)
        _insert(conn, row, "text", ":text")
        conn.execute(
            sa.text("INSERT INTO logger_words (rowid, words) VALUES (:number, :words)"),
            {"number": number, "words": text},
        )
    else:
        row["words"] = vector(text)
        _insert(conn, row, "words", "CAST(:words AS tsvector)")


def _insert(conn: Connection, row: dict[str, Any], last: str, value: str) -> None:
    conn.execute(
        sa.text(
            f"INSERT INTO logger_readings (number, agent, run_id, events, tools, {last}) "  # noqa: S608
            f"VALUES (:number, :agent, :run_id, :events, :tools, {value})"
        ),
        row,
    )


def _number(conn: Connection, reading: Reading) -> int:
    for attempt in range(_ATTEMPTS):
        number = marks.number(reading.first_at, reading.agent, reading.run_id, attempt)
        taken = sa.text("SELECT 1 FROM logger_readings WHERE number = :number")
        if conn.execute(taken, {"number": number}).first() is None:
            return number
    raise RuntimeError(f"{_ATTEMPTS} numbers near {reading.first_at} are all taken")  # one in 10**80


def pack(text: str) -> bytes:
    """A text as SQLite keeps it beside the index."""
    return zlib.compress(text.encode(), 1)


def unpack(packed: bytes) -> str:
    return zlib.decompress(packed).decode()


def vector(text: str) -> str:
    """The words of `lines` as PostgreSQL reads a tsvector: each with its positions, of which it keeps 255."""
    places: dict[str, list[str]] = {}
    for at, word in enumerate(text.split(" "), 1):
        places.setdefault(word, []).append(str(min(at, 16_383)))
    return " ".join(f"'{word}':{','.join(some[:255])}" for word, some in places.items())


def forget(conn: Connection, agent: str, run_ids: Sequence[str]) -> None:
    """Removes what was read of runs. A run that is still in the log, as after an erasure, is to be `touch`ed then."""
    if _drop(conn, agent, run_ids) and conn.dialect.name == "sqlite":
        # FTS5 finds a word no more at once, but keeps it in its file until the parts of the index are merged.
        move_cursor(conn, SWEEP, cursor(conn, SWEEP), 1)
    gone = sa.text("DELETE FROM logger_unread WHERE agent = :agent AND run_id IN :run_ids").bindparams(
        sa.bindparam("run_ids", expanding=True)
    )
    for some in _some(run_ids):
        conn.execute(gone, {"agent": agent, "run_ids": some})


def _drop(conn: Connection, agent: str, run_ids: Sequence[str]) -> int:
    dropped = 0
    for some in _some(run_ids):
        given: dict[str, Any] = {"agent": agent, "run_ids": some}
        where = "WHERE agent = :agent AND run_id IN :run_ids"
        many: sa.BindParameter[Any] = sa.bindparam("run_ids", expanding=True)
        if conn.dialect.name == "sqlite":
            read = sa.text(f"SELECT number, text FROM logger_readings {where}").bindparams(many)  # noqa: S608
            found = conn.execute(read, given)
            rows = [{"number": number, "words": unpack(text)} for number, text in found]
            if rows:
                conn.execute(
                    sa.text("INSERT INTO logger_words (logger_words, rowid, words) VALUES ('delete', :number, :words)"),
                    rows,
                )
        dropped += conn.execute(sa.text(f"DELETE FROM logger_readings {where}").bindparams(many), given).rowcount  # noqa: S608
    return dropped


def _some(run_ids: Sequence[str], size: int = 500) -> Iterator[list[str]]:
    return ([*run_ids[start : start + size]] for start in range(0, len(run_ids), size))


def sweep(conn: Connection) -> bool:
    """SQLite: merges a little of the index, so that words of what was forgotten leave the file. False when all have."""
    stage = cursor(conn, SWEEP)
    if not stage:
        return False
    raw: Any = conn.connection.driver_connection
    before = raw.total_changes
    pages = -_SWEPT_PAGES if stage == 1 else _SWEPT_PAGES
    raw.execute("INSERT INTO logger_words (logger_words, rank) VALUES ('merge', ?)", (pages,))
    more = raw.total_changes - before >= 2  # as FTS5 says that there is more to merge
    move_cursor(conn, SWEEP, stage, 2 if more else 0)
    return bool(more)


# Finding


def matches(
    conn: Connection, question: Question, least: int, below: int, *, newest_first: bool = True
) -> Iterator[int]:
    """Numbers of the readings that a question is true of, from `least` to `below`, the newest or the oldest first, as
    asked for."""
    if conn.dialect.name != "sqlite":
        return _in_windows(conn, for_postgres(question), least, below, newest_first=newest_first)
    return _in_order(conn, question, least, below) if newest_first else _from_oldest(conn, question, least, below)


def _from_oldest(conn: Connection, question: Question, least: int, below: int) -> Iterator[int]:
    raw: Any = conn.connection.driver_connection
    query = "SELECT rowid FROM logger_words WHERE logger_words MATCH ? AND rowid >= ? AND rowid < ? ORDER BY rowid"
    for (number,) in raw.execute(query, (for_sqlite(question), least, below)):
        yield number


def _in_order(conn: Connection, question: Question, least: int, below: int) -> Iterator[int]:
    """FTS5 goes through its lists from the newest and stops when no more is asked for. But of a long beginning it first
    merges the lists of all words that begin so: the newest are found by a short one and looked at."""
    raw: Any = conn.connection.driver_connection
    query = "SELECT rowid FROM logger_words WHERE logger_words MATCH ? AND rowid >= ? AND rowid < ? ORDER BY rowid DESC"
    broad = broadened(question)
    if broad != question:
        count = 0
        for (number,) in raw.execute(query, (for_sqlite(broad), least, below)):
            if count == _LOOKED_AT:
                break
            count, below = count + 1, number
            found = raw.execute("SELECT text FROM logger_readings WHERE number = ?", (number,)).fetchone()
            if found and holds(question, unpack(found[0])):
                yield number
        else:
            return
    for (number,) in raw.execute(query, (for_sqlite(question), least, below)):
        yield number


def _in_windows(conn: Connection, asked: str, least: int, below: int, *, newest_first: bool) -> Iterator[int]:
    """A GIN index knows no order: it is asked for the hours at one end first, and each time for several times as
    many."""
    conn.exec_driver_sql("SET LOCAL enable_seqscan = off")  # the planner takes a word for rarer or commoner than it is
    end, order = ("max", "DESC") if newest_first else ("min", "ASC")
    hours = 1
    while least < below:
        found = conn.execute(
            sa.text(f"SELECT {end}(number) FROM logger_readings WHERE number >= :least AND number < :below"),  # noqa: S608
            {"least": least, "below": below},
        ).scalar()
        if found is None:
            return
        first, last = _window(marks.hour(found), hours, least, below, newest_first=newest_first)
        given: dict[str, Any] = {
            "least": max(least, marks.least_of_hour(first)), "below": min(below, marks.least_of_hour(last + 1)),
            "asked": asked,
        }  # fmt: skip
        spans = [f"'{span}'" for span in marks.span_of_hours(first, last)] if hours <= marks.LEVELS[-1] else []
        if spans:
            given["asked"] = f"({asked}) & ({' | '.join(spans)})"
        else:
            given |= {"least": least, "below": below}
        query = sa.text(
            "WITH found AS MATERIALIZED (SELECT number FROM logger_readings WHERE words @@ CAST(:asked AS tsquery)) "  # noqa: S608
            f"SELECT number FROM found WHERE number >= :least AND number < :below ORDER BY number {order}"
        )
        yield from conn.execute(query, given).scalars()
        least, below = (least, given["least"]) if newest_first else (given["below"], below)
        hours *= _WINDOW_GROWS


def _window(at: int, hours: int, least: int, below: int, *, newest_first: bool) -> tuple[int, int]:
    """The first and the last hour to ask for, beginning with the one that the outermost number is in."""
    if newest_first:
        return max(at - hours + 1, marks.hour(least)), at
    return at, min(at + hours - 1, marks.hour(below - 1))
