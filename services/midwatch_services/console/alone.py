"""One console a state folder: a second would take its place there, and know nothing of its sessions."""

import sys
from pathlib import Path
from typing import IO

from midwatch.errors import Misconfigured

from .access import link

if sys.platform != "win32":
    import fcntl


class ConsoleRuns(Misconfigured):
    """A console runs already in {home}, at {url} (pid {pid}): use it, stop it with `kill {pid}`, or give this one a
    folder and a port of its own with MIDWATCH_HOME and MIDWATCH_CONSOLE_PORT."""


class Alone:
    """The place of the one console of `home`, which the system gives back however its process ends."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._file: IO[str] | None = None

    def take(self) -> None:
        """Raises ConsoleRuns where another has it."""
        self._home.mkdir(parents=True, exist_ok=True)
        file = (self._home / "console.lock").open("w")
        if sys.platform != "win32":
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                running = link.read(self._home)
                url, pid = (running.url, running.pid) if running else ("?", "?")
                raise ConsoleRuns(home=self._home, url=url, pid=pid) from None
        self._file = file

    def leave(self) -> None:
        """Lets another have it."""
        if self._file:
            self._file.close()
        self._file = None
