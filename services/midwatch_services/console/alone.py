"""One console a state folder: a second would take its place there, and know nothing of its sessions."""

from pathlib import Path

from midwatch.errors import Misconfigured
from midwatch.runtime.lock_file import LockFile

from .access import link


class ConsoleRuns(Misconfigured):
    """A console runs already in {home}{where}: use it, {stop}, or give this one a folder and a port of its own with
    MIDWATCH_HOME and MIDWATCH_CONSOLE_PORT."""


class Alone:
    """The place of the one console of `home`."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._lock = LockFile(home / "console.lock")

    def take(self) -> None:
        """Raises ConsoleRuns where another has it."""
        self._home.mkdir(parents=True, exist_ok=True)
        holder = self._lock.take()
        if holder is None:
            return
        running = link.read(self._home)
        url = f", at {running.url}" if running and holder.pid in (0, running.pid) else ""
        raise ConsoleRuns(home=self._home, where=url + holder.who(), stop=holder.stop())

    def leave(self) -> None:
        """Lets another have it."""
        self._lock.leave()
