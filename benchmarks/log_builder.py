"""A run log of any size, made by drawing from published runs again and again, written straight into the tables.

Each run keeps the words, tools, costs and durations of the run that it was drawn from; its ids, ticket and times are
its own. Events are kept for the newest runs only, as they are where old ones are kept shorter than their runs.
"""

import gzip
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from midwatch.contracts import codec, runs
from midwatch.contracts.codec import RunEvent
from midwatch.runtime.database import Database
from midwatch_services.logger import decide, store, tables
from midwatch_services.logger.decide import RunRow
from midwatch_services.logger.partitions import make_partitions
from midwatch_services.logger.places import place
from midwatch_services.logger.search import index_store, marks, reading
from midwatch_services.replay.mapping import HandOffStep, ModelStep, PlayedRun, SaidStep, Step, ToolStep, to_played
from midwatch_services.replay.source import SourceRun
from midwatch_services.reviewer_sampler import tables as review_tables

END = datetime(2026, 11, 22, 12, tzinfo=UTC)  # of the newest run, where nothing else is said
APART = timedelta(days=1) / 4_000  # runs begin so long after one another
RULES = ("budget_run", "loop_no_new_state", "velocity")
RUN, TICKET, ID = "@run@", "@ticket@", "@id@"  # what differs in the body of an event
_TRANSACTION = 5_000  # rows
DRAWN = 5  # one run in so many is drawn for a review
_READING_COLUMNS = ("number", "agent", "run_id", "events", "tools")


@dataclass(frozen=True, slots=True)
class Drawn:
    """A published run, ready to be written many times."""

    row: RunRow
    began: datetime
    events: list[tuple[str, int, timedelta, str]]  # event, seq, after how long, body
    text: str
    vector: str
    marks: list[str]
    tools: str


class Log:
    """What a log of `count` runs holds: for the questions that are put to it."""

    def __init__(self, drawn: Sequence[Drawn], count: int, events_of: int, end: datetime = END) -> None:
        self.drawn, self.count, self.events_of, self.end = drawn, count, min(events_of, count), end
        self.agents = sorted({one.row.agent for one in drawn})
        self._choices = random.Random(5).choices(range(len(drawn)), k=count)

    def of(self, at: int) -> Drawn:
        """What the run at a place, from the oldest, was drawn from."""
        return self.drawn[self._choices[at]]

    def began(self, at: int) -> datetime:
        return self.end - APART * (self.count - 1 - at)

    @staticmethod
    def run_id(at: int) -> str:
        return f"run-{at:08d}"

    @staticmethod
    def word(at: int) -> str:
        """A word that only this run holds, as an order's number is."""
        return f"n{at:08d}"

    def rules(self, at: int) -> list[str]:
        """One run in a hundred has an alert."""
        return [RULES[at % 3]] if at % 100 == 7 else []

    def verdict(self, at: int) -> str | None:
        """One run in ten was drawn, one in fifty of those failed."""
        return None if at % 10 else ("fail" if at % 500 == 0 else "pass")


def real_runs(folder: Path) -> list[Drawn]:
    """The published runs of `folder`."""
    with gzip.open(folder / "agent-runs" / "runs.jsonl.gz") as lines:
        return [_drawn(to_played(msgspec.json.decode(line, type=SourceRun))) for line in lines]


def _drawn(played: PlayedRun) -> Drawn:
    began = played.started_at or END
    events = list(_events(played, began))
    row = decide.fold(
        RunRow(agent=played.agent, run_id=RUN), [(event, decide.text_of(event.time)) for event, _ in events]
    )
    took = reading.took_us(row.started_at, row.ended_at)
    facts = reading.Facts(
        row.agent, RUN, row.first_at, row.version, row.mode, row.resolution, None, None, row.cost_usd, took
    )  # fmt: skip
    read = reading.read(facts, [(event.event, body) for event, body in events])
    text = " ".join([marks.EVERY, *(word for part in read.parts.values() for word in [*part, marks.EVERY])])
    bodies = [(event.event, event.data.seq, event.time - began, body) for event, body in events]
    return Drawn(
        row, began, bodies, text, index_store.vector(text), read.marks,
        msgspec.json.encode(read.tools).decode(),
    )  # fmt: skip


