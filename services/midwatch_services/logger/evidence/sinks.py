"""Where checkpoints go, to be kept outside the database: a file, an address, the bus. Each until it is taken."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from functools import partial
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path
from typing import Protocol

import structlog
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from sqlalchemy.engine import Connection

from midwatch.contracts import codec, subjects
from midwatch.contracts.governance import EvidenceCheckpointed as Checkpoint
from midwatch.errors import Temporary
from midwatch.runtime import faults, telemetry
from midwatch.runtime.database import Database
from midwatch.runtime.http_post import post

from . import chain_store, checkpoint_file, checkpoint_store, checkpoints

EVERY = 5.0  # seconds
AT_ONCE = 100  # checkpoints that one sink is given in one go
WITHIN = 10.0  # seconds for one of them
NATS_CURSOR = "checkpoints nats"

log = structlog.get_logger("midwatch.logger")


class Sink(Protocol):
    """One place to which checkpoints go."""

    name: str

    async def catch_up(self) -> int:
        """Hands over what the sink does not have yet and returns how many are left. Raises what stands in the way."""
        ...


class Courier:
    """Brings each checkpoint to every sink. One that is dead is a warning, and holds up nothing else."""

    def __init__(self, sinks: list[Sink]) -> None:
        self._sinks = sinks
        self._errors: dict[str, str] = {}

    async def tick(self) -> None:
        """Hands over what is not taken yet."""
        await asyncio.gather(*(self._serve(sink) for sink in self._sinks))

    async def _serve(self, sink: Sink) -> None:
        try:
            left = await sink.catch_up()
        except (Temporary, NatsError, OSError, HTTPException, TimeoutError, ValueError) as error:
            why = str(error) or type(error).__name__
            if self._errors.get(sink.name) != why:
                log.warning("checkpoints_not_taken", sink=sink.name, error=why, again_in_seconds=EVERY)
            self._errors[sink.name] = why
            return
        telemetry.SINK_BEHIND.labels(subjects.LOGGER, sink.name).set(left)
        if self._errors.pop(sink.name, None):
            log.info("checkpoints_taken_again", sink=sink.name)


class FileSink:
    """Adds to a file on this machine; the file itself says how far it is."""

    name = "file"

    def __init__(self, database: Database, path: Path) -> None:
        self._database, self._path = database, path
        self._done: tuple[int, str] | None = (
            None  # the size of the file, and the newest checkpoint, both as we left them
        )

    async def catch_up(self) -> int:
        newest = await self._database.read(checkpoint_store.last)
        if newest is None or self._done == (await asyncio.to_thread(_size, self._path), checkpoints.digest(newest)):
            return 0
        found = await asyncio.to_thread(checkpoint_file.last, self._path)
        todo = await self._database.read(lambda conn: _todo(conn, found, self._path))
        if todo:
            lines = [checkpoints.line(one) for one in todo]
            await asyncio.to_thread(checkpoint_file.append, self._path, lines, found)
            faults.reach("file.appended")
        elif found:
            self._done = (await asyncio.to_thread(_size, self._path), checkpoints.digest(newest))
        return max(0, newest.number - (todo[-1].number if todo else newest.number))


class CursorSink:
    """A sink whose progress is a cursor of the database: one handed over twice is the receiver's to recognise."""

    def __init__(self, database: Database, name: str, cursor: str) -> None:
        self.name = name
        self._database, self._cursor = database, cursor

    async def catch_up(self) -> int:
        """Hands over what the cursor has not passed, in order, and returns how many are left."""
        before, todo, newest = await self._database.read(self._read)
        for one in todo:
            await self.hand_over(one)
            faults.reach(f"{self.name}.taken")
            await self._database.write(partial(self._move, before=before, after=one.number))
            before = one.number
        return max(0, newest - before)

    async def hand_over(self, checkpoint: Checkpoint) -> None:
        """Raises what stands in the way."""
        raise NotImplementedError

    def _read(self, conn: Connection) -> tuple[int, list[Checkpoint], int]:
        before = chain_store.cursor(conn, self._cursor)
        last = checkpoint_store.last(conn)
        newest = last.number if last else 0
        # Past the end: the database was cut since. What it makes from now on is said all the same.
        start = before if before <= newest else newest - 1
        return before, checkpoint_store.after(conn, start, AT_ONCE), newest

    def _move(self, conn: Connection, before: int, after: int) -> None:
        chain_store.move_cursor(conn, self._cursor, before, after)


class UrlSink(CursorSink):
    """Posts each line to an address; a new address gets all of them."""

    def __init__(self, database: Database, url: str) -> None:
        super().__init__(database, "url", url_cursor(url))
        self._url = url

    async def hand_over(self, checkpoint: Checkpoint) -> None:
        """Any answer but a success is a failure; `idempotency-key` is the same at each attempt."""
        body = checkpoints.line(checkpoint).encode()
        await post(self._url, body, {"idempotency-key": checkpoints.digest(checkpoint)}, WITHIN)


class NatsSink(CursorSink):
    """Publishes each checkpoint on the governance stream."""

    def __init__(self, database: Database, js: JetStreamContext, now: Callable[[], datetime]) -> None:
        super().__init__(database, "nats", NATS_CURSOR)
        self._js, self._now = js, now

    async def hand_over(self, checkpoint: Checkpoint) -> None:
        """Waits until the stream has it."""
        id = f"checkpoint-{checkpoints.digest(checkpoint)}"
        event = codec.envelope(
            "evidence", "checkpointed", checkpoint, source=f"/services/{subjects.LOGGER}", id=id, time=self._now()
        )
        headers = {subjects.MSG_ID: id, subjects.CONTENT_TYPE: subjects.CLOUDEVENTS_JSON}
        subject = subjects.evidence("checkpointed")
        await self._js.publish(subject, codec.encode(event), timeout=WITHIN, headers=headers)


def url_cursor(url: str) -> str:
    """Name of the cursor of an address, which may hold a password."""
    return f"checkpoints url {sha256(url.encode()).hexdigest()[:16]}"


def _todo(conn: Connection, found: Checkpoint | None, path: Path) -> list[Checkpoint]:
    """What the file does not have. Where the database does not have the file's newest, it was restored from an older
    copy, or cut: what came since is added all the same, and the file keeps both."""
    ours = checkpoint_store.get(conn, found.number) if found else None
    if found is None or (ours and checkpoints.digest(ours) == checkpoints.digest(found)):
        return checkpoint_store.after(conn, found.number if found else 0, AT_ONCE)
    known = {checkpoints.digest(one) for one in checkpoint_file.read(path)}
    fresh = (one for one in checkpoint_store.each(conn) if one and checkpoints.digest(one) not in known)
    return [one for one, _ in zip(fresh, range(AT_ONCE), strict=False)]


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
