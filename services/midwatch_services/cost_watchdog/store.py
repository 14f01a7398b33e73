"""cost-watchdog's tables: the states of runs, tickets and models, and what is usual for agents, each a blob under its
key. Memory follows their commits."""

import secrets
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Generic, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from midwatch.contracts.subjects import FLEET

from . import policy, tables
from .allowances import store as allowances
from .differs import ModelState
from .rules.memory import Usual
from .state import RunState, Subject, TicketState

PREFIX = "cost_watchdog"
HOT = 20_000  # states of each kind that are kept in memory
_CHUNK = 500  # states read or judged at once

_runs = tables.Run.__table__
_tickets = tables.Ticket.__table__
_models = tables.Model.__table__
_usual = tables.Usual.__table__
_writer = tables.Writer.__table__

_PERIODS = str(Subject("live", FLEET, "%")).replace("_", "\\_")  # pattern of the keys of hours and days
_WROTE_LAST = "SELECT name FROM cost_watchdog_writer"
_SAVE_RUN = sa.text(
    "INSERT INTO cost_watchdog_runs (key, agent, finished, waiting_since, stalls_at, touched_at, state) VALUES "
    "(:key, :agent, :finished, :waiting_since, :stalls_at, :touched_at, :state) ON CONFLICT (key) DO UPDATE SET "
    "finished = excluded.finished, waiting_since = excluded.waiting_since, stalls_at = excluded.stalls_at, "
    "touched_at = excluded.touched_at, state = excluded.state"
)
_SAVE_OTHER = (
    "INSERT INTO cost_watchdog_{} (key, touched_at, state) VALUES (:key, :touched_at, :state) "
    "ON CONFLICT (key) DO UPDATE SET touched_at = excluded.touched_at, state = excluded.state"
)
_SAVE_TICKET, _SAVE_MODEL, _SAVE_USUAL = (
    sa.text(_SAVE_OTHER.format(table)) for table in ("tickets", "models", "usual")
)

S = TypeVar("S", RunState, TicketState, ModelState, Usual)


class _Kind(Generic[S]):
    """States of one kind: those of this transaction, and those last committed, as far as they are hot."""

    def __init__(self, table: sa.Table, kind: type[S]) -> None:
        self._query = sa.select(table.c.key, table.c.state).where(table.c.key.in_(sa.bindparam("keys", expanding=True)))
        self._decoder: msgspec.msgpack.Decoder[S] = msgspec.msgpack.Decoder(kind)
        self._new: Callable[[], S] = kind
        self._hot: OrderedDict[Subject, S] = OrderedDict()
        self._loaded: dict[Subject, S] = {}
        self.changed: dict[Subject, S] = {}

    def load(self, conn: Connection, subjects: Collection[Subject]) -> None:
        cold = {}
        for subject in subjects:
            if subject in self._loaded:
                continue
            if (hot := self._hot.get(subject)) is not None:
                self._loaded[subject] = hot
            else:
                self._loaded[subject] = self._new()
                cold[str(subject)] = subject
        keys = list(cold)
        for start in range(0, len(keys), _CHUNK):
            for key, state in conn.execute(self._query, {"keys": keys[start : start + _CHUNK]}):
                self._loaded[cold[key]] = self._decoder.decode(state)

    def get(self, subject: Subject) -> S:
        """A state that was loaded."""
        return self._loaded[subject]

    def put(self, subject: Subject, state: S) -> None:
        if state is not self._loaded.get(subject):
            self._loaded[subject] = self.changed[subject] = state

    def begin(self) -> None:
        self._loaded, self.changed = {}, {}

    def committed(self) -> None:
        for subject, state in self._loaded.items():
            self._hot[subject] = state
            self._hot.move_to_end(subject)
        while len(self._hot) > HOT:
            self._hot.popitem(last=False)
        self.begin()

    def forget(self) -> None:
        self._hot.clear()
        self.begin()


class Store:
    """Loads and saves states inside transactions, one after another. After each: `committed`, or `forget`."""

    def __init__(self) -> None:
        self.runs = _Kind(_runs, RunState)
        self.tickets = _Kind(_tickets, TicketState)
        self.models = _Kind(_models, ModelState)
        self.usual = _Kind(_usual, Usual)  # under an agent and a mode, without a name
        self._kinds = (self.runs, self.tickets, self.models, self.usual)
        self.reservations = allowances.Reservations()
        self._name = secrets.token_hex(8)
        self._encoder = msgspec.msgpack.Encoder()

    def begin(self, conn: Connection) -> None:
        """Begins a transaction's work. Where another process wrote since our last one, what is hot is stale."""
        for kind in self._kinds:
            kind.begin()
        if conn.exec_driver_sql(_WROTE_LAST).scalar() != self._name:
            self.forget()
            conn.execute(_writer.update().values(name=self._name))
        self.reservations.begin(conn)

    def save(self, conn: Connection, now: datetime) -> None:
        """Writes the states that were put."""
        touched_at, encode = int(now.timestamp()), self._encoder.encode
        if self.runs.changed:
            conn.execute(_SAVE_RUN, [
                {
                    "key": str(run), "agent": run.agent, "finished": int(state.finished),
                    "waiting_since": min((one.arrived for one in state.waiting), default=None),
                    "stalls_at": state.loops.stalls_at, "touched_at": touched_at, "state": encode(state),
                }
                for run, state in self.runs.changed.items()
            ])  # fmt: skip
        self._save_other(conn, _SAVE_TICKET, touched_at, self.tickets.changed)
        self._save_other(conn, _SAVE_MODEL, touched_at, self.models.changed)
        self._save_other(conn, _SAVE_USUAL, touched_at, self.usual.changed)
        self.reservations.save(conn)

    def _save_other(
        self, conn: Connection, statement: sa.TextClause, at: int,
        changed: Mapping[Subject, TicketState | ModelState | Usual],
    ) -> None:  # fmt: skip
        if changed:
            conn.execute(statement, [
                {"key": str(subject), "touched_at": at, "state": self._encoder.encode(state)}
                for subject, state in changed.items()
            ])  # fmt: skip

    def committed(self) -> None:
        """The transaction is saved: its states are now what is known."""
        for kind in self._kinds:
            kind.committed()
        self.reservations.committed()

    def forget(self) -> None:
        """The transaction may not be saved: only the tables know."""
        for kind in self._kinds:
            kind.forget()
        self.reservations.forget()


