"""What waits to be judged, for who looks at the queue or sits at the desk. What anybody else said is not told."""

import json
from datetime import UTC, datetime
from statistics import median
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .. import tables
from ..decide import Run
from . import store
from .decide import OPEN

_queue, _judgements = tables.Queued.__table__, tables.Judgement.__table__
_LIVE = sa.and_(_queue.c.track == "live", _queue.c.mode != "drill")
_WAITS = sa.and_(_LIVE, _queue.c.state.in_(OPEN))
_USUAL = 180.0  # seconds that one run takes, where too few were read to know
_LEAST, _NEWEST = 10, 50  # judgements below which nothing is known, and those that are looked at

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


class Share(NamedTuple):
    """How many wait, and for how many of them there is time until the end of the day."""

    waiting: int
    today: int
    last_day: str


class Progress(NamedTuple):
    """Of one person: runs judged today, those that are due today and left, and seconds that one usually takes."""

    done: int
    due: int
    seconds_each: float


def share(conn: Connection, agent: str | None, today: str) -> Share:
    """The queue in figures."""
    in_time = sa.func.coalesce(sa.func.sum(sa.case((_queue.c.due_day <= today, 1), else_=0)), 0)
    query = sa.select(sa.func.count(), in_time, sa.func.max(_queue.c.due_day)).where(_WAITS)
    row = conn.execute(query.where(_queue.c.agent == agent) if agent else query).one()
    return Share(int(row[0]), int(row[1]), max(row[2] or "", today))


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


def progress(conn: Connection, by: str, agent: str | None, now: datetime) -> Progress:
    """How far a person is today (UTC). What he or she holds is still to be judged."""
    today = now.astimezone(UTC).date()
    begins = datetime(today.year, today.month, today.day, tzinfo=UTC).timestamp()
    own = sa.select(sa.func.count()).select_from(_judgements)
    own = own.where(_judgements.c.by == by, _judgements.c.judged_at >= begins)
    done = conn.execute(own.where(_judgements.c.agent == agent) if agent else own).scalar_one()
    due = store.due_for(conn, by, now.timestamp(), agent=agent, day=today.isoformat())
    return Progress(int(done), due, seconds_each(conn, agent))


def seconds_each(conn: Connection, agent: str | None) -> float:
    """What one run takes: the median of the last ones, which somebody who went to lunch does not move."""
    query = sa.select(_judgements.c.seconds).where(_judgements.c.seconds.is_not(None))
    query = query.where(_judgements.c.agent == agent) if agent else query
    newest = query.order_by(_judgements.c.judged_at.desc(), _judgements.c.run_id, _judgements.c.by).limit(_NEWEST)
    found = [float(one) for one in conn.execute(newest).scalars()]
    return median(found) if len(found) >= _LEAST else _USUAL


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
