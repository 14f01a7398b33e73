"""A spool's folder on disk: held by one living process, found and taken over by another when that one is dead."""

import os
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from zlib import crc32

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

REFUSED = "refused"  # folder beside the spools, for records that no server will ever take
_held: set[Path] = set()  # the folders that this process has
_BINARY = getattr(os, "O_BINARY", 0)
_CURSOR = struct.Struct("<QQI")  # segment, offset, CRC-32 of both


class SpoolFolder:
    """One folder with segments and a cursor, locked while this object has it."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock
        self._cursor = -1
        _held.add(path)

    def segment(self, number: int) -> Path:
        """Where segment `number` is or would be."""
        return self.path / f"{number:010d}.seg"

    def segments(self) -> list[int]:
        """Numbers of the segments that are here, in order."""
        return sorted(int(path.stem) for path in self.path.glob("*.seg") if path.stem.isdecimal())

    def create(self, number: int) -> int:
        """Descriptor of a new, empty segment, for reading and appending."""
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | _BINARY
        return os.open(self.segment(number), flags, 0o600)

    def cursor(self) -> tuple[int, int]:
        """Segment and offset up to which all is acknowledged; (0, 0) where that is unknown."""
        with suppress(OSError, struct.error):
            stored = (self.path / "cursor").read_bytes()
            number, offset, check = _CURSOR.unpack(stored)
            if check == crc32(stored[:-4]):
                return number, offset
        return 0, 0

    def save_cursor(self, number: int, offset: int) -> None:
        """Remembers how far all is acknowledged. Where that fails, events are published again, and their ids tell."""
        with suppress(OSError):
            if self._cursor < 0:
                self._cursor = os.open(self.path / "cursor", os.O_RDWR | os.O_CREAT | _BINARY, 0o600)
            position = struct.pack("<QQ", number, offset)
            os.lseek(self._cursor, 0, os.SEEK_SET)
            os.write(self._cursor, position + struct.pack("<I", crc32(position)))

    def release(self, *, remove: bool = False) -> None:
        """Lets another process have the folder; with `remove`, takes it away if nothing is in it that still counts."""
        if self._cursor >= 0:
            os.close(self._cursor)
        if remove:
            with suppress(OSError):
                if not self.segments():
                    (self.path / "cursor").unlink(missing_ok=True)
                    (self.path / "lock").unlink(missing_ok=True)
                    self.path.rmdir()
        os.close(self._lock)
        self._lock = self._cursor = -1
        _held.discard(self.path)


def claim(parent: Path, instance: str, *, empty: bool) -> SpoolFolder:
    """A folder of `instance` that no living process has: a second process of the same name gets one beside the first.

    With `empty`, one without segments. Raises OSError where the disk does not play along.
    """
    for turn in range(1, 10_000):
        path = parent / (instance if turn == 1 else f"{instance}~{turn}")
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = _take(path)
        if folder is None:
            continue
        if not empty or not folder.segments():
            return folder
        folder.release()
    raise OSError(f"no free folder for {instance} in {parent}")


def orphans(parent: Path) -> Iterator[SpoolFolder]:
    """The folders of dead processes in `parent`."""
    with suppress(OSError):
        for path in sorted(parent.iterdir()):
            if path.name == REFUSED or path in _held or not path.is_dir():
                continue
            with suppress(OSError):
                folder = _take(path)
                if folder is not None:
                    yield folder


def _take(path: Path) -> SpoolFolder | None:
    """The folder, or None where a living process has it."""
    fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if sys.platform == "win32":
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever removed the folder between our opening and our locking held this lock file: it is no longer the one.
        if os.path.samestat(os.fstat(fd), os.stat(path / "lock")):  # noqa: PTH116
            return SpoolFolder(path, fd)
    except (BlockingIOError, PermissionError, FileNotFoundError):
        pass
    except OSError:
        os.close(fd)
        raise
    os.close(fd)
    return None
