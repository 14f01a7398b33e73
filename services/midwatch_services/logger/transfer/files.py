"""The files of an export, written and read row by row."""

import gzip
import os
import zlib
from collections.abc import Iterator, Mapping
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import msgspec
import sqlalchemy as sa

from .layout import BINARY, File, NoParquet, as_json, as_row, batches, digest, encode

_LEVEL = 6
_GROUP = 2000  # rows that Parquet holds in memory
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Damaged(Exception):
    """A file ends where it should not, or a line of it cannot be read: said in words."""


class _Hashing:
    """A file that hashes what is written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.hash, self.size = file, sha256(), 0

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        self.size += len(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


class LineFile:
    """Lines of JSON, packed with gzip where the name says so. The same rows make the same bytes."""

    def __init__(self, path: Path) -> None:
        self._path, self._records = path, 0
        self._file = path.open("xb")
        self._out = _Hashing(self._file)
        packed = path.suffix == ".gz"
        self._pack = gzip.GzipFile("", "wb", _LEVEL, self._out, mtime=0) if packed else None

    def write(self, row: Mapping[str, Any]) -> None:
        """Adds a row."""
        self.write_line(encode(as_json(row)))

    def write_line(self, line: bytes) -> None:
        """Adds a line as it is."""
        self._records += 1
        (self._pack or self._out).write(line + b"\n")

    def close(self) -> File:
        """Ends the file, on the disk, and says what it is."""
        if self._pack:
            self._pack.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return File(
            name=self._path.name, sha256=self._out.hash.hexdigest(), bytes=self._out.size, records=self._records
        )

    def __enter__(self) -> "LineFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()


class ParquetFile:
    """Rows as columns, by pyarrow. Raises NoParquet where it is not installed."""

    def __init__(self, path: Path, table: sa.Table) -> None:
        self._arrow, parquet = arrow()
        self._path, self._rows, self._records = path, list[Mapping[str, Any]](), 0
        self._schema = self._arrow.schema([(column.name, self._type(column)) for column in table.columns])
        self._writer = parquet.ParquetWriter(path, self._schema, compression="zstd")

    def _type(self, column: "sa.Column[Any]") -> Any:
        if column.name in BINARY:
            return self._arrow.binary()
        return self._arrow.int64() if isinstance(column.type, sa.Integer) else self._arrow.string()

    def write(self, row: Mapping[str, Any]) -> None:
        """Adds a row."""
        self._rows.append(row)
        self._records += 1
        if len(self._rows) == _GROUP:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(self._arrow.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []

    def close(self) -> File:
        """Ends the file, on the disk, and says what it is."""
        if self._rows:
            self._flush()
        self._writer.close()
        with self._path.open("rb") as file:
            os.fsync(file.fileno())
        size = self._path.stat().st_size
        return File(name=self._path.name, sha256=digest(self._path), bytes=size, records=self._records)

    def __enter__(self) -> "ParquetFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.close()


def arrow() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise NoParquet from None


def read_rows(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """The rows of a file, in order. Raises Damaged, NoParquet."""
    if path.suffix == ".parquet":
        yield from _parquet_rows(path, columns)
        return
    for number, line in enumerate(read_lines(path), start=1):
        try:
            yield as_row(_decode(line), columns)
        except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, ValueError, TypeError) as error:
            raise Damaged(f"line {number} of {path.name} cannot be read ({error})") from None


def read_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, in order. Raises Damaged."""
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for line in file:
                yield line.rstrip(b"\n")
                number += 1
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Damaged(f"{path.name} is damaged after line {number} ({error})") from None


def _parquet_rows(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    pyarrow, parquet = arrow()
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_GROUP):
                for row in batch.to_pylist():
                    yield {name: row[name] for name in columns}
                    number += 1
    except (pyarrow.ArrowException, OSError, KeyError) as error:
        raise Damaged(f"{path.name} is damaged after row {number} ({error})") from None


def in_batches(path: Path, columns: tuple[str, ...], size: int) -> Iterator[list[dict[str, Any]]]:
    """The rows of a file, so many at a time. Raises Damaged, NoParquet."""
    return batches(read_rows(path, columns), size)
