"""Erases from an export's folder what was erased from the log. The erasure's blocks are laid beside it, so that the
export can be verified as before."""

import gzip
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy.engine import Connection

from midwatch.errors import MidwatchError

from ..evidence import chain_store
from ..evidence.chain import Block
from ..evidence.export import ERASURES
from ..transfer.layout import MANIFEST, File, Manifest, as_json, digest, encode, file_of, read_manifest
from . import blank, log, store
from .match import RunKey

EVENTS, RUNS, ALERTS = (file_of(table, "jsonl") for table in ("events", "runs", "alerts"))

Row = dict[str, Any]
Change = Callable[[Row], bool]  # changes the row; whether it did


class NotRewritten(MidwatchError):
    """{folder} holds {what}, which cannot be rewritten: delete the folder, and export anew."""


class NotHere(MidwatchError):
    """it is not reachable from the logger."""


class Erased(msgspec.Struct, frozen=True):
    """What an export is to lose."""

    erasure: str
    runs: frozenset[RunKey]
    alerts: frozenset[str]
    blocks: tuple[Block, ...]


def of_erasure(conn: Connection, erasure: str) -> Erased:
    """What an erasure has erased, as the log remembers it."""
    runs = store.runs_of(conn, erasure)
    blocks = [
        block
        for agent in sorted({run.agent for run in runs})
        for block in chain_store.blocks(conn, agent)
        if block.kind == "erasure" and msgspec.json.decode(block.note).get("erasure") == erasure
    ]
    keys = frozenset((run.agent, run.run_id) for run in runs)
    return Erased(erasure, keys, frozenset(log.erased_alerts(conn, runs)), tuple(blocks))


def here(export: Row) -> Path:
    """Where a recorded export lies. Raises NotHere where that is another machine, or it is gone."""
    path = Path(export["path"])
    if export["host"] != socket.gethostname():
        raise NotHere
    if not path.exists():
        raise NotHere
    return path


def erase_from_export(folder: Path, what: Erased) -> dict[str, int]:
    """Rewrites the files of the export and returns how many events, runs and alerts were blanked. Each file takes the
    place of the old one at once, and the manifest last: done again it does what is left. Raises NoExport, NotRewritten,
    OSError."""
    manifest = read_manifest(folder)
    if manifest.format != "jsonl":
        raise NotRewritten(folder=str(folder), what="Parquet")
    counts = {
        "events": _rewrite(folder / EVENTS, lambda row: _event(row, what)),
        "runs": _rewrite(folder / RUNS, lambda row: _run(row, what)),
        "alerts": _rewrite(folder / ALERTS, lambda row: _alert(row, what)),
    }
    added = _add_blocks(folder / ERASURES, what)
    _renew(folder, manifest, what.erasure, {ERASURES: added})
    return counts


def _event(row: Row, what: Erased) -> bool:
    if (row["agent"], row["run_id"]) not in what.runs or blank.erased_by(row["body"]) is not None:
        return False
    salt = bytes.fromhex(row["salt"]) if row.get("salt") else None
    row.update(body=blank.body_of(what.erasure, salt, row["body"]), salt=None, ticket=None, note=None)
    return True


def _run(row: Row, what: Erased) -> bool:
    if (row["agent"], row["run_id"]) not in what.runs:
        return False
    was = any(row.get(name) is not None for name in blank.PERSONAL)
    row.update(dict.fromkeys(blank.PERSONAL))
    return was


def _alert(row: Row, what: Erased) -> bool:
    if (row.get("agent"), row.get("run_id")) not in what.runs and row["alert_id"] not in what.alerts:
        return False
    before = (row["raised"], row["resolved_reason"])
    row["raised"], row["resolved_reason"] = row["raised"] and blank.alert_of(row["raised"]), None
    return before != (row["raised"], None)


def _rewrite(path: Path, change: Change) -> int:
    """Changes rows of a file of JSON lines, and overwrites the old file before it goes."""
    if not path.exists():
        return 0
    count = 0
    aside = path.with_name(f"{path.name}.new")
    with gzip.open(aside, "wb", compresslevel=6) as out:
        for row in _rows(path):
            count += change(row)
            out.write(msgspec.json.encode(row) + b"\n")
    if count:
        _overwrite(path)
    aside.replace(path)
    return count


def _rows(path: Path) -> Iterator[Row]:
    with gzip.open(path, "rb") as lines:
        for line in lines:
            yield msgspec.json.decode(line)


def _overwrite(path: Path) -> None:
    """The old bytes, where the file system writes in place."""
    with path.open("r+b") as file:
        left = path.stat().st_size
        while left > 0:
            left -= file.write(bytes(min(left, 1 << 20)))
        file.flush()
        os.fsync(file.fileno())


def _add_blocks(path: Path, what: Erased) -> int:
    """Lays the blocks beside the export; returns how many lie there."""
    known = list(_rows(path)) if path.exists() else []
    seen = {(row["agent"], row["number"]) for row in known}
    known += [
        as_json(msgspec.structs.asdict(block)) for block in what.blocks if (block.agent, block.number) not in seen
    ]
    with gzip.open(path, "wb") as out:
        for row in known:
            out.write(encode(row) + b"\n")
    return len(known)


def _renew(folder: Path, manifest: Manifest, erasure: str, lines: dict[str, int]) -> None:
    """Writes what the files are now into the manifest, and by what they were rewritten."""
    names = [file.name for file in manifest.files]
    counted = {file.name: file.records for file in manifest.files} | lines
    files = [
        File(name=name, sha256=digest(folder / name), bytes=(folder / name).stat().st_size, records=counted[name])
        for name in dict.fromkeys([*names, ERASURES])
    ]
    before = msgspec.json.decode((folder / MANIFEST).read_bytes()).get("erasures", [])
    text = msgspec.to_builtins(msgspec.structs.replace(manifest, files=files))
    text["erasures"] = sorted({*before, erasure})
    aside = folder / f"{MANIFEST}.new"
    aside.write_bytes(msgspec.json.format(msgspec.json.encode(text), indent=2) + b"\n")
    aside.replace(folder / MANIFEST)
