"""What trips are judged by, as the tables have it: how runs ended, which were halted one by one, what was resumed."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch.contracts.control import SwitchRecord
from midwatch.runtime.database import insert_new

from .. import tables
from ..tables import from_micros, micros
from .trips import Ended

_outcomes = tables.Outcome.__table__
_halts = tables.Halt.__table__
_MINUTE = 60_000_000  # microseconds


class Outcome(NamedTuple):
    """How a live run ended."""

    agent: str
    run_id: str
    at: datetime
    failed: bool


def add_outcomes(conn: Connection, some: Sequence[Outcome]) -> list[Outcome]:
    """Saves how runs ended and returns those of which that was not known yet."""
    rows = [(one.agent, one.run_id, micros(one.at), int(one.failed)) for one in some]
    columns = ("agent", "run_id", "finished_at", "failed")
    return [some[place] for place in sorted(insert_new(conn, _outcomes.name, columns, rows, ("agent", "run_id")))]


def ended(conn: Connection, after: datetime, agent: str | None = None) -> list[Ended]:
    """The runs that ended after `after`, of one agent or of all."""
    c = _outcomes.c
    minute = (c.finished_at - c.finished_at % _MINUTE).label("minute")
    last = sa.func.max(sa.case((c.failed == 1, c.finished_at)))
    query = (
        sa.select(c.agent, minute, sa.func.count(), sa.func.sum(c.failed), last)
        .where(c.finished_at > micros(after))
        .group_by(c.agent, minute)
    )
    rows = conn.execute(query if agent is None else query.where(c.agent == agent))
    return [
        Ended(name, int(begins) // _MINUTE, finished, int(failed), None if at is None else from_micros(at))
        for name, begins, finished, failed, at in rows
    ]


def forget_outcomes(conn: Connection, before: datetime) -> None:
    """Drops how runs ended before `before`."""
    conn.execute(_outcomes.delete().where(_outcomes.c.finished_at < micros(before)))


def halted_runs(conn: Connection, after: datetime) -> dict[str, dict[str, datetime]]:
    """The runs of each agent that were halted one by one after `after`, by people or other services, and when."""
    prefix = subjects.runs_key("")
    columns = (_halts.c.key, _halts.c.target, _halts.c.requested_at, _halts.c.record)
    where = (_halts.c.requested_at > micros(after), _halts.c.key.startswith(prefix), _halts.c.target != "")
    found: dict[str, dict[str, datetime]] = {}
    for key, run_id, at, raw in conn.execute(sa.select(*columns).where(*where).order_by(_halts.c.requested_at)):
        record = msgspec.json.decode(raw, type=SwitchRecord)
        if not record.drill and record.by.partition("/")[0] != subjects.KILL_SWITCH:
            found.setdefault(key.removeprefix(prefix), {})[run_id] = from_micros(at)
    return found


def resumes(conn: Connection, after: datetime) -> dict[str, datetime]:
    """When the fleet or an agent was resumed last, by key, where that was after `after`. The end of a drill says
    nothing of the agent, and a halt in the place of another is no resume."""
    c = _halts.c
    keys = sa.or_(c.key == subjects.FLEET_KEY, c.key.startswith(subjects.agent_key("")))
    found: dict[str, datetime] = {}
    query = sa.select(c.key, c.closed_at, c.record, c.ended_by).where(c.closed_at > micros(after), keys)
    for key, at, raw, by in conn.execute(query.order_by(c.closed_at)):
        halted_again = by is not None and msgspec.json.decode(by, type=SwitchRecord).state == "halted"
        if not halted_again and not msgspec.json.decode(raw, type=SwitchRecord).drill:
            found[key] = from_micros(at)
    return found
