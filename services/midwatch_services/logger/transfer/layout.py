"""What stands in an export's folder: the names of its files, a line of each, and the manifest."""

from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import msgspec

from midwatch.errors import MidwatchError

from ..erasure.blank import Blank
from ..evidence.leaf import content_hash, leaf_hash

VERSION = 1
MANIFEST, CHECKPOINTS = "manifest.json", "checkpoints.jsonl"
Format = Literal["jsonl", "parquet"]
TABLES = ("events", "runs", "alerts", "blocks")
BINARY = frozenset(("salt", "leaf", "leaves", "root", "previous", "head"))
_READ = 1 << 20  # bytes at a time

encode = msgspec.json.Encoder().encode


class NoExport(MidwatchError):
    """{folder} is no export of a run log: {why}."""


class NoParquet(MidwatchError):
    """Parquet needs pyarrow: pip install 'midwatch[parquet]', or leave --format out for JSONL."""


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs: all that match. `since`, `until`: when their first event was, the end not included."""

    agent: str | None = None
    run_id: str | None = None
    since: str | None = None
    until: str | None = None

    def is_whole(self) -> bool:
        """Whether all of each agent that it takes is taken."""
        return self.run_id is None and self.since is None and self.until is None


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One file of an export. `records`: its lines, or rows."""

    name: str
    sha256: str
    bytes: int
    records: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What an export is. `streams`: those that the log had read, by number and when each was made: places name them."""

    version: int = VERSION
    id: str
    made_at: str
    made_by: str
    host: str
    format: Format
    filter: Filter
    counts: dict[str, int]
    streams: list[tuple[int, str]]
    files: list[File]


def file_of(table: str, format: Format) -> str:
    """The file of a table. What proves the log stays JSONL, so that it can be checked without pyarrow."""
    return f"{table}.parquet" if format == "parquet" and table != "blocks" else f"{table}.jsonl.gz"


def read_manifest(folder: Path) -> Manifest:
    """Raises NoExport."""
    try:
        found = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except OSError:
        partial = folder.name.endswith(".partial")
        why = "it was not finished: make it again" if partial else f"there is no {MANIFEST} in it"
        raise NoExport(folder=folder, why=why) from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NoExport(folder=folder, why=f"its {MANIFEST} cannot be read ({error})") from None
    if found.version != VERSION:
        raise NoExport(folder=folder, why=f"it is of version {found.version}; this release reads {VERSION}")
    for file in found.files:
        if Path(file.name).name != file.name or not (folder / file.name).is_file():
            raise NoExport(folder=folder, why=f"{file.name} is not in it")
    return found


def digest(path: Path) -> str:
    """SHA-256 of a file, hex."""
    found = sha256()
    with path.open("rb") as file:
        while part := file.read(_READ):
            found.update(part)
    return found.hexdigest()


def as_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as a line has it: bytes in hex."""
    return {name: bytes(value).hex() if name in BINARY and value is not None else value for name, value in row.items()}


def as_row(line: Mapping[str, Any], columns: tuple[str, ...]) -> dict[str, Any]:
    """A line as a row: the other way round. Raises KeyError, ValueError, TypeError."""
    return {
        name: bytes.fromhex(line[name]) if name in BINARY and line[name] is not None else line[name] for name in columns
    }


def leaf_problem(row: Mapping[str, Any]) -> str | None:
    """Why an event is not what it was when the log stored it, in words; None where it is, or where nothing can tell."""
    if row["leaf"] is None:
        return None if row["salt"] is None else "it has no leaf"
    try:
        body = str(row["body"]).encode()
        if row["salt"] is not None:
            content = content_hash(row["salt"], body)
        else:
            content = bytes.fromhex(msgspec.json.decode(body, type=Blank).content)
        leaf = leaf_hash(
            row["agent"], row["id"], row["run_id"], row["event"], row["seq"], row["time"], row["stored_at"],
            row["place"], row["mode"], row["version"], content,
        )  # fmt: skip
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        return f"it cannot be read ({error})"
    return None if leaf == row["leaf"] else "it does not hash to its leaf"


def batches(rows: Iterator[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """The rows, so many at a time."""
    some: list[dict[str, Any]] = []
    for row in rows:
        some.append(row)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some
