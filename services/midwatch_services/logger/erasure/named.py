"""Whom and which tickets the runs of an export name, and since when. It stands in a temporary file of SQLite, which has
no name, so that memory does not grow with the export."""

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

from .match import RunKey

# One transaction without a journal: nothing of it is ever taken back.
_TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA cache_size = -32768;
BEGIN;
CREATE TABLE runs (agent TEXT, run_id TEXT, customer TEXT, at TEXT, PRIMARY KEY (agent, run_id)) WITHOUT ROWID;
CREATE TABLE tickets (
    agent TEXT, run_id TEXT, ticket TEXT, at TEXT, PRIMARY KEY (agent, run_id, ticket)
) WITHOUT ROWID;
CREATE INDEX by_customer ON runs (customer) WHERE customer IS NOT NULL;
CREATE INDEX by_ticket ON tickets (ticket);
"""
_TICKET = "INSERT INTO tickets VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET at = min(at, excluded.at)"
# What names the customer is the event that a run starts with: its row says only when the log heard of the run last.
_SINCE = "UPDATE runs SET at = min(at, ?) WHERE agent = ? AND run_id = ?"
_OF_TICKET = "SELECT agent, run_id FROM tickets WHERE ticket = ? AND at <= ?"
_OF_CUSTOMER = "SELECT agent, run_id FROM runs WHERE customer = ? AND at <= ?"
_HANDED = (
    "SELECT t.agent, t.run_id FROM tickets t JOIN runs r ON r.agent = t.agent AND r.run_id = t.run_id "
    "WHERE t.ticket = ? AND t.at <= ? AND r.customer IS NULL"
)

Row = Mapping[str, Any]


class Named:
    """Filled with the runs first, then with the events. What says no time counts as from before every erasure."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript(_TABLES)

    def __enter__(self) -> "Named":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._db.close()

    def add_runs(self, rows: Collection[Row]) -> None:
        """Takes runs as the log's table has them."""
        some = [(*_key(row), row["customer"], row["stored_at"] or "") for row in rows if all(_key(row))]
        self._db.executemany("INSERT OR IGNORE INTO runs VALUES (?, ?, ?, ?)", some)
        self._add_tickets(rows)

    def add_events(self, rows: Collection[Row]) -> None:
        """Takes events as the log's table has them."""
        started = [(row["stored_at"] or "", *_key(row)) for row in rows if row["event"] == "started"]
        self._db.executemany(_SINCE, started)
        self._add_tickets(rows)

    def _add_tickets(self, rows: Iterable[Row]) -> None:
        some = [(*_key(row), row["ticket"], row["stored_at"] or "") for row in rows if row["ticket"] and all(_key(row))]
        self._db.executemany(_TICKET, some)

    def customers(self) -> Iterator[str]:
        """Every customer once."""
        return self._texts("SELECT DISTINCT customer FROM runs WHERE customer IS NOT NULL")

    def tickets(self) -> Iterator[str]:
        """Every ticket once."""
        return self._texts("SELECT DISTINCT ticket FROM tickets")

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Every customer with each ticket of a run of theirs."""
        query = "SELECT DISTINCT customer, ticket FROM runs NATURAL JOIN (SELECT agent, run_id, ticket FROM tickets)"
        return iter(self._db.execute(f"{query} WHERE customer IS NOT NULL"))

    def reached(self, customers: Collection[str], tickets: Collection[str], asked_at: str) -> set[RunKey]:
        """The runs that an erasure of these would have found in a log that had all of them: see `store.find`."""
        found: set[RunKey] = set()
        for query, names in ((_OF_TICKET, tickets), (_OF_CUSTOMER, customers)):
            for name in names:
                found |= set(self._db.execute(query, (name, asked_at)))
        if customers:
            for ticket in {ticket for run in found for ticket in self.tickets_of(run, asked_at)}:
                found |= set(self._db.execute(_HANDED, (ticket, asked_at)))
        return found

    def tickets_of(self, run: RunKey, upto: str | None = None) -> set[str]:
        """The tickets that a run names, or had named by then."""
        where = "agent = ? AND run_id = ?" + ("" if upto is None else " AND at <= ?")
        given = run if upto is None else (*run, upto)
        return set(self._texts(f"SELECT ticket FROM tickets WHERE {where}", given))  # noqa: S608

    def customer_of(self, run: RunKey) -> str | None:
        """Whom a run names."""
        return next(self._texts("SELECT customer FROM runs WHERE agent = ? AND run_id = ?", run), None)

    def _texts(self, query: str, given: tuple[str, ...] = ()) -> Iterator[str]:
        return (row[0] for row in self._db.execute(query, given))


def _key(row: Row) -> RunKey:
    return row["agent"], row["run_id"]
