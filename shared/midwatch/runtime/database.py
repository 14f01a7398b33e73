"""A service's database: SQLite in WAL, or PostgreSQL. One writer at a time on both, on a thread of its own."""

import asyncio
import contextlib
import sqlite3
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from importlib import resources
from operator import itemgetter
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from midwatch.errors import MidwatchError, Temporary

from .database_reading import Limits, existing, only_read
from .database_upgrade import upgrade

T = TypeVar("T")

BUSY_SECONDS = 5.0
_WRITE = "midwatch_write"  # execution option of a connection that is about to write
_CHUNKS = (1000, 256, 32, 4, 1)  # rows in one INSERT: few shapes, so that SQLite's prepared statements are found again
_SMALL = 16 * 1024 * 1024  # bytes of an SQLite file that is rewritten whole when it is scrubbed
_BRIEFLY = 250  # milliseconds for which emptying the log waits for a reader
_IN_JSON = {str, int, type(None)}  # what PostgreSQL makes of JSON just what it makes of a copied text
_VARIABLES = 32_000  # of one statement; SQLite's limit is 32,766

# Events take 2 KB and more: on SQLite's usual pages of 4 KB half of each would be empty, and twice as much be synced.
_OF_A_NEW_FILE = ("page_size=16384", "auto_vacuum=INCREMENTAL")
_PRAGMAS = (
    "journal_mode=WAL", "synchronous=FULL", "wal_autocheckpoint=2000",
    "cache_size=-65536", "foreign_keys=ON", "secure_delete=ON",
)  # fmt: skip

# SQLite's primary result codes that are the statement's fault; all others are the file's or the disk's, and may pass.
_OURS = {
    sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_RANGE, sqlite3.SQLITE_MISUSE,
}  # fmt: skip

# PostgreSQL by SQLSTATE, where psycopg's own classes say otherwise. The database's state, whatever the row: read-only,
# a right that was taken away, a session that was ended, a damaged page.
_PASSING = {"25006", "42501", "25P03", "25P04", "XX001", "XX002"}
# The row's fault: more than an index or a statement can hold. It would come back for ever and stop the line.
_LIMITS = "54"


class NoDatabase(MidwatchError):
    """There is no database at {where} yet: start the services with `midwatch up`, or set MIDWATCH_DATABASE_URL."""


