"""An export: one moment of the log, written to a folder that has its name only once it is whole."""

import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from midwatch.contracts.envelope import new_id
from midwatch.errors import MidwatchError
from midwatch.runtime import faults
from midwatch.runtime.database import Database

from .. import tables
from ..decide import text_of
from ..keeping.export_store import finish_export, record_export
from .files import LineFile, ParquetFile, arrow
from .layout import CHECKPOINTS, MANIFEST, TABLES, File, Filter, Format, Manifest, file_of

Told = Callable[[int, int], None]
_STEP = 500  # rows that are fetched, and told of, at a time

_RUNS = """
    (:agent IS NULL OR r.agent = :agent) AND (:run_id IS NULL OR r.run_id = :run_id)
    AND (:since IS NULL OR r.first_at >= :since) AND (:until IS NULL OR r.first_at < :until)
"""
_OF_THEM = f"SELECT 1 FROM logger_runs r WHERE r.agent = {{0}}.agent AND r.run_id = {{0}}.run_id AND {_RUNS}"  # noqa: S608
# What is of no run that the log has: alerts of the agent itself, or of a run that came never.
_OF_NONE = """
    :run_id IS NULL AND (:agent IS NULL OR a.agent = :agent) AND (:since IS NULL OR a.raised_at >= :since)
    AND (:until IS NULL OR a.raised_at < :until)
    AND NOT EXISTS (SELECT 1 FROM logger_runs n WHERE n.agent = a.agent AND n.run_id = a.run_id)
"""
_WHERE = {
    # In order of place, as the chains are: so an export is checked in one reading.
    "events": ("logger_events e", f"EXISTS ({_OF_THEM.format('e')})", "e.place, e.agent, e.id"),
    "runs": ("logger_runs r", _RUNS, "r.agent, r.month, r.first_at, r.run_id"),
    "alerts": ("logger_alerts a", f"EXISTS ({_OF_THEM.format('a')}) OR ({_OF_NONE})", "a.alert_id"),
    "blocks": (
        "logger_blocks b",
        f"EXISTS (SELECT 1 FROM logger_runs r WHERE r.agent = b.agent AND {_RUNS}) "  # noqa: S608
        "OR (:run_id IS NULL AND b.agent = :agent)",
        "b.agent, b.number",
    ),
}  # fmt: skip
_MODELS: dict[str, sa.Table] = {
    "events": tables.Event.__table__, "runs": tables.Run.__table__, "alerts": tables.Alert.__table__,
    "blocks": tables.Block.__table__,
}  # fmt: skip
_LEADING = {"events": "e", "runs": "r", "alerts": "a", "blocks": "b"}


class FolderInUse(MidwatchError):
    """{folder} is there already and holds something: name a folder that is not there."""


def export(
    database: Database, folder: Path, wanted: Filter, format: Format, *, by: str, now: datetime,
    told: Told = lambda done, total: None,
) -> Manifest:  # fmt: skip
    """Writes what is wanted to `folder`, and has the log remember it. Raises FolderInUse, NoParquet, OSError."""
    if format == "parquet":
        arrow()
    partial = _make(folder)
    id, host = f"export-{new_id()[-12:]}", socket.gethostname()
    given: dict[str, Any] = msgspec.structs.asdict(wanted)
    # Remembered before anything is written: what a crash leaves on the disk is known as well.
    database.write_now(
        lambda conn: record_export(
            conn, id=id, made_at=text_of(now), made_by=by, host=host, path=str(folder.absolute()), format=format,
            runs=0, events=0, alerts=0, **given,
        )
    )  # fmt: skip
    faults.reach("export.recorded")
    with _moment(database) as conn:
        total = sum(_count(conn, table, given) for table in ("events", "runs"))
        progress = _Progress(told, total)
        files = {table: _write(conn, table, partial / file_of(table, format), given, progress) for table in TABLES}
        files["checkpoints"] = _write_checkpoints(conn, partial / CHECKPOINTS)
        streams = [(int(number), str(created)) for number, created in conn.execute(_STREAMS)]
    manifest = Manifest(
        id=id, made_at=text_of(now), made_by=by, host=host, format=format, filter=wanted, streams=streams,
        counts={name: file.records for name, file in files.items()}, files=list(files.values()),
    )  # fmt: skip
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    (partial / MANIFEST).write_bytes(text)
    faults.reach("export.written")
    counts = {name: manifest.counts[name] for name in ("runs", "events", "alerts")}
    database.write_now(lambda conn: finish_export(conn, id, **counts))
    partial.replace(folder)
    return manifest


_STREAMS = sa.text("SELECT number, created FROM logger_streams ORDER BY number")


def _make(folder: Path) -> Path:
    """The folder under the name that it has until it is whole."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FolderInUse(folder=folder)
    partial = folder.with_name(folder.name + ".partial")
    known = {MANIFEST, CHECKPOINTS, *(file_of(table, format) for table in TABLES for format in ("jsonl", "parquet"))}
    if partial.exists():  # of an export that was broken off
        if not partial.is_dir() or any(path.name not in known for path in partial.iterdir()):
            raise FolderInUse(folder=partial)
        shutil.rmtree(partial)
    partial.mkdir(mode=0o700, parents=True)
    return partial


@contextmanager
def _moment(database: Database) -> Iterator[Connection]:
    """One state of the log, however long it is read."""
    level = {"isolation_level": "REPEATABLE READ"} if database.dialect == "postgresql" else {}
    with database.engine.connect().execution_options(**level) as conn, conn.begin():
        yield conn


class _Progress:
    def __init__(self, told: Told, total: int) -> None:
        self._told, self._total, self._done = told, total, 0

    def step(self) -> None:
        self._done += 1
        if self._done % _STEP == 0:
            self._told(min(self._done, self._total), self._total)


def _count(conn: Connection, table: str, given: Mapping[str, Any]) -> int:
    source, where, _ = _WHERE[table]
    return int(conn.execute(_query("count(*)", source, where, ""), given).scalar_one())


def _write(conn: Connection, table: str, path: Path, given: Mapping[str, Any], progress: _Progress) -> File:
    source, where, order = _WHERE[table]
    names = ", ".join(f"{_LEADING[table]}.{column.name}" for column in _MODELS[table].columns)
    opened: LineFile | ParquetFile
    opened = ParquetFile(path, _MODELS[table]) if path.suffix == ".parquet" else LineFile(path)
    query = _query(names, source, where, f"ORDER BY {order}")
    with opened:
        for row in conn.execute(query, given, execution_options={"yield_per": _STEP}):
            opened.write(dict(row._mapping))
            progress.step()
        return opened.close()


def _query(what: str, source: str, where: str, order: str) -> sa.TextClause:
    # A parameter that is compared with nothing but NULL has no type on PostgreSQL.
    typed = {name: sa.bindparam(name, type_=sa.Text) for name in ("agent", "run_id", "since", "until")}
    text = f"SELECT {what} FROM {source} WHERE {where} {order}"  # noqa: S608
    for name in typed:
        text = text.replace(f":{name} IS NULL", f"CAST(:{name} AS text) IS NULL")
    return sa.text(text).bindparams(*(bound for name, bound in typed.items() if f":{name}" in text))


def _write_checkpoints(conn: Connection, path: Path) -> File:
    query = sa.text("SELECT line FROM logger_checkpoints ORDER BY number")
    with LineFile(path) as file:
        for line in conn.execute(query, execution_options={"yield_per": _STEP}).scalars():
            file.write_line(line.encode())
        return file.close()
