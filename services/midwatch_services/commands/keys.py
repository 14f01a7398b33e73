"""Keys from a terminal, or lines where there is none, without holding up what else happens."""

import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any

_CHUNK = 4096


class Keys:
    """Reads standard input on a thread that never keeps the program from ending. In a terminal `key` needs no Enter."""

    def __init__(self) -> None:
        self.terminal = sys.stdin.isatty()
        self._fd = sys.stdin.fileno()
        self._loop = asyncio.get_running_loop()
        self._wanted: SimpleQueue[asyncio.Future[bytes]] = SimpleQueue()
        self._kept = b""
        self._ended = False
        threading.Thread(target=self._read, name="keys", daemon=True).start()

    async def key(self) -> str:
        """One key in a terminal, else one line. Empty at the end of the input."""
        if not self.terminal:
            return await self.line()
        with self._at_once():
            while not self._kept and not self._ended:
                await self._more()
        found, self._kept = self._kept[:1], self._kept[1:]
        return found.decode("utf-8", "replace")

    async def line(self) -> str:
        """One line, without its end."""
        while b"\n" not in self._kept and not self._ended:
            await self._more()
        found, _, self._kept = self._kept.partition(b"\n")
        return found.decode("utf-8", "replace").strip()

    @property
    def over(self) -> bool:
        """Whether no more can come."""
        return self._ended and not self._kept

    async def _more(self) -> None:
        coming: asyncio.Future[bytes] = self._loop.create_future()
        self._wanted.put(coming)
        some = await coming
        self._kept += some
        self._ended = not some

    def _read(self) -> None:
        # Not through sys.stdin: its lock, held by a thread that waits, would break the interpreter's end.
        while True:
            coming = self._wanted.get()
            try:
                some = os.read(self._fd, _CHUNK)
            except OSError:
                some = b""
            with suppress(RuntimeError):  # the loop may be closed
                self._loop.call_soon_threadsafe(_give, coming, some)

    @contextmanager
    def _at_once(self) -> Iterator[None]:
        """The terminal gives each key as it is pressed, and is as before afterwards."""
        try:
            import termios
            import tty
        except ImportError:  # Windows: keys end with Enter there
            yield
            return
        before: list[Any] = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd, termios.TCSANOW)
        try:
            yield
        finally:
            termios.tcsetattr(self._fd, termios.TCSANOW, before)


def _give(coming: "asyncio.Future[bytes]", some: bytes) -> None:
    if not coming.done():
        coming.set_result(some)