class Database:
    """Transactions for one service. `name` is the service's: on PostgreSQL its instances write one after another."""

    def __init__(self, url: str, *, name: str = "midwatch", must_exist: bool = False, writes: bool = False) -> None:
        """Opens nothing yet. With `must_exist` it is another's, to be read unless it `writes`: raises NoDatabase where
        the SQLite file is not there; one that is read is opened anew once another one stands in its place."""
        parsed = sa.make_url(url)
        self.dialect = parsed.get_backend_name()
        if self.dialect not in ("sqlite", "postgresql"):
            raise MidwatchError(f"{self.dialect!r} is no database of ours: use sqlite:/// or postgresql://")
        self.where = parsed.render_as_string(hide_password=True)
        self._anothers: Path | None = None  # an SQLite file that is read, and never made
        if self.dialect == "sqlite" and parsed.database:
            path = Path(parsed.database)
            if must_exist:
                _look(path)
                self._anothers = None if writes else path
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
        self._limits = Limits()
        self._lock_key = zlib.crc32(f"midwatch:{name}".encode())
        self.engine = self._engine(parsed)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix=f"{name}-writer")
        self._readers = ThreadPoolExecutor(2, thread_name_prefix=f"{name}-reader")

    def _engine(self, url: sa.URL) -> Engine:
        if self.dialect == "postgresql":
            engine = sa.create_engine(url, hide_parameters=True, pool_size=4, connect_args={"connect_timeout": 5})
            sa.event.listen(engine, "connect", _prepare_postgres)
            return engine
        engine = sa.create_engine(
            existing(url, self._anothers) if self._anothers else url,
            hide_parameters=True,
            poolclass=sa.QueuePool,
            connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False, "isolation_level": None},
        )
        if self._anothers:
            only_read(engine, self._anothers)
        else:
            sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine

    async def write(self, work: Callable[[Connection], T], *, lock: bool = True) -> T:
        """Runs `work` in one transaction on the writer's thread and commits it. Without `lock`, `work` has to
        call `self.lock` before it reads what it will write.

        Raises Temporary where the database is locked, full, read-only, or lost; the next call connects anew.
        """
        return await asyncio.get_running_loop().run_in_executor(self._writer, partial(self.write_now, work, lock=lock))

    async def read(self, work: Callable[[Connection], T], *, within: float | None = None) -> T:
        """Runs `work`, which only reads, on another thread. Raises Temporary as `write` does, and TimeoutError where a
        query was ended because the thread had worked for `within` seconds."""
        read = partial(self.read_now, work, within=within)
        return await asyncio.get_running_loop().run_in_executor(self._readers, read)

    def lock(self, conn: Connection) -> None:
        """PostgreSQL: waits for the service's other instances, and has them wait until this transaction has ended. On
        SQLite a transaction that writes has done so since it began."""
        if self.dialect == "postgresql":
            conn.exec_driver_sql(f"SELECT pg_advisory_xact_lock({self._lock_key})")

    def write_now(self, work: Callable[[Connection], T], *, lock: bool = True) -> T:
        """`write` for a caller that may block; not for an event loop."""
        try:
            with self.engine.connect().execution_options(**{_WRITE: True}) as conn, conn.begin():
                if lock:
                    self.lock(conn)
                return work(conn)
        except Exception as error:
            self._judge(error)

    def read_now(self, work: Callable[[Connection], T], *, within: float | None = None) -> T:
        """`read` for a caller that may block."""
        if self._anothers:
            _look(self._anothers)
        try:
            with self.engine.connect() as conn, conn.begin(), self._limits.on(conn, within):
                return work(conn)
        except Exception as error:
            self._judge(error)

    def _judge(self, error: Exception) -> NoReturn:
        """Raises Temporary where `error` is the database's fault and may pass, else `error` itself."""
        if isinstance(error, Temporary):
            raise error
        original = error.orig if isinstance(error, sa.exc.DBAPIError) and error.orig else error
        if not _may_pass(original):
            raise error
        self.engine.dispose()  # a broken connection must not come back from the pool
        first = str(original).strip().splitlines()
        why = first[0] if first else repr(original)
        raise Temporary(f"the database at {self.where} does not answer: {why}") from error

    async def scrub(self, tables: Sequence[str]) -> None:
        """Has the files of the database forget what was deleted or overwritten in `tables`. On PostgreSQL that is a
        VACUUM; SQLite overwrites what it deletes, and here also what its log still holds.

        Raises Temporary where a reader stands in the way.
        """
        await asyncio.get_running_loop().run_in_executor(self._writer, self.scrub_now, tables)

    def scrub_now(self, tables: Sequence[str]) -> None:
        """`scrub` for a caller that may block."""
        try:
            with contextlib.closing(self.engine.raw_connection()) as pooled:
                raw: Any = pooled.driver_connection
                if self.dialect == "sqlite":
                    _scrub_sqlite(raw)
                else:
                    _vacuum(raw, tables)
        except Exception as error:
            self._judge(error)

    async def ping(self) -> None:
        """One round trip. Raises Temporary where the database does not answer."""
        await self.read(lambda conn: conn.exec_driver_sql("SELECT 1").scalar())

    def close(self) -> None:
        """Waits for the transaction under way, ends what is read under a limit, and closes every connection."""
        self._writer.shutdown(wait=True)
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._limits.end()
        self._readers.shutdown(wait=True)
        self.engine.dispose()


def _look(file: Path) -> None:
    if not file.is_file():
        raise NoDatabase(where=str(file))


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # Of a file that is there they would change nothing, and yet wait for whoever writes.
    is_new = connection.execute("PRAGMA page_count").fetchone()[0] == 0
    for pragma in (*_OF_A_NEW_FILE, *_PRAGMAS) if is_new else _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(conn: Connection) -> None:
    # A write lock taken at the first INSERT of a transaction that has read cannot wait for another writer: take it now.
    conn.exec_driver_sql("BEGIN IMMEDIATE" if conn.get_execution_options().get(_WRITE) else "BEGIN")


