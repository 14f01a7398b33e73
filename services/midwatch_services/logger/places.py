"""Where an event stands in the log: one number that grows with the stream, and goes on when the stream is made anew."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import sqlalchemy as sa
from nats.js import JetStreamContext
from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch.runtime.database import Database
from midwatch.runtime.delivery import Received

from .decide import text_of

_SHIFT = 44  # bits of a stream sequence; the rest counts the streams


def place(stream: int, stream_seq: int) -> int:
    """The place of a message in the `stream`th stream that the log has read."""
    return stream << _SHIFT | stream_seq


def sequence(place: int) -> int:
    """The stream sequence that a place was made of."""
    return place & ((1 << _SHIFT) - 1)


def stream_of(place: int) -> int:
    """The number of the stream that a place was made of."""
    return place >> _SHIFT


def in_the_first_stream(received: Received) -> int:
    """The place of a message where no other stream was ever read."""
    return place(1, received.stream_seq)


class Streams:
    """The streams that the log has read, by the time at which each was made."""

    def __init__(self, js: JetStreamContext, database: Database) -> None:
        self._js, self._database = js, database
        self._known: list[tuple[datetime, int]] = []
        self._newest: tuple[datetime, int] | None = None  # of all that was handled: when stored, and its sequence

    async def refresh(self) -> int:
        """Asks the server for the stream of now and returns its number. Raises NatsError, TimeoutError, Temporary."""
        info = await self._js.stream_info(subjects.RUNS)
        created = (info.created or datetime.min.replace(tzinfo=UTC)).astimezone(UTC)
        if (number := dict(self._known).get(created)) is not None:
            return number  # a number once given stays: no need to stand in line behind those who write
        found = await self._database.write(lambda conn: _number(conn, text_of(created)))
        self._known = [(datetime.fromisoformat(at), number) for at, number in found]
        return dict(self._known)[created]

    async def of(self, batch: Sequence[Received]) -> Callable[[Received], int]:
        """What gives each message of the batch its place."""
        stored = [(one.stored_at, one.stream_seq) for one in batch]
        last = self._newest
        if not self._known or (last and any(at > last[0] and number <= last[1] for at, number in stored)):
            await self.refresh()  # stored later, numbered lower: of another stream, unless the clock was set
        self._newest = max((*stored, *filter(None, (last,))), default=None)
        if len(self._known) == 1:
            only = self._known[0][1]
            return lambda received: place(only, received.stream_seq)
        return self._place

    def _place(self, received: Received) -> int:
        made = [number for created, number in self._known if created <= received.stored_at]
        return place(made[-1] if made else self._known[0][1], received.stream_seq)


def _number(conn: Connection, created: str) -> list[tuple[str, int]]:
    """All streams, oldest first, the one that was `created` then among them."""
    every = sa.text("SELECT created, number FROM logger_streams ORDER BY number")
    found = [(row[0], row[1]) for row in conn.execute(every)]
    if created not in (at for at, _ in found):
        found.append((created, len(found) + 1))
        conn.execute(
            sa.text("INSERT INTO logger_streams (created, number) VALUES (:created, :number)"),
            {"created": created, "number": len(found)},
        )
    return found
