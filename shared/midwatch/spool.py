"""Events on disk until the server has them: segment files that are only appended to, and memory where the disk fails.

`append` hands the event to the operating system with one write(2), so that it outlives the process. It is safe from a
loss of power from the next `sync` on, which the flusher calls at each interval while something is unpublished.
"""

import os
import re
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec

from .frames import Found, Record, frame, unframe
from .spool_folder import REFUSED, claim, orphans
from .spool_store import Segment, Store, remove, words

__all__ = ["Record", "Spool"]

_spools: "weakref.WeakSet[Spool]" = weakref.WeakSet()  # of this process


class Spool:
    """One process's events, in order, until they are acknowledged. `append` may be called from any thread and never
    raises; `read`, `acknowledge`, `sync`, `refuse` and `adopt` belong to one flusher."""

    def __init__(self, folder: Path, instance: str) -> None:
        self.folder = folder
        self.instance = re.sub(r"[^A-Za-z0-9._-]", "_", instance).lstrip(".").removeprefix(REFUSED) or "spool"
        self._set_up()
        _spools.add(self)

    def _set_up(self) -> None:
        self.damaged = 0  # places that could not be read back, each one event or more
        self._lock = threading.RLock()  # reentrant, for a signal handler that records an event while we do
        self._store = Store(self.folder, self.instance)
        self._lost = 0
        self._problem: str | None = None
        self._ends: list[tuple[int, int]] = []  # of the records read last: segment and offset of their end
        self._damage: set[tuple[int, int]] = set()  # counted already
        self._wake: Callable[[], object] | None = None

    @classmethod
    def open(cls, folder: Path, instance: str) -> "Spool":
        """The spool of `instance` in `folder`, with what an earlier process of that name left. Never raises."""
        spool = cls(Path(folder), instance)
        try:
            spool._store.load(claim(spool.folder, spool.instance, empty=False))
        except OSError as error:
            spool._store.fail(words(error))
        return spool

    def adopt(self) -> list["Spool"]:
        """The spools that dead processes left in the same folder with something in them. Who adopts one sends its
        records and closes it."""
        adopted = []
        for home in orphans(self.folder):
            spool = Spool(self.folder, home.path.name)
            try:
                spool._store.load(home)
            except OSError as error:
                self._problem = f"the spool in {home.path} cannot be read: {words(error)}"
            if spool.pending:
                adopted.append(spool)
            else:
                spool.close()
        return adopted

    @property
    def lost(self) -> int:
        """Events that neither disk nor memory took, or that the disk lost again."""
        return self._lost + self._store.lost + self.damaged

    @property
    def error(self) -> str | None:
        """What is wrong now, in one line."""
        return self._store.error or self._problem

    @property
    def pending(self) -> int:
        """Records not yet acknowledged."""
        with self._lock:
            return sum(segment.records for segment in self._store.segments)

    def append(self, subject: str, event_id: str, traceparent: bytes | None, body: bytes) -> bool:
        """Takes one event. When this returns True and the disk is sound, the event outlives a kill -9 of the process.

        False, and counted in `lost`, where neither disk nor memory has room.
        """
        try:
            record = frame(subject, event_id, traceparent, body)
            with self._lock:
                taken = self._store.add(record)
                wake, self._wake = self._wake, None
            if wake is not None:
                wake()
            return taken
        except Exception as error:  # the host must not suffer from its spool
            self._lost += 1
            self._problem = f"an event could not be recorded: {error}"
            return False

    def wake_once(self, callback: Callable[[], object] | None) -> None:
        """Calls `callback` after the next append, once, in the thread of that append."""
        with self._lock:
            self._wake = callback

    def sync(self) -> None:
        """Makes all that was appended so far safe from a loss of power, and gets back to a disk that had failed."""
        try:
            with self._lock:
                if self._store.deleted():
                    self._store.take_stock()
                if self._store.error is not None:
                    self._store.recover()
                files = self._store.unsynced_files()
            try:
                for fd in files:
                    getattr(os, "fdatasync", os.fsync)(fd)
            finally:
                for fd in files:
                    os.close(fd)
        except OSError as error:
            self._problem = f"the spool in {self.folder} is not safe from a loss of power: {words(error)}"
        else:
            self._problem = None

    def read(self, limit: int, max_bytes: int) -> list[Record]:
        """The next records in order, the same ones again until they are acknowledged: at least one if there is one,
        then up to `limit` and about `max_bytes`. Raises OSError where the disk cannot be read."""
        records: list[Record] = []
        ends: list[tuple[int, int]] = []
        with self._lock:
            segments = [(segment, self._store.measure(segment)) for segment in self._store.segments]
            number, offset = self._store.cursor
        for segment, size in segments:
            start = offset if segment.number == number else 0
            found = self._find(segment, start, size, limit - len(records), max_bytes)
            for record, end in found.records:
                records.append(record)
                ends.append((segment.number, start + end))
                max_bytes -= len(record.body)
            self._count_damage(segment.number, start, found.damaged)
            if len(records) >= limit or max_bytes <= 0 or (found.records and ends[-1][1] < size):
                break
        gone: list[Path] = []
        with self._lock:
            self._ends = ends
            if segments and not records and segments[-1][0].size == segments[-1][1]:
                for segment, _ in segments:  # nothing sound is left in them
                    segment.records = 0
                gone = self._store.advance(segments[-1][0].number, segments[-1][1])
        remove(gone)
        return records

    def _find(self, segment: Segment, start: int, size: int, limit: int, max_bytes: int) -> Found:
        found = Found([], [])
        for length in (min(size - start, max_bytes + 4096), size - start):  # all of it for a record that is longer
            if length <= 0:
                break
            whole = length == size - start
            found = unframe(self._piece(segment, start, length), whole=whole, limit=limit, max_bytes=max_bytes)
            if found.records or whole:
                break
        return found

    def _piece(self, segment: Segment, start: int, length: int) -> bytes:
        with self._lock:
            home = self._store.home
            if segment.memory is not None or home is None:
                return bytes((segment.memory or b"")[start - segment.base : start - segment.base + length])
        try:
            with home.segment(segment.number).open("rb") as file:
                file.seek(start)
                return file.read(length)
        except FileNotFoundError:
            with self._lock:
                self._store.take_stock()
            return self._piece(segment, start, length)

    def _count_damage(self, number: int, start: int, damaged: list[int]) -> None:
        fresh = {(number, start + at) for at in damaged} - self._damage
        self._damage |= fresh
        self.damaged += len(fresh)

    def acknowledge(self, count: int) -> None:
        """The first `count` records of the last `read` are on the server, or put aside."""
        with self._lock:
            done, self._ends = self._ends[:count], self._ends[count:]
            numbers = Counter(number for number, _ in done)
            for segment in self._store.segments:
                segment.records -= numbers[segment.number]
            gone = self._store.advance(*done[-1]) if done else []
            self._damage = {place for place in self._damage if place >= self._store.cursor}
        remove(gone)

    def refuse(self, record: Record, reason: str) -> None:
        """Keeps aside, in `refused/` beside the spools, a record that no server will take. Where that fails too, it is
        counted in `lost`."""
        line = {
            "subject": record.subject,
            "id": record.id,
            "reason": reason,
            "body": record.body.decode(errors="replace"),
        }
        path = self.folder / REFUSED / f"{self.instance}.jsonl"
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with path.open("ab") as file:
                if file.tell() > self._store.max_bytes:
                    raise OSError("it has reached the spool's size limit")
                file.write(msgspec.json.encode(line) + b"\n")
        except OSError as error:
            self._lost += 1
            self._problem = f"a refused event is lost, {path} does not take it: {words(error)}"

    def close(self) -> None:
        """Puts on disk what is not there yet and lets go of the folder; removes the folder if all is acknowledged."""
        self.sync()
        with self._lock:
            self._store.close()

    def _forked(self) -> None:
        """In a forked child: the events so far and the folder stay the parent's, the child gets a folder of its own."""
        self._store.close(remove_drained=False)  # closes the child's descriptors: the lock itself stays the parent's
        self._set_up()


def _after_fork() -> None:
    for spool in list(_spools):
        spool._forked()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork)
