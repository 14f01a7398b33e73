"""A lock file: one process at a time has it, and the system gives it back however that process ends."""

import os
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

if sys.platform != "win32":
    import fcntl

log = structlog.get_logger("midwatch.lock")


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that has a lock, as far as it is known. `pid` is 0 where it is not."""

    host: str = ""
    pid: int = 0

    @property
    def is_here(self) -> bool:
        """Whether its pid means anything on this machine."""
        return bool(self.pid) and self.host == socket.gethostname()

    def who(self) -> str:
        """What names it, to be put behind where it runs."""
        if not self.pid:
            return ""
        return f" (pid {self.pid})" if self.is_here else f" (pid {self.pid} on {self.host})"

    def stop(self) -> str:
        """What one does to end it."""
        return f"stop it with `kill {self.pid}`" if self.is_here else "stop it where it runs"


class LockFile:
    """Keeps a second process out. Without a file that can be opened, or on a volume that has no locks, there is a
    warning in the log and nobody is kept out: nothing may fail to start for want of a lock."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def take(self) -> Holder | None:
        """None where it is ours from here on, else who has it."""
        try:
            self._fd = self._open()
            if sys.platform != "win32":
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            found = self._holder()
            self.leave()
            return found
        except OSError as error:
            log.warning(
                "not_locked", file=str(self._path), owner=_owner(self._path), why=error.strerror or str(error),
                help="a second process here would not be noticed: start one alone, or mend the file or its volume",
            )  # fmt: skip
            return None
        self._sign(self._fd)
        return None

    def leave(self) -> None:
        """Lets another have it."""
        if self._fd is not None:
            os.close(self._fd)
        self._fd = None

    def _open(self) -> int:
        """Another user's is opened to be read, which is enough to lock it; one that cannot be is made anew."""
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except PermissionError:
            with suppress(PermissionError):
                return os.open(self._path, os.O_RDONLY)
            self._path.unlink()
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)

    def _sign(self, fd: int) -> None:
        with suppress(OSError):  # it is another user's, or the disk is full
            os.ftruncate(fd, 0)
            os.write(fd, f"{os.getpid()} {socket.gethostname()}\n".encode())

    def _holder(self) -> Holder:
        try:
            pid, host = self._path.read_text("utf-8").split()
            found = Holder(host, int(pid))
        except (OSError, ValueError):
            return Holder()  # an older release wrote nothing
        try:
            if found.is_here:
                os.kill(found.pid, 0)
        except ProcessLookupError:
            return Holder()  # one that could not write has it now, and left what stood there
        except OSError:
            pass  # it is another user's
        return found


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except (OSError, KeyError, NotImplementedError):
        return "?"
