"""What reading another's database takes besides: the file that stands there now, and an end to long queries."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

_TICK = 0.1  # seconds between two looks at what is read
_GRACE = 1.0  # seconds in which PostgreSQL itself ends a statement, before its connection is taken away


def existing(url: sa.URL, path: Path) -> sa.URL:
    """The same SQLite file, which is not made where it is not there."""
    return url.set(database=f"file:{quote(str(path))}").update_query_dict({"mode": "rw", "uri": "true"})


def only_read(engine: Engine, path: Path) -> None:
    """Has connections of the pool refuse to write, and open the file anew once another one stands in its place: an open
    one outlives its removal."""

    def opened(raw: Any, record: Any) -> None:
        # Not SQLite's own read-only mode: whoever closes the file last has to empty its log into it.
        for pragma in ("query_only=ON", "cache_size=-32768"):
            raw.execute(f"PRAGMA {pragma}").close()
        record.info["file"] = _identity(path)

    def taken(_: Any, record: Any, __: Any) -> None:
        if record.info["file"] != _identity(path):
            raise sa.exc.DisconnectionError("the file was replaced")

    sa.event.listen(engine, "connect", opened)
    sa.event.listen(engine, "checkout", taken)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


@dataclass(eq=False, slots=True)
class _Read:
    raw: Any
    until: float


class Limits:
    """Ends what is read for too long. A thread looks on for as long as anything is read under a limit."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reads: set[_Read] = set()
        self._is_watched = False

    @contextlib.contextmanager
    def on(self, conn: Connection, seconds: float | None) -> Iterator[None]:
        """Raises TimeoutError in place of what a statement on `conn` says that was ended. None is no limit."""
        if seconds is None:
            yield
            return
        read = _Read(conn.connection.driver_connection, time.monotonic() + seconds)
        self._add(read)
        try:
            if conn.dialect.name == "postgresql":
                conn.exec_driver_sql(f"SET LOCAL statement_timeout = {max(1, int(seconds * 1000))}")
            yield
        except sa.exc.DBAPIError as error:
            if time.monotonic() < read.until:
                raise
            raise TimeoutError(f"not read within {seconds:g} s") from error
        finally:
            with self._lock:  # what comes to this connection next is not ended
                self._reads.discard(read)

    def end(self) -> None:
        """Ends at once all that is read."""
        with self._lock:
            for read in self._reads:
                read.until = 0.0

    def _add(self, read: _Read) -> None:
        with self._lock:
            self._reads.add(read)
            if not self._is_watched:
                self._is_watched = True
                threading.Thread(target=self._watch, name="read-limits", daemon=True).start()

    def _watch(self) -> None:
        while True:
            time.sleep(_TICK)
            with self._lock:
                if not self._reads:
                    self._is_watched = False
                    return
                now = time.monotonic()
                for read in self._reads:
                    if read.until <= now:  # again and again: between two statements there is nothing to end
                        _end(read.raw, late=now - read.until)


def _end(raw: Any, late: float) -> None:
    if hasattr(raw, "interrupt"):
        raw.interrupt()
    elif late >= _GRACE:
        # The server does not end it, so it is away or hangs: nothing else wakes the thread that waits for it.
        with contextlib.suppress(Exception), socket.socket(fileno=os.dup(raw.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)
