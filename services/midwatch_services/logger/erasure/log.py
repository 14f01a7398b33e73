"""Blanks events, runs and alerts in the log's own tables, and writes into the agents' chains that it was done."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from midwatch.contracts.erasure import ErasedRun
from midwatch.contracts.governance import AlertRaised

from .. import tables
from ..evidence import chain, chain_store
from ..search.index_store import SWEEP, cursor, forget, touch
from . import blank
from .match import RunKey

TABLES = (
    "logger_events", "logger_runs", "logger_alerts", "logger_holds", "logger_reviews", "logger_readings",
    "logger_unread", "logger_erasures", "logger_erased_runs", "logger_erasure_parts",
)  # fmt: skip
_events, _runs, _alerts = tables.Event.__table__, tables.Run.__table__, tables.Alert.__table__
_holds, _reviews = tables.Hold.__table__, tables.Review.__table__


class Leaf(msgspec.Struct, frozen=True):
    """An event that was erased, as the proof names it."""

    agent: str
    id: str
    run_id: str
    place: int
    leaf: str


@dataclass
class Blanked:
    """What was erased from the log."""

    leaves: list[Leaf] = field(default_factory=list)
    runs: int = 0
    alerts: set[str] = field(default_factory=set)


def erase(conn: Connection, erasure: str, runs: Sequence[ErasedRun], *, at: str, by: str) -> Blanked:
    """Blanks all that the log has of the runs, and notes it in their agents' chains. Done twice it is done once."""
    done = Blanked()
    for run in runs:
        done.leaves += _erase_events(conn, erasure, (run.agent, run.run_id))
        values = dict.fromkeys(("ticket", "session", "customer", "error", "handed_off_reason"))
        which = (_runs.c.agent == run.agent, _runs.c.run_id == run.run_id)
        done.runs += conn.execute(_runs.update().where(*which).values(values)).rowcount
        which_review = (_reviews.c.agent == run.agent, _reviews.c.run_id == run.run_id)
        conn.execute(_reviews.update().where(*which_review).values(note=None))
    done.alerts = erase_alerts(conn, runs)
    for agent in {run.agent for run in runs}:
        forget(conn, agent, [run.run_id for run in runs if run.agent == agent])
    touch(conn, ((run.agent, run.run_id, at, True) for run in runs))
    note(conn, erasure, done.leaves, at=at, by=by)
    return done


def leaves_of(conn: Connection, runs: Iterable[ErasedRun]) -> list[Leaf]:
    """The events of the runs that are erased, in order of place."""
    columns = (_events.c.id, _events.c.place, _events.c.leaf, _events.c.body)
    found = []
    for run in runs:
        query = sa.select(*columns).where(_events.c.agent == run.agent, _events.c.run_id == run.run_id)
        found += [
            Leaf(run.agent, row.id, run.run_id, row.place, "" if row.leaf is None else bytes(row.leaf).hex())
            for row in conn.execute(query)
            if blank.erased_by(row.body) is not None
        ]
    return sorted(found, key=lambda leaf: (leaf.agent, leaf.place, leaf.id))


def _erase_events(conn: Connection, erasure: str, run: RunKey) -> list[Leaf]:
    columns = (_events.c.id, _events.c.month, _events.c.place, _events.c.salt, _events.c.leaf, _events.c.body)
    query = sa.select(*columns).where(_events.c.agent == run[0], _events.c.run_id == run[1])
    found, values = list[Leaf](), list[dict[str, Any]]()
    for row in conn.execute(query).all():
        if blank.erased_by(row.body) is not None:
            continue
        salt = None if row.salt is None else bytes(row.salt)
        values.append({"i": row.id, "m": row.month, "body": blank.body_of(erasure, salt, row.body)})
        found.append(Leaf(run[0], row.id, run[1], row.place, "" if row.leaf is None else bytes(row.leaf).hex()))
    if values:
        which = (_events.c.agent == run[0], _events.c.id == sa.bindparam("i"), _events.c.month == sa.bindparam("m"))
        conn.execute(
            _events.update().where(*which).values(body=sa.bindparam("body"), salt=None, ticket=None, note=None), values
        )
    return found


