"""Reservations: those that are open in memory as well, all others only in the table. Memory follows the commits."""

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from midwatch.runtime.database import upsert

from .. import tables
from .decide import Key, Ledger, Reservation

_rows = tables.Reservation.__table__
_COLUMNS = ("agent", "id", "open", "ends_at", "state")
_OPEN = sa.select(_rows.c.agent, _rows.c.id, _rows.c.state).where(_rows.c.open == 1)
_SOME = "SELECT id, state FROM cost_watchdog_reservations WHERE agent = {} AND id IN ({})"  # of one agent: by the key
_CHUNK = 500  # keys in one query


class Reservations:
    """Loads and saves reservations inside the watchdog's transactions. After each: `committed`, or `forget`."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self._closed: dict[Key, Reservation | None] = {}  # what this transaction has read of those that are not open
        self._changed: dict[Key, Reservation | None] = {}
        self._stale = True
        self._encoder, self._decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(Reservation)

    def begin(self, conn: Connection) -> None:
        """Begins a transaction's work."""
        self._closed, self._changed = {}, {}
        if self._stale:
            self.ledger = Ledger(
                (Key(agent, id), self._decoder.decode(state)) for agent, id, state in conn.execute(_OPEN)
            )
            self._stale = False

    def load(self, conn: Connection, keys: Sequence[Key]) -> None:
        """Reads the reservations that are not open, as far as there are any."""
        wanted: dict[str, list[str]] = {}
        for key in keys:
            if key not in self.ledger.open and key not in self._closed:
                self._closed[key] = None
                wanted.setdefault(key.agent, []).append(key.id)
        mark = "?" if conn.dialect.name == "sqlite" else "%s"
        for agent, ids in wanted.items():
            for start in range(0, len(ids), _CHUNK):
                some = ids[start : start + _CHUNK]
                query = _SOME.format(mark, ", ".join([mark] * len(some)))
                for id, state in conn.exec_driver_sql(query, (agent, *some)):
                    self._closed[Key(agent, id)] = self._decoder.decode(state)

    def get(self, key: Key) -> Reservation | None:
        """A reservation that was loaded."""
        return self.ledger.open.get(key) or self._closed.get(key)

    def put(self, key: Key, reservation: Reservation | None) -> None:
        """Changes a reservation, or drops it."""
        if reservation is not self.get(key):
            self.ledger.put(key, reservation)
            self._closed[key] = self._changed[key] = reservation

    def due(self, now: float) -> bool:
        """Whether it is time for `expire`. From any thread."""
        return self._stale or self.ledger.soonest <= now

    def expire(self, now: float) -> int:
        """Drops those whose time is over; how many were charged until now."""
        due = self.ledger.due(now)
        for key in due:
            self.put(key, None)
        return len(due)

    def save(self, conn: Connection) -> None:
        """Writes what was changed."""
        if not self._changed:
            return
        encode = self._encoder.encode
        kept = [
            (key.agent, key.id, int(one.open), one.ends_at, encode(one)) for key, one in self._changed.items() if one
        ]
        if kept:
            upsert(conn, _rows.name, _COLUMNS, kept, ("agent", "id"))
        for key, one in self._changed.items():
            if one is None:
                conn.execute(_rows.delete().where(_rows.c.agent == key.agent, _rows.c.id == key.id))

    def committed(self) -> None:
        """The transaction is saved."""
        self._closed, self._changed = {}, {}

    def forget(self) -> None:
        """The transaction may not be saved, or somebody else wrote: only the table knows."""
        self._stale = True


def tickets_of(conn: Connection, agent: str) -> list[tuple[str, str | None]]:
    """The tickets for which an agent's reservations were made, by their ids."""
    decode = msgspec.msgpack.Decoder(Reservation).decode
    rows = conn.execute(sa.select(_rows.c.id, _rows.c.state).where(_rows.c.agent == agent)).all()
    return [(id, decode(state).ticket) for id, state in rows]


def prune(conn: Connection, now: float) -> None:
    """Drops the memory of those that are over and whose repeat is not expected any more."""
    conn.execute(_rows.delete().where(_rows.c.open == 0, _rows.c.ends_at < now))