def _scrub_sqlite(raw: Any) -> None:
    if raw.execute("PRAGMA page_count").fetchone()[0] * raw.execute("PRAGMA page_size").fetchone()[0] <= _SMALL:
        raw.execute("VACUUM").close()  # what an earlier release deleted was not overwritten
    raw.execute(f"PRAGMA busy_timeout={_BRIEFLY}").close()  # what waits for the writer is more urgent
    try:
        busy, _, _ = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        raw.execute(f"PRAGMA busy_timeout={int(BUSY_SECONDS * 1000)}").close()
    if busy:
        raise Temporary("the database's log cannot be emptied: somebody reads")


def _vacuum(raw: Any, tables: Sequence[str]) -> None:
    before, raw.autocommit = raw.autocommit, True
    try:
        for table in tables:
            raw.execute(f"VACUUM {table}")
    finally:
        raw.autocommit = before


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", None)
        return code is not None and code & 0xFF not in _OURS
    module = type(error).__module__
    if module.startswith("psycopg"):
        import psycopg

        state = getattr(error, "sqlstate", None) or ""
        if state.startswith(_LIMITS):
            return False
        return state in _PASSING or isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return isinstance(error, (sa.exc.TimeoutError, sa.exc.ResourceClosedError))


def _without_nul(value: Any) -> Any:
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


def _rows_without_nul(rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
    """The rows as PostgreSQL can hold them; the same ones where it can."""
    if any("\0" in value for row in rows for value in row if value.__class__ is str):
        return [[_without_nul(value) for value in row] for row in rows]
    return rows


@cache
def _dumper() -> Any:
    from psycopg.types.string import StrDumperUnknown

    class Dumper(StrDumperUnknown):
        def dump(self, obj: str) -> Any:
            return super().dump(_without_nul(obj))

    return Dumper


def _prepare_postgres(raw: Any, _: Any) -> None:
    # PostgreSQL's text holds no NUL, which anybody may write: one such message must not undo what else is saved.
    raw.adapters.register_dumper(str, _dumper())


def insert_new(
    conn: Connection, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], key: Sequence[str]
) -> list[int]:
    """Inserts the rows whose `key` columns are not there yet and returns their places in `rows`, in order.

    Of rows with the same key the first counts. On SQLite the table must have a rowid.
    """
    where = [columns.index(name) for name in key]
    key_of = itemgetter(*where) if len(where) > 1 else lambda row: (row[where[0]],)
    places: dict[tuple[Any, ...], int] = {}
    for place, row in enumerate(rows):
        places.setdefault(key_of(row), place)
    firsts = rows if len(places) == len(rows) else [rows[place] for place in places.values()]
    raw = conn.connection.driver_connection
    if conn.dialect.name == "sqlite":
        fresh = _insert_sqlite(raw, table, columns, firsts, key)
    else:
        from psycopg import DataError

        try:
            fresh = _insert_postgres(raw, table, columns, sorted(firsts, key=key_of), key)
        except DataError:
            # psycopg looks for NUL itself, and there hardly ever is one: to look beforehand would be to look twice.
            if (clean := _rows_without_nul(rows)) is rows:
                raise
            return insert_new(conn, table, columns, clean, key)
    return list(places.values()) if fresh is None else sorted(places[tuple(identity)] for identity in fresh)


def _insert_sqlite(
    raw: Any, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], key: Sequence[str]
) -> list[tuple[Any, ...]] | None:
    """Keys of the rows that were new, or None for all of them."""
    last = raw.execute(f"SELECT coalesce(max(rowid), 0) FROM {table}").fetchone()[0]  # noqa: S608
    before = raw.total_changes
    execute_many(raw, f"INSERT INTO {table} ({', '.join(columns)})", "ON CONFLICT DO NOTHING", columns, rows)
    if raw.total_changes - before == len(rows):
        return None
    return list(raw.execute(f"SELECT {', '.join(key)} FROM {table} WHERE rowid > ?", (last,)))  # noqa: S608