def _events(played: PlayedRun, began: datetime) -> Iterator[tuple[RunEvent, str]]:
    common: dict[str, Any] = {"run_id": RUN, "agent": played.agent, "version": played.version, "mode": "live"}
    common["ticket"] = TICKET
    data: list[tuple[datetime, str, runs.RunData]] = [
        (began, "started", runs.Started(**common, seq=0, input=played.input, channel="chat"))
    ]
    at = began
    for seq, step in enumerate(played.steps, 1):
        at = max(step.at or at, began)
        data.append((at, *_step(step, {**common, "seq": seq})))
    ended = runs.Finished(
        **common, seq=len(data), resolution=played.resolution, output=played.output, error=played.error
    )
    data.append((max(played.ended_at or at, at), "finished", ended))
    for at, event, one in data:
        envelope = codec.envelope("run", event, one, source=f"/agents/{played.agent}/x", id=ID, subject=RUN, time=at)
        yield RunEvent(played.agent, event, f"{one.seq}", at, "", one), codec.encode(envelope).decode()


def _step(step: Step, common: dict[str, Any]) -> tuple[str, runs.RunData]:
    if isinstance(step, SaidStep):
        return "said", runs.Said(**common, by=step.by, text=step.text)
    if isinstance(step, ModelStep):
        return "model_called", runs.ModelCalled(
            **common, provider=step.provider, model=step.model, usage=step.usage, cost_usd=step.cost_usd
        )
    if isinstance(step, ToolStep):
        return "tool_called", runs.ToolCalled(
            **common, tool=step.tool, arguments=step.arguments, result=step.result, error=step.error
        )
    assert isinstance(step, HandOffStep)
    return "handed_off", runs.HandedOff(**common, to="human", reason=step.reason, summary=step.summary)


# Rows


def run_row(log: Log, at: int) -> tuple[Any, ...]:
    one, began = log.of(at), log.began(at)
    shift = began - one.began

    def moved(time: str | None) -> str | None:
        return time and decide.text_of(datetime.fromisoformat(time) + shift)

    row = msgspec.structs.replace(
        one.row, run_id=log.run_id(at), month=_month(began), ticket=f"T-{at}", first_at=decide.text_of(began),
        last_at=moved(one.row.last_at) or "", started_at=moved(one.row.started_at), ended_at=moved(one.row.ended_at),
        started_id=f"{at}-0", finished_id=f"{at}-{one.events[-1][1]}",
    )  # fmt: skip
    return tuple(msgspec.structs.astuple(row))


def event_rows(log: Log, at: int, places: Iterator[int]) -> Iterator[tuple[Any, ...]]:
    one, began, run_id = log.of(at), log.began(at), log.run_id(at)
    for event, seq, after, template in one.events:
        id, time = f"{at}-{seq}", decide.text_of(began + after)
        body = template.replace(RUN, run_id).replace(TICKET, f"T-{at}").replace(ID, id)
        yield (
            one.row.agent, id, run_id, event, seq, time, time, "live", one.row.version, f"T-{at}", None, body,
            next(places), _month(began), bytes(16), bytes(32),
        )  # fmt: skip


def alert_row(log: Log, at: int, rule: str) -> tuple[Any, ...]:
    time = decide.text_of(log.began(at))
    agent, run_id = log.of(at).row.agent, log.run_id(at)
    raised = {
        "alert_id": f"a-{at}", "rule": rule, "severity": "page", "title": "", "agent": agent, "run_id": run_id
    }  # fmt: skip
    return (
        f"a-{at}", f"{time} a", time, "cost-watchdog", agent, run_id, rule, "halted_run",
        msgspec.json.encode(raised).decode(), "~", None, None, "", None, None, 0,
    )  # fmt: skip


def review_row(log: Log, at: int, verdict: str) -> tuple[Any, ...]:
    time = decide.text_of(log.began(at))
    return (log.of(at).row.agent, log.run_id(at), time, time, f"1 {time}", time, "anna", verdict, None)


def queue_row(log: Log, at: int) -> tuple[Any, ...]:
    """A run that was drawn for a review: read within two days, or waiting if it is of the last three."""
    began = log.began(at)
    waits = log.end - began < timedelta(days=3)
    settled_at = None if waits else (began + timedelta(hours=at % 48)).timestamp()
    return (
        log.of(at).row.agent, log.run_id(at), "live", "live", f"T-{at}", 0.2, 0.1, f"{began:%Y-%m-%d}", "0",
        began.timestamp(), "waiting" if waits else "settled", 1, "[]", "1", f"{began:%Y-%m-%d}", 0,
        None if waits else "pass", settled_at,
    )  # fmt: skip


