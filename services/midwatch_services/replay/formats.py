"""Reads run files: which format a file has is told by its content, and a line that is bad spoils no other."""

import gzip
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec

from midwatch.errors import MidwatchError

from . import tau2
from .source import SCHEMA, SourceRun

_GZIP = b"\x1f\x8b"
_HEAD_LINES = 100  # in which a line of a known schema must stand
_UNREADABLE = (OSError, EOFError, gzip.zlib.error)  # type: ignore[attr-defined]


class UnknownFormat(MidwatchError):
    """no run file that this release reads: {found}. It reads `agentrun/1` (one JSON object a line) and tau2 result
    files"""


class Unreadable(MidwatchError):
    """cannot be read: {error}"""


@dataclass(frozen=True, slots=True)
class Found:
    """A run of the file, and how many bytes of the file (as it lies on the disk) have been read so far."""

    run: SourceRun
    position: int


@dataclass(frozen=True, slots=True)
class Bad:
    """A line or entry that cannot be read as a run. `place` is `<file>:<line>`, or `<file>: simulation <n>`."""

    place: str
    error: str
    position: int


class _Head(msgspec.Struct):
    schema: str | None = None


class _Keys(msgspec.Struct):
    """What tells a tau2 result file from other JSON."""

    simulations: list[msgspec.Raw]
    info: msgspec.Raw


_run = msgspec.json.Decoder(SourceRun)
_head = msgspec.json.Decoder(_Head)
_results = msgspec.json.Decoder(tau2.Results)
_simulation = msgspec.json.Decoder(tau2.Simulation)


def read(path: Path) -> Iterator[Found | Bad]:
    """Every run of the file in its order, and what could not be read.

    Raises UnknownFormat for a file of another kind, Unreadable where it cannot be opened.
    """
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == _GZIP
            raw.seek(0)
            stream: IO[bytes] = io.BufferedReader(gzip.GzipFile(fileobj=raw)) if packed else raw
            if _has_lines(stream):
                stream.seek(0)
                yield from _lines(path, stream, raw)
            else:
                stream.seek(0)
                yield from _tau2(path, stream.read())
    except _UNREADABLE as error:
        raise Unreadable(error=error) from error


def _has_lines(stream: IO[bytes]) -> bool:
    for _, line in zip(range(_HEAD_LINES), stream, strict=False):
        try:
            if (_head.decode(line).schema or "").startswith("agentrun/"):
                return True
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
    return False


def _lines(path: Path, stream: IO[bytes], raw: IO[bytes]) -> Iterator[Found | Bad]:
    number = 0
    try:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                schema = _head.decode(line).schema
                if schema != SCHEMA:
                    yield Bad(f"{path}:{number}", f"schema {schema!r} is not {SCHEMA!r}", raw.tell())
                    continue
                yield Found(_run.decode(line), raw.tell())
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                yield Bad(f"{path}:{number}", str(error), raw.tell())
    except _UNREADABLE as error:
        yield Bad(f"{path}:{number + 1}", f"the file ends or breaks here: {error}", raw.tell())


def _tau2(path: Path, body: bytes) -> Iterator[Found | Bad]:
    try:
        msgspec.json.decode(body, type=_Keys)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UnknownFormat(found=_describe(body, error)) from None
    size = path.stat().st_size
    try:
        results = _results.decode(body)
    except msgspec.MsgspecError as error:
        raise UnknownFormat(found=f"it looks like a tau2 result file, but {error}") from None
    actions = tau2.expected(results)
    for number, raw in enumerate(results.simulations):
        position = size * (number + 1) // len(results.simulations)
        try:
            simulation = _simulation.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            yield Bad(f"{path}: simulation {number}", str(error), position)
            continue
        yield Found(tau2.to_run(results, simulation, path.name, actions), position)


def _describe(body: bytes, error: Exception) -> str:
    if not body.strip():
        return "it is empty"
    for part, shape in ((body, "a JSON"), (body.lstrip().split(b"\n", 1)[0], "lines that begin with a JSON")):
        try:
            value = msgspec.json.decode(part)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        if isinstance(value, dict):
            return f"{shape} object with the keys " + ", ".join(repr(key[:40]) for key in list(value)[:8])
        return f"{shape} {type(value).__name__}"
    return f"it is not JSON ({error})"