def is_new(conn: Connection) -> bool:
    """Whether nothing was ever written here."""
    return conn.exec_driver_sql(_WROTE_LAST).scalar() == ""


def rebuilding(conn: Connection) -> int | None:
    """The sequence at which the rebuild under way goes on."""
    goes_on: int | None = conn.execute(sa.select(_writer.c.rebuild_next)).scalar_one()
    return goes_on


def note_rebuild(conn: Connection, goes_on: int | None) -> None:
    """At which sequence the rebuild goes on; None once it has ended."""
    conn.execute(_writer.update().values(rebuild_next=goes_on))


def waiting(conn: Connection, before: float) -> list[Subject]:
    """Runs in which an event has waited since `before` (Unix seconds)."""
    return _subjects(
        conn.execute(sa.select(_runs.c.key).where(_runs.c.waiting_since <= before).limit(_CHUNK)).scalars()
    )


def stalled(conn: Connection, now: float) -> list[Subject]:
    """Runs whose silence is to be reported by now (Unix seconds)."""
    return _subjects(conn.execute(sa.select(_runs.c.key).where(_runs.c.stalls_at <= now).limit(_CHUNK)).scalars())


def in_flight(conn: Connection, agent: str, after: str = "") -> list[Subject]:
    """Some runs of an agent that have not finished, in the order of their keys, those past the key `after`."""
    query = sa.select(_runs.c.key).where(_runs.c.agent == agent, _runs.c.finished == 0, _runs.c.key > after)
    return _subjects(conn.execute(query.order_by(_runs.c.key).limit(_CHUNK)).scalars())


def agents_in_flight(conn: Connection) -> list[str]:
    """Agents with runs that have not finished."""
    return list(conn.execute(sa.select(_runs.c.agent).where(_runs.c.finished == 0).distinct()).scalars())


def silent(conn: Connection, now: datetime) -> list[Subject]:
    """Runs that never finished, of which no more is expected."""
    before = int((now - policy.KEEP_SILENT).timestamp())
    query = sa.select(_runs.c.key).where(_runs.c.finished == 0, _runs.c.touched_at < before)
    return _subjects(conn.execute(query).scalars())


def periods(conn: Connection) -> list[tuple[Subject, TicketState]]:
    """The sums of all hours and days that are kept."""
    query = sa.select(_tickets.c.key, _tickets.c.state).where(_tickets.c.key.like(_PERIODS, escape="\\"))
    decode = msgspec.msgpack.Decoder(TicketState).decode
    return [(Subject(*key.split("/", 2)), decode(state)) for key, state in conn.execute(query)]


def prune(conn: Connection, now: datetime) -> None:
    """Drops the states of which no more is expected."""

    def ago(age: timedelta) -> int:
        return int((now - age).timestamp())

    runs, tickets = _runs.c, _tickets.c
    finished = sa.and_(runs.finished == 1, runs.touched_at < ago(policy.KEEP_FINISHED))
    conn.execute(_runs.delete().where(sa.or_(finished, runs.touched_at < ago(policy.KEEP_SILENT))))
    conn.execute(_tickets.delete().where(tickets.touched_at < ago(policy.KEEP_TICKET)))
    conn.execute(_usual.delete().where(_usual.c.touched_at < ago(policy.KEEP_USUAL)))
    an_hour = _tickets.c.key.like(f"{_PERIODS}/hour/%", escape="\\")
    hours = sa.and_(an_hour, tickets.touched_at < ago(policy.KEEP_HOUR))
    conn.execute(_tickets.delete().where(hours))
    allowances.prune(conn, now.timestamp())


def silent_models(conn: Connection, now: datetime) -> list[Subject]:
    """Models whose state nothing has changed for long."""
    before = int((now - policy.KEEP_TICKET).timestamp())
    query = sa.select(_models.c.key).where(_models.c.touched_at < before).limit(_CHUNK)
    return _subjects(conn.execute(query).scalars())


def drop_models(conn: Connection, models: Iterable[Subject]) -> None:
    """Drops the states of these models."""
    conn.execute(_models.delete().where(_models.c.key.in_([str(model) for model in models])))


def _subjects(keys: Iterable[str]) -> list[Subject]:
    return [Subject(*key.split("/", 2)) for key in keys]  # type: ignore[arg-type]
