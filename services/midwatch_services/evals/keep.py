"""The results of a replay as a file, written case by case, so that no more of them is held than one."""

import os
import re
import secrets
import tempfile
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import msgspec

from midwatch.errors import MidwatchError

from .outcome import CaseResult, Results

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


class NotWritten(MidwatchError):
    """the results cannot be written to {path}: {why}"""


def usual_path(folder: Path, agent: str, version: str) -> Path:
    """Where the results of a version stand unless `--out` says otherwise. Two versions never share a file."""
    name = _UNSAFE.sub("-", version).strip(".-")[:100]
    if name != version:
        name = f"{name or 'version'}-{sha256(version.encode()).hexdigest()[:8]}"
    return folder / agent / "results" / f"{name}.json"


class ResultsFile:
    """Becomes the file once it is whole, or is gone. One case is one line, in the order of the cases. Every method
    raises NotWritten."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        self._lines: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed with this
        self._places: dict[int, tuple[int, int]] = {}

    def __enter__(self) -> Self:
        """Sees that the file can be written before anything is replayed."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._part.touch()
        except OSError as error:
            self._lines.close()
            raise NotWritten(path=self._path, why=error.strerror or error) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        self._part.unlink(missing_ok=True)

    def add(self, place: int, result: CaseResult) -> None:
        """Takes the result of the case at `place`."""
        body = msgspec.json.encode(result)
        try:
            self._places[place] = (self._lines.seek(0, os.SEEK_END), self._lines.write(body))
        except OSError as error:
            raise NotWritten(path=self._path, why=error.strerror or error) from None

    def finish(self, head: Results) -> None:
        """Writes the file: what `head` says, and the results."""
        whole = {"schema": head.schema, **msgspec.to_builtins(head), "results": []}  # a default is left out else
        try:
            with self._part.open("wb") as file:
                file.write(msgspec.json.encode(whole).removesuffix(b"]}"))
                for number, (_, (start, size)) in enumerate(sorted(self._places.items())):
                    self._lines.seek(start)
                    file.write((b",\n" if number else b"\n") + self._lines.read(size))
                file.write(b"\n]}\n")
                file.flush()
                os.fsync(file.fileno())
            self._part.replace(self._path)
        except OSError as error:
            raise NotWritten(path=self._path, why=error.strerror or error) from None
