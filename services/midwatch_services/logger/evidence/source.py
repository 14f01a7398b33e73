"""A log to verify, read from its tables: in a database, or in the temporary one that an export was put into."""

from collections.abc import Collection, Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from midwatch.contracts.governance import EvidenceCheckpointed as Checkpoint

from .. import tables
from . import chain_store, checkpoint_store
from .chain import Block
from .record import Record, examine

EVERYWHERE = 2**63 - 1
_COLUMNS = tuple(tables.Event.__table__.columns.keys())
_TEXTS = tuple(column.name for column in tables.Event.__table__.columns if isinstance(column.type, sa.Text))
_NAMES = (*_COLUMNS, "run_month")


class Tables:
    """The log in `conn`, which must see one state of it for as long as this is read: `snapshot` makes it so."""

    def __init__(
        self, conn: Connection, *, only: str | None = None, has_end: bool = True, is_part: bool = False
    ) -> None:
        self._conn = conn
        self.is_part = is_part
        self.only, self.first, self.last = only, 0, EVERYWHERE
        self.beside: Collection[Block] = ()
        self.cursor = chain_store.cursor(conn, chain_store.SEQUENCER) if has_end else None
        self.late: Collection[tuple[str, int]] = {
            (row[0], row[1]) for row in conn.execute(sa.text("SELECT agent, place FROM logger_late"))
        }

    def within(self, since: str | None, until: str | None) -> None:
        """Looks only at what was stored between two times, as the log writes times."""
        if since is not None:
            self.first = place_at(self._conn, since)
        if until is not None:
            self.last = place_at(self._conn, until) - 1

    def agents(self) -> list[str]:
        """Those that have a chain."""
        found = chain_store.agents(self._conn)
        return [agent for agent in found if self.only in (None, agent)]

    def blocks(self, agent: str) -> Iterator[Block]:
        """A chain in order."""
        return chain_store.blocks(self._conn, agent)

    def blocks_by_place(self) -> Iterator[Block]:
        """Blocks of events by their first place, those that have any of the places."""
        for block in chain_store.blocks_by_place(self._conn, self.only):
            if block.last_place >= self.first and block.first_place <= self.last:
                yield block

    def head(self, agent: str, number: int) -> bytes | None:
        """The head of one block."""
        query = sa.text("SELECT head FROM logger_blocks WHERE agent = :agent AND number = :number")
        found = self._conn.execute(query, {"agent": agent, "number": number}).scalar()
        return bytes(found) if isinstance(found, (bytes, memoryview)) else None

    def records(self) -> Iterator[Record]:
        """The events by place."""
        given = {"first": self.first, "last": self.last} | ({"only": self.only} if self.only else {})
        mine = " AND e.agent = :only" if self.only else ""
        inside = "" if (self.first, self.last) == (0, EVERYWHERE) else " AND e.place >= :first AND e.place <= :last"
        query = sa.text(f"{select(self._conn)} WHERE 1 = 1{inside}{mine} ORDER BY e.place")
        with self._conn.execute(query, given, execution_options={"yield_per": 500}) as found:
            for row in found:
                yield examine(row_of(row))

    def count(self) -> int:
        """How many records there are, about."""
        return int(self._conn.execute(sa.text("SELECT count(*) FROM logger_events")).scalar_one())

    def checkpoints(self) -> Iterator[Checkpoint | None]:
        """Those that the log has, in order."""
        return checkpoint_store.each(self._conn)

    def checkpoint(self, number: int) -> Checkpoint | None:
        """One of them."""
        return checkpoint_store.get(self._conn, number)


def snapshot(conn: Connection) -> None:
    """To be called first in a transaction: all that it reads is of one moment. SQLite's always is."""
    if conn.dialect.name == "postgresql":
        conn.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")


def select(conn: Connection) -> str:
    """SELECT … FROM the events `e`, as `record.examine` takes them."""
    # As bytes: what was flipped need not be text any more, and must be named, not stumbled over.
    sqlite = conn.dialect.name == "sqlite"
    columns = [f"CAST(e.{name} AS BLOB)" if sqlite and name in _TEXTS else f"e.{name}" for name in _COLUMNS]
    month = "CAST(r.month AS BLOB)" if sqlite else "r.month"
    return (
        f"SELECT {', '.join(columns)}, {month} FROM logger_events e "  # noqa: S608
        "LEFT JOIN logger_runs r ON r.agent = e.agent AND r.run_id = e.run_id"
    )


def row_of(row: Any) -> dict[str, Any]:
    """A row of `select` by its names."""
    return dict(zip(_NAMES, row, strict=True))


def place_at(conn: Connection, stored_at: str) -> int:
    """The least place of an event stored at or after a time: places and the server's clock go up together."""
    query = sa.text("SELECT place, stored_at FROM logger_events WHERE place >= :at ORDER BY place LIMIT 1")
    low, high = 0, EVERYWHERE
    while low < high:
        middle = (low + high) // 2
        row = conn.execute(query, {"at": middle}).first()
        if row is None or row[1] >= stored_at:
            high = middle
        else:
            low = row[0] + 1
    return low
