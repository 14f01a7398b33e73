"""Giving space back to the disk while the logger goes on writing."""

import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from midwatch.errors import MidwatchError
from midwatch.runtime.database import Database

_PAGES = 64  # of 16 KiB: what one transaction moves
_REST = 4.0  # seconds for each second of moving
_INCREMENTAL = 2  # SQLite's word for it


class NotIncremental(MidwatchError):
    """The database at {where} was made by an earlier release and cannot give space back bit by bit: run `midwatch keep
    vacuum --full` once, which keeps the logger waiting until it is done; events wait in the stream."""


class NotForPostgres(MidwatchError):
    """PostgreSQL gives a month's space back when the month is dropped: --full is for SQLite."""


def vacuum(database: Database, *, told: Callable[[int, int], None] = lambda done, total: None) -> int:
    """Gives free space back and returns how many bytes; on PostgreSQL to the table itself. Raises NotIncremental."""
    if database.dialect == "postgresql":
        _vacuum_postgres(database)
        return 0
    size = database.read_now(_of("page_size"))
    if database.read_now(_of("auto_vacuum")) != _INCREMENTAL:
        raise NotIncremental(where=database.where)
    total = left = database.read_now(_of("freelist_count"))
    while left:
        began = time.monotonic()
        left = database.write_now(_step)
        took = time.monotonic() - began
        told(max(0, total - left), total)
        time.sleep(took * _REST)
    with database.engine.connect() as conn:  # the file itself shrinks when the log is written back into it
        conn.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    return total * size


def vacuum_full(database: Database) -> int:
    """SQLite: writes the file anew, so that it can give space back bit by bit from now on; returns the bytes freed."""
    if database.dialect == "postgresql":
        raise NotForPostgres
    before = database.read_now(_bytes)
    with database.engine.connect() as conn:
        raw: Any = conn.connection.driver_connection
        raw.execute("PRAGMA auto_vacuum=INCREMENTAL").close()
        raw.execute("VACUUM").close()
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
    return before - database.read_now(_bytes)


def _step(conn: Connection) -> int:
    raw: Any = conn.connection.driver_connection
    raw.execute(f"PRAGMA incremental_vacuum({_PAGES})").fetchall()  # a page each time that a row is asked for
    return _of("freelist_count")(conn)


def _of(pragma: str) -> Callable[[Connection], int]:
    return lambda conn: int(conn.exec_driver_sql(f"PRAGMA {pragma}").scalar() or 0)


def _bytes(conn: Connection) -> int:
    return _of("page_count")(conn) * _of("page_size")(conn)


def _vacuum_postgres(database: Database) -> None:
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        found = conn.execute(sa.text("SELECT tablename FROM pg_tables WHERE tablename LIKE 'logger\\_%' ORDER BY 1"))
        for table in found.scalars().all():
            conn.exec_driver_sql(f"VACUUM (ANALYZE) {table}")
