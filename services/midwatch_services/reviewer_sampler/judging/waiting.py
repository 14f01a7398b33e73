"""What waits to be judged, for the queue's page and the desk. Nothing of what others said is told."""

import json
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .. import tables
from ..decide import Run
from ..schedule import plan
from ..schedule import store as planned
from ..schedule.policy import MEDIAN_OF
from . import store
from .decide import OPEN

_queue, _judgements = tables.Queued.__table__, tables.Judgement.__table__
_LIVE = sa.and_(_queue.c.track == "live", _queue.c.mode != "drill")
_WAITS = sa.and_(_LIVE, _queue.c.state.in_(OPEN))

Standing = Literal["open", "judged", "settled", "erased", "unknown"]


class Waits(NamedTuple):
    """A run that waits. `state`: waiting, judged (one more is asked), disputed (a third is)."""

    agent: str
    run_id: str
    ticket: str | None
    state: str
    drawn: bool
    causes: list[Any]
    since: datetime
    due_day: str


class Settled(NamedTuple):
    """A run of which the verdict stands."""

    agent: str
    run_id: str
    ticket: str | None
    verdict: str
    at: datetime


class NotFor(NamedTuple):
    """A run that waits and that a person cannot have: judged by himself or herself, `is_own`, or held by others."""

    agent: str
    run_id: str
    due_day: str
    is_own: bool


class Progress(NamedTuple):
    """Of one person: runs judged today, those that are due today and left, and seconds that one usually takes."""

    done: int
    due: int
    seconds_each: float


def waiting(conn: Connection, agent: str | None, limit: int, skip: int = 0) -> list[Waits]:
    """The runs that wait, in the order in which they are given."""
    order = (_queue.c.due_day, _queue.c.sampled_at, _queue.c.agent, _queue.c.run_id)
    query = sa.select(_queue).where(_WAITS).order_by(*order).limit(limit).offset(skip)
    query = query.where(_queue.c.agent == agent) if agent else query
    return [
        Waits(
            row.agent, row.run_id, row.ticket, row.state, bool(row.drawn), json.loads(row.causes),
            datetime.fromtimestamp(row.sampled_at, UTC), row.due_day or row.day,
        )
        for row in conn.execute(query)
    ]  # fmt: skip


def not_for(conn: Connection, by: str, now: datetime) -> list[NotFor]:
    """The runs that wait and that this person cannot have now."""
    said = store.said_by(by)
    query = sa.select(_queue.c.agent, _queue.c.run_id, _queue.c.due_day, said.label("is_own"))
    query = query.where(_WAITS, sa.or_(said, store.full_for(by, now.timestamp())))
    return [NotFor(row.agent, row.run_id, row.due_day, bool(row.is_own)) for row in conn.execute(query)]


def newest(conn: Connection, since: datetime, limit: int) -> dict[tuple[str, str], str]:
    """The day on which each of the newest runs that wait is due, by agent and run id."""
    query = sa.select(_queue.c.agent, _queue.c.run_id, _queue.c.due_day)
    query = query.where(_WAITS, _queue.c.sampled_at >= since.timestamp()).order_by(_queue.c.sampled_at.desc())
    return {(row.agent, row.run_id): row.due_day for row in conn.execute(query.limit(limit))}


def settled(conn: Connection, agent: str | None, limit: int) -> list[Settled]:
    """The runs that were settled last, the newest first."""
    query = sa.select(_queue).where(_LIVE, _queue.c.state == "settled", _queue.c.verdict.is_not(None))
    query = query.where(_queue.c.agent == agent) if agent else query
    newest = query.order_by(_queue.c.settled_at.desc(), _queue.c.agent, _queue.c.run_id).limit(limit)
    return [
        Settled(row.agent, row.run_id, row.ticket, row.verdict, datetime.fromtimestamp(row.settled_at or 0.0, UTC))
        for row in conn.execute(newest)
    ]


def agents(conn: Connection) -> list[str]:
    """Agents that the queue knows."""
    return list(conn.execute(sa.select(_queue.c.agent).where(_LIVE).distinct().order_by(_queue.c.agent)).scalars())


def unsettled(conn: Connection, agent: str, by: str) -> set[str]:
    """The agent's runs of which no verdict stands, without those that this person failed."""
    failed = sa.and_(store.same(_judgements, _queue), _judgements.c.by == by, _judgements.c.verdict == "fail")
    query = sa.select(_queue.c.run_id).where(_WAITS, _queue.c.agent == agent, ~sa.exists().where(failed))
    return set(conn.execute(query).scalars())


def progress(conn: Connection, by: str, agent: str, now: datetime) -> Progress:
    """How far a person is today (UTC) with an agent's runs. What he or she holds is still to be judged."""
    today = now.astimezone(UTC).date()
    begins = datetime(today.year, today.month, today.day, tzinfo=UTC).timestamp()
    own = sa.select(sa.func.count()).select_from(_judgements)
    own = own.where(_judgements.c.by == by, _judgements.c.judged_at >= begins, _judgements.c.agent == agent)
    done = conn.execute(own).scalar_one()
    due = store.due_for(conn, by, now.timestamp(), agent=agent, day=today.isoformat())
    return Progress(int(done), due, plan.seconds_each(planned.seconds(conn, agent, MEDIAN_OF)))


def standing(conn: Connection, by: str, agent: str, run_id: str) -> Standing:
    """Whether this person can still say something of a run that counts: `judged` is by himself or herself."""
    item = store.item(conn, Run(agent, run_id, "live"))
    if item is None:
        return "unknown"
    if item.state == "erased":
        return "erased"
    if store.judged(conn, item.run, by):
        return "judged"
    return "settled" if item.state == "settled" else "open"
