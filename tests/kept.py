"""A log of runs of different ages, for the tests of what is kept, exported and imported."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from logged import alert, received
from midwatch.contracts import codec, subjects
from midwatch.contracts.envelope import Envelope
from midwatch.contracts.governance import HoldLifted, HoldPlaced
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.delivery import Received
from midwatch_services.logger import store
from midwatch_services.logger.evidence import chain, chain_store
from midwatch_services.logger.keeping.hold_store import save_hold

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
_place = 0


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def whole_run(run_id: str, days: float, *, agent: str = "desk", events: int = 3, **fields: Any) -> list[Received]:
    """A run that was stored so many days ago, each event at the next place."""
    at = ago(days)
    made = [received("started", run_id=run_id, agent=agent, input="Where is it?", at=at, stored_at=at, **fields)]
    made += [
        received("said", run_id=run_id, agent=agent, seq=seq, by="agent", text=f"word {seq}", at=at, stored_at=at)
        for seq in range(1, events)
    ]
    return [placed(one) for one in made]


def placed(one: Received) -> Received:
    """The event at the next place of the stream."""
    global _place
    _place += 1
    return replace(one, stream_seq=_place)


def save(database: Database, batch: Sequence[Received]) -> None:
    database.write_now(lambda conn: store.save(conn, batch))


def save_alert_of(database: Database, run_id: str | None, days: float, *, over: bool = True, **fields: Any) -> None:
    """An alert that was raised so many days ago."""
    alert_id = f"alert-{run_id or days}"
    raised = alert("raised", alert_id=alert_id, at=ago(days), run_id=run_id, **fields)
    resolved = alert("resolved", alert_id=alert_id, at=ago(days), reason="it ended")

    def work(conn: Connection) -> None:
        for event in [raised, *([resolved] if over else [])]:
            store.save_alert(conn, event)

    database.write_now(work)


def place_hold(database: Database, hold_id: str = "hold-1", **what: Any) -> None:
    data = HoldPlaced(hold_id=hold_id, by="sam", reason="a claim", **what)
    event: Envelope[Any] = codec.envelope("hold", "placed", data, source="/people/sam", time=ago(1))
    database.write_now(lambda conn: save_hold(conn, event))


def lift_hold(database: Database, hold_id: str = "hold-1") -> None:
    event: Envelope[Any] = codec.envelope(
        "hold", "lifted", HoldLifted(hold_id=hold_id, by="sam", reason="settled"), source="/people/sam", time=ago(0)
    )
    database.write_now(lambda conn: save_hold(conn, event))


def run_ids(database: Database) -> list[str]:
    return sorted(one["run_id"] for one in database.read_now(store.read_runs))


def count(database: Database, table: str) -> int:
    return int(database.read_now(lambda conn: conn.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar()) or 0)


def alerts(database: Database) -> list[str]:
    return sorted(one["alert_id"] for one in database.read_now(store.read_alerts))


@contextmanager
def empty_log(url: str) -> Iterator[Database]:
    """The logger's tables in a database, with nothing in them."""
    url = url.replace("postgresql://", "postgresql+psycopg://")
    migrate(url, subjects.LOGGER)
    database = Database(url, name=subjects.LOGGER)
    try:
        yield database
    finally:
        database.close()


def sqlite_url(folder: Path, name: str = "logger") -> str:
    return f"sqlite:///{folder}/{name}.db"


def seal(log: Database) -> None:
    """Chains every leaf that is in no chain, and puts the sequencer behind it."""

    def work(conn: Any) -> None:
        after = chain_store.cursor(conn, chain_store.SEQUENCER)
        query = "SELECT agent, place, leaf FROM logger_events WHERE place > :after ORDER BY place"
        rows = conn.execute(sa.text(query), {"after": after}).all()
        for agent in sorted({row[0] for row in rows}):
            leaves = chain.pack((row[1], bytes(row[2])) for row in rows if row[0] == agent)
            chain_store.append_parts(conn, chain.cut(agent, leaves), NOW)
        if rows:
            chain_store.move_cursor(conn, chain_store.SEQUENCER, after, rows[-1][1])

    log.write_now(work)


def shown(log: Database) -> list[dict[str, Any]]:
    """All that `runs --json` and `show --json` say."""

    def work(conn: Any) -> list[dict[str, Any]]:
        return [
            {
                **run, "event_list": store.read_events(conn, run["agent"], run["run_id"]),
                "alert_list": store.read_alerts(conn, agent=run["agent"], run_id=run["run_id"]),
            }
            for run in store.read_runs(conn)
        ]  # fmt: skip

    return log.read_now(work)


def table(log: Database, name: str, order: str) -> list[tuple[Any, ...]]:
    query = f"SELECT * FROM {name} ORDER BY {order}"
    return [
        tuple(bytes(value) if isinstance(value, memoryview) else value for value in row)
        for row in log.read_now(lambda conn: conn.exec_driver_sql(query).all())
    ]
