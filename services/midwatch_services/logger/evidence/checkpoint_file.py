"""The file of checkpoints, outside the database: one JSON a line, only ever added to.

What it holds already is read from the file itself, so that it is right after a crash, with several processes, and where
somebody took it away.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from midwatch.contracts.governance import EvidenceCheckpointed as Checkpoint

from . import checkpoints

if sys.platform != "win32":
    import fcntl

_BACK = 64 * 1024  # bytes read at a time from the end


def last(path: Path) -> Checkpoint | None:
    """The newest checkpoint in the file; torn lines are passed over. Raises OSError."""
    try:
        with path.open("rb") as file:
            return _last(file)
    except FileNotFoundError:
        return None


def read(path: Path, upto: int | None = None) -> Iterator[Checkpoint]:
    """The checkpoints in the file, or in its first `upto` bytes, in its order; torn lines are passed over.

    Raises OSError.
    """
    with path.open("rb") as file:
        for line in file:
            if upto is not None and file.tell() > upto:
                return
            if found := checkpoints.read(line):
                yield found


def as_it_is(path: Path) -> Callable[[], Iterator[Checkpoint]]:
    """Reads, as often as asked, what the file holds now: a log looked at later has all of it. Raises OSError."""
    upto = path.stat().st_size
    return lambda: read(path, upto)


def append(path: Path, lines: list[str], after: Checkpoint | None) -> bool:
    """Adds the lines behind `after` and syncs them to disk; False where another process has added some since.

    Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a+b") as file, _locked(file):
        found = _last(file)
        if (found and checkpoints.digest(found)) != (after and checkpoints.digest(after)):
            return False
        file.seek(0, os.SEEK_END)
        torn = b"\n" if file.tell() and not _ends_a_line(file) else b""
        file.write(torn + "".join(f"{line}\n" for line in lines).encode())
        file.flush()
        os.fsync(file.fileno())
    if is_new and os.name == "posix":
        _sync_folder(path.parent)
    return True


@contextlib.contextmanager
def _locked(file: BinaryIO) -> Iterator[None]:
    if sys.platform != "win32":
        fcntl.flock(file, fcntl.LOCK_EX)  # given back when the file is closed
    yield


def _ends_a_line(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _last(file: BinaryIO) -> Checkpoint | None:
    end, size = b"", file.seek(0, os.SEEK_END)
    while size:
        step = min(_BACK, size)
        size -= step
        file.seek(size)
        end = file.read(step) + end
        whole = end if not size else end.partition(b"\n")[2]
        for line in reversed(whole.splitlines()):
            if found := checkpoints.read(line):
                return found
    return None


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
