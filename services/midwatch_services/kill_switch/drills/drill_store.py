"""What kill-switch keeps of drills: those that run, and their results."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from midwatch.contracts import control, subjects
from midwatch.contracts.control import SwitchRecord
from midwatch.contracts.governance import SwitchDrilled

from .. import tables
from ..tables import from_micros, micros
from .drill_plan import Last

_drills = tables.Drill.__table__
_agents = tables.DrilledAgent.__table__
_halts = tables.Halt.__table__
_EARLIER = timedelta(minutes=1)  # by how much a halt may seem older than its drill: two clocks


@dataclass(frozen=True, slots=True)
class Drill:
    """A drill that kill-switch knows of. `result` is None while it runs."""

    drill_id: str
    agent: str
    by: str
    scheduled: bool
    started_at: datetime
    result: SwitchDrilled | None = None


@dataclass(frozen=True, slots=True)
class DrillHalt:
    """A halt that a drill wrote. `closed_at` is None while it stands."""

    agent: str
    record: SwitchRecord
    requested_at: datetime
    closed_at: datetime | None


def _drill(row: Row[tuple[object, ...]]) -> Drill:
    result = None if row.result is None else msgspec.json.decode(row.result, type=SwitchDrilled)
    return Drill(row.drill_id, row.agent, row.by, bool(row.scheduled), from_micros(row.started_at), result)


def find(conn: Connection, drill_id: str) -> Drill | None:
    row = conn.execute(sa.select(_drills).where(_drills.c.drill_id == drill_id)).first()
    return None if row is None else _drill(row)


def running(conn: Connection) -> list[Drill]:
    """The drills that have not reported."""
    return [_drill(row) for row in conn.execute(sa.select(_drills).where(_drills.c.result.is_(None)))]


def last(conn: Connection, agent: str) -> Last | None:
    """The newest drill of the agent that is over."""
    query = sa.select(_drills).where(_drills.c.agent == agent, _drills.c.result.is_not(None))
    row = conn.execute(query.order_by(_drills.c.started_at.desc()).limit(1)).first()
    drill = None if row is None else _drill(row)
    return Last(drill.started_at, drill.result.passed) if drill and drill.result else None


def add(conn: Connection, drill: Drill) -> None:
    """Notes a drill, unless it is known."""
    if find(conn, drill.drill_id) is None:
        values = {"drill_id": drill.drill_id, "agent": drill.agent, "by": drill.by, "scheduled": int(drill.scheduled)}
        conn.execute(_drills.insert().values(**values, started_at=micros(drill.started_at), result=None))


def claim(conn: Connection, drill: Drill, after: Last | None) -> bool:
    """Notes a drill before it halts anything, unless one runs or the agent was drilled since `after`: so no restart and
    no second kill-switch runs it again. Returns whether it was noted."""
    if running(conn) or last(conn, drill.agent) != after:
        return False
    add(conn, drill)
    return True


def drop(conn: Connection, drill_id: str) -> None:
    """Forgets a drill that has halted nothing."""
    conn.execute(_drills.delete().where(_drills.c.drill_id == drill_id, _drills.c.result.is_(None)))


def save_result(conn: Connection, result: SwitchDrilled) -> None:
    add(conn, Drill(result.drill_id, result.agent, result.by, result.scheduled, result.started_at))
    values = {"result": control.encode(result), "started_at": micros(result.started_at)}
    conn.execute(_drills.update().where(_drills.c.drill_id == result.drill_id).values(values))


def forget(conn: Connection, before: datetime) -> None:
    """Drops the drills that began before `before`."""
    conn.execute(_drills.delete().where(_drills.c.started_at < micros(before)))


def halts(conn: Connection, since: datetime) -> list[DrillHalt]:
    """The halts that drills wrote since `since`, open or closed."""
    query = sa.select(_halts).where(_halts.c.requested_at >= micros(since - _EARLIER))
    query = query.where(_halts.c.key.like("agent.%")).order_by(_halts.c.requested_at)
    found = []
    for row in conn.execute(query):
        record = msgspec.json.decode(row.record, type=SwitchRecord)
        if record.drill:
            agent = row.key.removeprefix(subjects.agent_key(""))
            closed_at = None if row.closed_at is None else from_micros(row.closed_at)
            found.append(DrillHalt(agent, record, from_micros(row.requested_at), closed_at))
    return found


# From when on the days to an agent's first drill count


def since(conn: Connection) -> dict[str, datetime]:
    return {row.agent: from_micros(row.since) for row in conn.execute(sa.select(_agents))}


def add_agents(conn: Connection, agents: Sequence[tuple[str, datetime]]) -> None:
    if agents:
        conn.execute(_agents.insert(), [{"agent": agent, "since": micros(at)} for agent, at in agents])


def drop_agents(conn: Connection, agents: Sequence[str]) -> None:
    conn.execute(_agents.delete().where(_agents.c.agent.in_(agents)))