def execute_many(raw: Any, head: str, tail: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """SQLite: many rows a statement. `executemany` takes and drops Python's global lock once a row, so that a busy
    event loop stalls it; a statement of many rows runs without the lock."""
    one = f"({', '.join('?' * len(columns))})"
    start = 0
    for size in _CHUNKS:
        if size * len(columns) > _VARIABLES:
            continue
        sql = f"{head} VALUES {', '.join([one] * size)} {tail}"
        while len(rows) - start >= size:
            raw.execute(sql, [value for row in rows[start : start + size] for value in row])
            start += size


def _insert_postgres(
    raw: Any, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], key: Sequence[str]
) -> list[tuple[Any, ...]] | None:
    """Keys of the rows that were new, or None for all of them. The rows are in the order of their keys: two instances
    with the same ones then wait for one another and never lock up."""
    from psycopg.errors import UniqueViolation

    with raw.cursor() as cursor:
        try:
            with raw.transaction():  # where none is known, as is usual, this is twice as fast
                _copy(cursor, table, columns, rows)
            return None
        except UniqueViolation:
            names = ", ".join(key)
            select = _stage(cursor, table, columns, rows)
            cursor.execute(f"{select} ORDER BY {names} ON CONFLICT DO NOTHING RETURNING {names}")
            return list(cursor.fetchall())


def upsert(
    conn: Connection, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], key: Sequence[str]
) -> None:
    """Inserts the rows, or puts them in the place of those with the same `key`; no key may stand in two of them."""
    others = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in key)
    tail = f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {others}"
    raw: Any = conn.connection.driver_connection
    if conn.dialect.name == "sqlite":
        execute_many(raw, f"INSERT INTO {table} ({', '.join(columns)})", tail, columns, rows)
        return
    rows, names = _rows_without_nul(rows), ", ".join(columns)
    with raw.cursor() as cursor:
        if {value.__class__ for row in rows for value in row} <= _IN_JSON:
            given = msgspec.json.encode([dict(zip(columns, row, strict=True)) for row in rows]).decode()
            select = f"SELECT {names} FROM json_populate_recordset(NULL::{table}, %s)"  # noqa: S608
            cursor.execute(f"INSERT INTO {table} ({names}) {select} {tail}", (given,))  # one statement instead of four
        else:
            cursor.execute(f"{_stage(cursor, table, columns, rows)} {tail}")


def _stage(cursor: Any, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """PostgreSQL: copies the rows, which hold no NUL, beside the table and returns the statement that inserts them,
    without its end."""
    names, staging = ", ".join(columns), f"new_{table}"
    cursor.execute(f"CREATE TEMP TABLE IF NOT EXISTS {staging} (LIKE {table} INCLUDING DEFAULTS) ON COMMIT DELETE ROWS")
    cursor.execute(f"DELETE FROM {staging}")  # noqa: S608
    _copy(cursor, staging, columns, rows)
    return f"INSERT INTO {table} ({names}) SELECT {names} FROM {staging}"  # noqa: S608


def _copy(cursor: Any, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    from psycopg.types.string import StrDumperUnknown

    cursor.adapters.register_dumper(str, StrDumperUnknown)  # psycopg's own, in C: ours would cost as much as the rest
    with cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def migrate(url: str, service: str) -> None:
    """Brings the tables of a service up to date. Raises NewerDatabase, and Temporary where the database does not
    answer."""
    from alembic.config import Config

    folder = service.replace("-", "_")
    config = Config()
    config.set_main_option("script_location", str(resources.files("midwatch.runtime") / "migrations"))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", str(resources.files(f"midwatch_services.{folder}") / "migrations"))
    config.attributes["version_table"] = f"alembic_version_{folder}"
    database = Database(url, name=f"{service}-migrations")
    try:
        database.write_now(partial(upgrade, config=config, service=service, where=database.where))
    finally:
        database.close()
