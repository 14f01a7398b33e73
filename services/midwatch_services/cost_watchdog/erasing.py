"""What cost-watchdog forgets of a run that is erased: its state, its tickets, and money set aside for them. What it
cost stays in the sums of hours and days, which name nobody."""

from collections.abc import Collection
from typing import get_args

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from midwatch.contracts.erasure import ErasureResolved
from midwatch.contracts.runs import Mode
from midwatch.runtime.erasure import Counts

from . import tables
from .alerts import Decision
from .allowances import store as allowances
from .decide import close
from .state import Subject
from .store import Store

TABLES = (tables.Run.__tablename__, tables.Ticket.__tablename__, tables.Reservation.__tablename__)
WHY = "its run was erased"
_runs, _tickets, _reservations = tables.Run.__table__, tables.Ticket.__table__, tables.Reservation.__table__
_MODES: tuple[Mode, ...] = get_args(Mode)
_CHUNK = 400  # keys of one query


def erase(conn: Connection, part: ErasureResolved, store: Store) -> tuple[Counts, list[Decision]]:
    """Drops the states, and returns what is to be said: their alerts are over. Memory is to forget all."""
    names = {(run.agent, run.run_id) for run in part.runs}
    tickets = {(run.agent, ticket) for run in part.runs for ticket in run.tickets}
    runs = [Subject(mode, agent, run_id) for agent, run_id in sorted(names) for mode in _MODES]
    named = [Subject(mode, agent, ticket) for agent, ticket in sorted(tickets) for mode in _MODES]
    store.runs.load(conn, runs)
    store.tickets.load(conn, named)
    said = [one for run in runs for one in close(store.runs.get(run), run, WHY)]
    said += [one for ticket in named for one in close(store.tickets.get(ticket), ticket, WHY)]
    counts = {
        "runs": _drop(conn, _runs, runs), "tickets": _drop(conn, _tickets, named),
        "reservations": _drop_reservations(conn, tickets),
    }  # fmt: skip
    return counts, said


def _drop(conn: Connection, table: sa.Table, some: Collection[Subject]) -> int:
    keys, count = [str(one) for one in some], 0
    for start in range(0, len(keys), _CHUNK):
        count += conn.execute(table.delete().where(table.c.key.in_(keys[start : start + _CHUNK]))).rowcount
    return count


def _drop_reservations(conn: Connection, tickets: Collection[tuple[str, str]]) -> int:
    count = 0
    for agent in {agent for agent, _ in tickets}:
        for id, ticket in allowances.tickets_of(conn, agent):
            if (agent, ticket) in tickets:
                which = (_reservations.c.agent == agent, _reservations.c.id == id)
                count += conn.execute(_reservations.delete().where(*which)).rowcount
    return count