def reading_row(log: Log, at: int) -> tuple[tuple[Any, ...], str]:
    """The row without its words, and what the run adds to the words of the one that it was drawn from."""
    one, began = log.of(at), decide.text_of(log.began(at))
    number = marks.number(began, one.row.agent, log.run_id(at))
    own = [log.word(at), *one.marks, *marks.hours_of(number)]
    for rule in log.rules(at):
        own += [marks.mark("l", rule), marks.mark("l", reading.ANY)]
    if verdict := log.verdict(at):
        own += [marks.mark("j", verdict), marks.mark("j", reading.ANY)]
    return (number, one.row.agent, log.run_id(at), len(one.events), one.tools), " ".join(own)


def _month(at: datetime) -> str:
    return f"{at:%Y-%m}"


# Writing


def build(database: Database, log: Log) -> None:
    """Writes the log into empty tables."""
    newest = range(log.count - log.events_of, log.count)
    places = (place(1, sequence) for sequence in range(1, 2**40))
    sqlite = database.dialect == "sqlite"
    if not sqlite:
        database.write_now(lambda conn: make_partitions(conn, {_month(log.began(at)) for at in newest}))
        database.write_now(lambda conn: conn.exec_driver_sql("DROP INDEX logger_words"))
    _write(database, "logger_runs", store.RUN_COLUMNS, (run_row(log, at) for at in range(log.count)))
    alerts = (alert_row(log, at, rule) for at in range(log.count) for rule in log.rules(at))
    _write(database, "logger_alerts", store.ALERT_COLUMNS, alerts)
    reviews = (review_row(log, at, verdict) for at in range(log.count) if (verdict := log.verdict(at)))
    _write(database, "logger_reviews", store.REVIEW_COLUMNS, reviews)
    events = (row for at in newest for row in event_rows(log, at, places))
    _write(database, "logger_events", tuple(tables.Event.__table__.columns.keys()), events)
    if sqlite:
        _read_into_sqlite(database, log)
    else:
        _read_into_postgres(database, log)
    last = next(places)
    database.write_now(lambda conn: index_store.move_cursor(conn, index_store.INDEX, 0, last))


def build_queue(database: Database, log: Log) -> int:
    """Writes the queue of reviews into its empty table: one run in five was drawn. Returns how many those are."""
    drawn = range(0, log.count, DRAWN)
    table = review_tables.Queued.__table__
    _write(database, table.name, tuple(table.columns.keys()), (queue_row(log, at) for at in drawn))
    return len(drawn)


def _read_into_sqlite(database: Database, log: Log) -> None:
    def rows() -> Iterator[tuple[Any, ...]]:
        for at in range(log.count):
            row, own = reading_row(log, at)
            yield *row, index_store.pack(f"{log.of(at).text} {own}")

    def words() -> Iterator[tuple[Any, ...]]:
        for at in range(log.count):
            (number, *_), own = reading_row(log, at)
            yield number, f"{log.of(at).text} {own}"

    _write(database, "logger_readings", (*_READING_COLUMNS, "text"), rows())
    _write(database, "logger_words", ("rowid", "words"), words())


def _read_into_postgres(database: Database, log: Log) -> None:
    def rows() -> Iterator[tuple[Any, ...]]:
        for at in range(log.count):
            row, own = reading_row(log, at)
            extra = " ".join(f"'{word}'" for word in own.split(" "))
            yield *row, f"{log.of(at).vector} {extra}"

    _write(database, "logger_readings", (*_READING_COLUMNS, "words"), rows())

    def index(conn: Any) -> None:
        conn.exec_driver_sql("SET LOCAL maintenance_work_mem = '1GB'")
        conn.exec_driver_sql("CREATE INDEX logger_words ON logger_readings USING gin (words)")

    database.write_now(index)
    address = database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


def _write(database: Database, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    rows = iter(rows)
    while batch := list(islice(rows, _TRANSACTION)):
        database.write_now(lambda conn, batch=batch: _batch(conn, table, columns, batch))


def _batch(conn: Any, table: str, columns: Sequence[str], rows: list[Sequence[Any]]) -> None:
    raw, names = conn.connection.driver_connection, ", ".join(columns)
    if conn.dialect.name == "sqlite":
        raw.executemany(f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(columns))})", rows)
        return
    with raw.cursor() as cursor, cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