def erase_alerts(conn: Connection, runs: Iterable[ErasedRun], also: Collection[str] = ()) -> set[str]:
    """Blanks the alerts about the runs and their tickets, and those named in `also`; returns the ids of all."""
    found = _alerts_of(conn, runs, also)
    for alert_id, raised in found.items():
        values = {"raised": raised and blank.alert_of(raised), "resolved_reason": None}
        conn.execute(_alerts.update().where(_alerts.c.alert_id == alert_id).values(values))
    return set(found)


def _alerts_of(conn: Connection, runs: Iterable[ErasedRun], also: Collection[str] = ()) -> dict[str, str | None]:
    some = list(runs)
    keys = {(run.agent, run.run_id) for run in some}
    tickets = {(run.agent, ticket) for run in some for ticket in run.tickets}
    found: dict[str, str | None] = {}
    for agent in {agent for agent, _ in keys}:
        query = sa.select(_alerts.c.alert_id, _alerts.c.run_id, _alerts.c.raised).where(_alerts.c.agent == agent)
        for alert_id, run_id, raised in conn.execute(query):
            ticket = msgspec.json.decode(raised, type=AlertRaised).ticket if raised else None
            if (agent, run_id) in keys or (agent, ticket) in tickets or alert_id in also:
                found[alert_id] = raised
    return found


def words_stand(conn: Connection) -> bool:
    """Whether words of what was erased may still stand in the file of SQLite's full-text index."""
    return conn.dialect.name == "sqlite" and cursor(conn, SWEEP) > 0


def erased_alerts(conn: Connection, runs: Collection[ErasedRun]) -> list[str]:
    """The alerts of the runs' agents that were blanked."""
    agents = {run.agent for run in runs}
    query = sa.select(_alerts.c.alert_id, _alerts.c.raised).where(_alerts.c.agent.in_(agents))
    return [
        alert_id
        for alert_id, raised in conn.execute(query)
        if raised and msgspec.json.decode(raised, type=AlertRaised).title == blank.ERASED
    ]


def count(conn: Connection, runs: Sequence[ErasedRun]) -> dict[str, Any]:
    """How many events and alerts the log has of the runs, and which tickets they name."""
    events = 0
    for run in runs:
        which = (_events.c.agent == run.agent, _events.c.run_id == run.run_id)
        events += conn.execute(sa.select(sa.func.count()).select_from(_events).where(*which)).scalar_one()
    tickets = sorted({ticket for run in runs for ticket in run.tickets})
    return {"events": events, "alerts": len(_alerts_of(conn, runs)), "tickets": tickets}


def erase_holds(conn: Connection, names: Collection[str], at: str) -> list[str]:
    """Blanks what holds that are over say of the customer or ticket that they named; returns their ids."""
    over = sa.or_(_holds.c.lifted_at.is_not(None), _holds.c.until < at)
    named = sa.or_(*(column.in_(list(names)) for column in (_holds.c.customer, _holds.c.ticket, _holds.c.run_id)))
    found = list(conn.execute(sa.select(_holds.c.hold_id).where(over, named)).scalars())
    words = dict.fromkeys(("customer", "ticket", "reason", "lifted_reason"), blank.ERASED)
    for hold_id in found:
        conn.execute(_holds.update().where(_holds.c.hold_id == hold_id).values(words))
    return found


def note(
    conn: Connection, erasure: str, leaves: Iterable[Leaf], *, at: str, by: str, proof: str = "",
    agents: Collection[str] = (),
) -> None:  # fmt: skip
    """Appends to each agent's chain which of its places were erased, or that the `proof` with this hash is complete."""
    places: dict[str, list[int]] = {agent: [] for agent in agents}
    for leaf in leaves:
        places.setdefault(leaf.agent, []).append(leaf.place)
    for agent, some in sorted(places.items()):
        said = chain.erasure_note(erasure, at, by, [place for place in some if place])
        chain_store.append_note(conn, agent, "erasure", said | {"proof": proof} if proof else said)
