"""An export of the log, to be checked with nothing but its folder: it is put into a temporary database first."""

import contextlib
import gzip
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy.engine import Connection

from midwatch.errors import MidwatchError
from midwatch.runtime.database import Database, execute_many

from .. import tables
from . import chain_store
from .chain import Block
from .findings import Finding
from .source import Tables

EVENTS, BLOCKS, RUNS, CHECKPOINTS = "events.jsonl.gz", "blocks.jsonl.gz", "runs.jsonl.gz", "checkpoints.jsonl"
ERASURES = "erasures.jsonl.gz"
MANIFEST = "manifest.json"
_EVENT_COLUMNS = tuple(tables.Event.__table__.columns.keys())
_AT_ONCE = 500  # lines

# Without keys: what stands twice in an export is to be named, not refused.
_TABLES = (
    f"CREATE TABLE logger_events ({', '.join(_EVENT_COLUMNS)})",
    f"CREATE TABLE logger_blocks ({', '.join(chain_store.COLUMNS)})",
    "CREATE TABLE logger_runs (agent, run_id, month, events, PRIMARY KEY (agent, run_id))",
    "CREATE TABLE logger_checkpoints (number, at, line)",
    "CREATE TABLE logger_cursors (name, place)",
    "CREATE TABLE logger_late (place, agent, leaf)",
)
_INDEXES = (
    "CREATE INDEX by_place ON logger_events (place)",
    "CREATE INDEX by_run ON logger_events (agent, run_id)",
    "CREATE INDEX by_number ON logger_blocks (agent, number)",
    "CREATE INDEX by_first ON logger_blocks (first_place)",
    "CREATE INDEX checkpoint ON logger_checkpoints (number)",
)


class NoExport(MidwatchError):
    """{folder} is no export of the run log that can be checked: {name} is not in it; make one in JSONL."""


@contextlib.contextmanager
def opened(folder: Path, *, only: str | None = None) -> Iterator[tuple[Tables, list[Finding]]]:
    """The export as a log to verify, and what of it could not be read. Raises NoExport, OSError."""
    for name in (EVENTS, BLOCKS):
        if not (folder / name).is_file():
            raise NoExport(folder=folder, name=name)
    with tempfile.TemporaryDirectory(prefix="midwatch-verify-") as place:
        database = Database(f"sqlite:///{place}/export.db", name="verify")
        try:
            found = database.write_now(lambda conn: _load(conn, folder))
            part = _filter(folder)
            with database.engine.connect() as conn, conn.begin():
                if part.is_part:
                    found += _short(conn)
                log = Tables(conn, only=only or part.agent, has_end=False, is_part=part.is_part)
                log.beside = _beside(folder / ERASURES)
                yield log, found
        finally:
            database.close()


def _beside(path: Path) -> list[Block]:
    """Blocks of erasures that came after the export was made. A line that cannot be read tells nothing."""
    found = []
    with contextlib.suppress(OSError, EOFError, zlib.error):
        for line in _lines(path):
            with contextlib.suppress(msgspec.MsgspecError, ValueError, KeyError, TypeError):
                found.append(chain_store.as_block(_block(line)))
    return found


class _Filter(msgspec.Struct):
    agent: str | None = None
    run_id: str | None = None
    since: str | None = None
    until: str | None = None

    @property
    def is_part(self) -> bool:
        return (self.run_id, self.since, self.until) != (None, None, None)


class _Manifest(msgspec.Struct):
    filter: _Filter = msgspec.field(default_factory=_Filter)


def _filter(folder: Path) -> _Filter:
    """Which part of the log the export says that it is."""
    try:
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=_Manifest).filter
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return _Filter()


def _short(conn: Connection) -> list[Finding]:
    """Runs of which events are missing, by their rows: a chain does not say which run a leaf is of."""
    query = (
        "SELECT r.agent, r.run_id, r.events, count(e.id) FROM logger_runs r LEFT JOIN logger_events e "
        "ON e.agent = r.agent AND e.run_id = r.run_id GROUP BY 1, 2, 3 HAVING count(e.id) < r.events"
    )
    return [
        Finding(
            "missing", f"run {run_id} of {agent} has {events} events by its row, and {there} are there", agent, run_id
        )
        for agent, run_id, events, there in conn.exec_driver_sql(query)
    ]


def _load(conn: Connection, folder: Path) -> list[Finding]:
    for statement in _TABLES:
        conn.exec_driver_sql(statement)
    found: list[Finding] = []
    _fill(conn, folder / EVENTS, "logger_events", _EVENT_COLUMNS, _event, found)
    _fill(conn, folder / BLOCKS, "logger_blocks", chain_store.COLUMNS, _block, found)
    if (folder / RUNS).is_file():
        _fill(conn, folder / RUNS, "logger_runs", ("agent", "run_id", "month", "events"), _run, found)
    if (folder / CHECKPOINTS).is_file():
        _fill(conn, folder / CHECKPOINTS, "logger_checkpoints", ("number", "at", "line"), _checkpoint, found)
    for statement in _INDEXES:
        conn.exec_driver_sql(statement)
    return found


def _fill(
    conn: Connection, path: Path, table: str, columns: tuple[str, ...], row: Callable[[bytes], list[Any]],
    found: list[Finding],
) -> None:  # fmt: skip
    raw: Any = conn.connection.driver_connection
    rows: list[list[Any]] = []
    number = 0

    def flush() -> None:
        execute_many(raw, f"INSERT OR IGNORE INTO {table} ({', '.join(columns)})", "", columns, rows)
        rows.clear()

    try:
        for number, line in enumerate(_lines(path), start=1):
            try:
                rows.append(row(line))
            except (msgspec.MsgspecError, ValueError, KeyError, TypeError) as error:
                found.append(Finding("altered", f"line {number} of {path.name} cannot be read: {error}"))
            if len(rows) >= _AT_ONCE:
                flush()
    except (OSError, EOFError, zlib.error) as error:
        found.append(Finding("altered", f"{path.name} is damaged after line {number}: {error}"))
    flush()


def _lines(path: Path) -> Iterable[bytes]:
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        yield from file


def _event(line: bytes) -> list[Any]:
    read = msgspec.json.decode(line, type=dict[str, Any])
    return [_unhex(read[name]) if name in ("salt", "leaf") else read[name] for name in _EVENT_COLUMNS]


def _block(line: bytes) -> list[Any]:
    read = msgspec.json.decode(line, type=dict[str, Any])
    binary = ("leaves", "root", "previous", "head")
    return [_unhex(read[name]) if name in binary else read[name] for name in chain_store.COLUMNS]


def _run(line: bytes) -> list[Any]:
    read = msgspec.json.decode(line, type=dict[str, Any])
    return [read["agent"], read["run_id"], read["month"], read["events"]]


def _checkpoint(line: bytes) -> list[Any]:
    read = msgspec.json.decode(line, type=dict[str, Any])
    return [int(read["number"]), str(read["at"]), line.decode().strip()]


def _unhex(value: str | None) -> bytes | None:
    return None if value is None else bytes.fromhex(value)
