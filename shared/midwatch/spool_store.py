"""The segments of one spool: on disk, or in memory while the disk fails. Whoever calls holds the spool's lock."""

import os
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

from .frames import MAGIC
from .spool_folder import SpoolFolder, claim

SEGMENT_BYTES = 8 * 1024 * 1024  # a segment that has grown past this is followed by a new one
MEMORY_BYTES = 16 * 1024 * 1024  # bounds of what is kept in memory while the disk takes nothing
MEMORY_RECORDS = 10_000
MAX_BYTES = 1024 * 1024 * 1024  # of one spool on disk, unless MIDWATCH_SPOOL_MAX_BYTES says otherwise
RETRY = 1.0  # seconds between two tries to get back to a disk that failed


class Segment:
    """A run of records, in a file or, while the disk fails, in memory. Offsets stay the same when it changes place."""

    __slots__ = ("base", "fd", "memory", "number", "records", "size")

    def __init__(self, number: int, *, fd: int = -1, memory: bytearray | None = None) -> None:
        self.number = number
        self.fd = fd  # open while it is written to and until it is synced, else -1
        self.memory = memory
        self.base = 0  # offset at which its bytes begin: what was before was acknowledged while it was in memory
        self.size = 0
        self.records = 0  # not yet acknowledged

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Store:
    """Appends records and remembers up to where they are acknowledged. What goes wrong is in `error`."""

    def __init__(self, parent: Path, instance: str) -> None:
        self.parent = parent
        self.instance = instance
        self.home: SpoolFolder | None = None
        self.segments: deque[Segment] = deque()
        self.cursor = (0, 0)  # segment and offset up to which all is acknowledged
        self.lost = 0  # records that neither disk nor memory took, or that went away with their file
        self.error: str | None = None
        self.max_bytes = _max_bytes()
        self._next = 1  # number of the next segment
        self._bytes = 0  # on disk
        self._unsynced = False
        self._retry_at = 0.0
        self._closed = False

    def load(self, home: SpoolFolder) -> None:
        """Takes over what is in `home`. Raises OSError."""
        self.home = home
        self.cursor = home.cursor()
        for number in home.segments():
            path = home.segment(number)
            if number < self.cursor[0]:
                path.unlink()
                continue
            segment = Segment(number)
            data = path.read_bytes()
            segment.size = len(data)
            segment.records = data.count(MAGIC, self.cursor[1] if number == self.cursor[0] else 0)
            self.segments.append(segment)
            self._bytes += segment.size
        last = self.segments[-1].number if self.segments else 0
        self._next = max(last, self.cursor[0]) + 1

    def add(self, record: bytes) -> bool:
        """Takes a framed record, on disk or in memory; False, and counted, where neither has room."""
        last = self.segments[-1] if self.segments else None
        if last is not None and last.memory is not None and time.monotonic() >= self._retry_at:
            self.recover()
        if last is None or (last.memory is None and (last.fd < 0 or last.size >= SEGMENT_BYTES)):
            last = self._begin()
        if last.memory is None:
            why = self._write(last, record)
            if why is None:
                return True
            last = self._begin_in_memory(why)
        assert last.memory is not None
        if self._closed or len(last.memory) + len(record) > MEMORY_BYTES or last.records >= MEMORY_RECORDS:
            self.lost += 1
            return False
        last.memory += record
        last.size += len(record)
        last.records += 1
        return True

    def _write(self, segment: Segment, record: bytes) -> str | None:
        """What went wrong, or None. A record that was written in part stays behind as a torn tail."""
        if self._bytes + len(record) > self.max_bytes:
            return self._limit()
        try:
            if os.write(segment.fd, record) != len(record):
                return "no space left on the disk"
        except OSError as error:
            return words(error)
        segment.size += len(record)
        segment.records += 1
        self._bytes += len(record)
        self._unsynced = True
        return None

    def _begin(self) -> Segment:
        try:
            return self._begin_on_disk()
        except OSError as error:
            return self._begin_in_memory(words(error))

    def _begin_on_disk(self) -> Segment:
        return self._take(Segment(self._next, fd=self._folder().create(self._next)))

    def _begin_in_memory(self, why: str) -> Segment:
        self.fail(why)
        return self._take(Segment(self._next, memory=bytearray()))

    def _take(self, segment: Segment) -> Segment:
        self._next += 1
        self.segments.append(segment)
        return segment

    def _folder(self) -> SpoolFolder:
        if self._closed:
            raise OSError("it is closed")
        if self.home is None:
            # What is left in a folder of ours from before is for `adopt`: its numbers would get in the way here.
            self.home = claim(self.parent, self.instance, empty=True)
        return self.home

    def _limit(self) -> str:
        return f"it has reached its size limit of {self.max_bytes} bytes (MIDWATCH_SPOOL_MAX_BYTES)"

    def fail(self, why: str) -> None:
        """From now on events go to memory; the disk is tried again after a while."""
        self._retry_at = time.monotonic() + RETRY
        self.error = f"events are kept in memory, the spool in {self.parent} takes none: {why}"

    def recover(self) -> None:
        """Moves what is in memory to the disk, if the disk takes it by now."""
        self.segments = deque(segment for segment in self.segments if segment.memory is None or segment.memory)
        try:
            for segment in self.segments:
                if segment.memory is not None:
                    self._move_to_disk(segment, segment.memory)
            if not self.segments or self.segments[-1].fd < 0:
                self._begin_on_disk()
        except OSError as error:
            self.fail(words(error))
        else:
            self.error = None

    def _move_to_disk(self, segment: Segment, memory: bytearray) -> None:
        if self._bytes + len(memory) > self.max_bytes:
            raise OSError(self._limit())
        home = self._folder()
        fd = home.create(segment.number)
        try:
            os.ftruncate(fd, segment.base)
            if os.write(fd, memory) != len(memory):
                raise OSError("no space left on the disk")
        except OSError:
            os.close(fd)
            remove([home.segment(segment.number)])
            raise
        self._bytes += len(memory)
        self._unsynced = True
        segment.fd, segment.memory = fd, None

    def deleted(self) -> bool:
        """Whether a file that is written to is in no folder any more."""
        return any(segment.fd >= 0 and os.fstat(segment.fd).st_nlink == 0 for segment in self.segments)

    def take_stock(self) -> None:
        """Files of ours were deleted: takes into memory what open descriptors still reach; the rest is lost."""
        if self.home is None:
            return
        for segment in self.segments:
            if segment.memory is None and not self.home.segment(segment.number).exists():
                self._rescue(segment)
        if not self.home.path.exists():
            self.home.release()
            self.home = None
        self.fail("files were deleted from it")

    def _rescue(self, segment: Segment) -> None:
        self._bytes -= segment.size - segment.base
        if segment.number == self.cursor[0]:
            segment.base = self.cursor[1]
        segment.memory = bytearray()
        if segment.fd >= 0:
            os.lseek(segment.fd, segment.base, os.SEEK_SET)
            while piece := os.read(segment.fd, SEGMENT_BYTES):
                segment.memory += piece
            segment.close()
        else:
            self.lost += segment.records
            segment.records = 0
        segment.size = segment.base + len(segment.memory)

    def unsynced_files(self) -> list[int]:
        """Descriptors of what is to be synced now; the caller closes them. Raises OSError."""
        if not self._unsynced or self.home is None:
            return []
        self._unsynced = False
        files = []
        for segment in self.segments:
            if segment.fd >= 0:
                files.append(os.dup(segment.fd))
                if segment is not self.segments[-1]:
                    segment.close()
        if sys.platform != "win32":  # the entry of a new segment in its folder
            files.append(os.open(self.home.path, os.O_RDONLY))
        return files

    def measure(self, segment: Segment) -> int:
        """The size of a segment by now."""
        # The file knows better than our count where an exception (Ctrl-C) came between a write and its counting.
        if segment.fd >= 0:
            segment.size = os.fstat(segment.fd).st_size
        return segment.size

    def advance(self, number: int, offset: int) -> list[Path]:
        """Moves the cursor; the files that nobody needs any more."""
        gone = []
        while self.segments:
            first = self.segments[0]
            if first.number == number and (offset < first.size or len(self.segments) == 1):
                break
            if first.number > number:
                number, offset = first.number, 0
                break
            self.segments.popleft()
            first.close()
            if first.memory is None:
                self._bytes -= first.size - first.base
                if self.home is not None:
                    gone.append(self.home.segment(first.number))
        if self.segments and (memory := self.segments[0].memory) is not None:
            del memory[: offset - self.segments[0].base]
            self.segments[0].base = offset
        self.cursor = (number, offset)
        if self.home is not None:
            self.home.save_cursor(number, offset)
        return gone

    def close(self, *, remove_drained: bool = True) -> None:
        """Lets go of the folder, and removes it if all in it is acknowledged."""
        self._closed = True
        drained = remove_drained and not any(segment.records for segment in self.segments)
        for segment in self.segments:
            segment.close()
        if self.home is not None:
            if drained:
                remove([self.home.segment(segment.number) for segment in self.segments])
            self.home.release(remove=drained)
            self.home = None


def _max_bytes() -> int:
    try:
        return int(os.environ["MIDWATCH_SPOOL_MAX_BYTES"])
    except (KeyError, ValueError):
        return MAX_BYTES


def words(error: OSError) -> str:
    """What went wrong, in one line."""
    return error.strerror or str(error)


def remove(paths: list[Path]) -> None:
    """Deletes files. One that cannot be deleted is before the cursor, and goes when the spool is opened next."""
    for path in paths:
        with suppress(OSError):
            path.unlink()
