"""Who holds which run, who said what of it, and what stands. Every function works within its caller's transaction,
which no other process of the service shares (see `runtime/database`)."""

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from midwatch.contracts.reviews import ReviewJudged
from midwatch.contracts.runs import Mode
from midwatch.runtime.database import insert_new

from .. import tables
from ..decide import Run
from .decide import BY_HASH, OPEN, Opinion, Outcome, State

_queue, _runs = tables.Queued.__table__, tables.Run.__table__
_claims, _judgements = tables.Claim.__table__, tables.Judgement.__table__
_JUDGEMENT = tuple(_judgements.columns.keys())
_KEY = tuple(_judgements.primary_key.columns.keys())
_CLAIM = tuple(_claims.columns.keys())


def new_key() -> bytes:
    """A key for a day."""
    return secrets.token_bytes(32)


class Item(NamedTuple):
    """A run of the queue."""

    run: Run
    mode: Mode
    ticket: str | None
    state: State
    second: int
    drawn: bool
    version: str
    day: str


class Held(NamedTuple):
    """A claim, over or not."""

    claim: str
    run: Run
    by: str
    until: float
    over: bool


def _of(table: sa.Table, run: Run) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.agent == run.agent, table.c.run_id == run.run_id, table.c.track == run.track)


def same(one: sa.Table, other: sa.Table) -> sa.ColumnElement[bool]:
    return sa.and_(one.c.agent == other.c.agent, one.c.run_id == other.c.run_id, one.c.track == other.c.track)


def _item(row: Row[Any]) -> Item:
    run = Run(row.agent, row.run_id, row.track)
    return Item(run, row.mode, row.ticket, row.state, row.second, bool(row.drawn), row.version, row.day)


# The queue


def item(conn: Connection, run: Run) -> Item | None:
    """A run of the queue, if it is there."""
    row = conn.execute(sa.select(_queue).where(_of(_queue, run))).first()
    return None if row is None else _item(row)


def add(conn: Connection, run: Run, judged: ReviewJudged, day: str, key_hash: str, now: datetime) -> Item:
    """Queues a run that nobody drew, because somebody judged it. `key_hash`: of the key by which it was passed over;
    one that was never seen has none yet, so that its first event still draws it."""
    seen = conn.execute(sa.select(_runs.c.rate, _runs.c.draw, _runs.c.day).where(_of(_runs, run))).first()
    rate, draw, day = (seen.rate, seen.draw, seen.day) if seen is not None else (0.0, 1.0, day)
    key_hash = key_hash if seen is not None else ""
    ticket = judged.ticket.replace("\0", "\ufffd") if judged.ticket else judged.ticket
    row = (*run, judged.mode, ticket, rate, draw, day, key_hash, now.timestamp(), "waiting", 0)
    columns = (
        "agent", "run_id", "track", "mode", "ticket", "rate", "draw", "day", "key_hash", "sampled_at", "state", "drawn",
    )  # fmt: skip
    insert_new(conn, _queue.name, columns, [row], ("agent", "run_id", "track"))
    return Item(run, judged.mode, ticket, "waiting", 0, False, "", day)


def want_second(conn: Connection, run: Run) -> None:
    """The hash has drawn the run for two."""
    conn.execute(_queue.update().where(_of(_queue, run)).values(second=BY_HASH))


def move(conn: Connection, run: Run, outcome: Outcome, verdict: str | None, now: datetime) -> None:
    """Saves what became of a run that was judged. A settled one is held by nobody."""
    settled = outcome.state == "settled"
    values: dict[str, Any] = {"state": outcome.state, "second": outcome.second}
    values |= {"verdict": verdict, "settled_at": now.timestamp()} if settled else {}
    conn.execute(_queue.update().where(_of(_queue, run)).values(values))
    if settled:
        conn.execute(_claims.update().where(_of(_claims, run)).values(over=1))


# Claims


def next_for(
    conn: Connection, by: str, now: float, *, agent: str | None, run_id: str | None, skip: Sequence[str] = ()
) -> Item | None:
    """The next run that this person may judge, or `run_id` if it is one."""
    query = _for_person(by, now, agent, run_id, skip)
    order = (_queue.c.due_day, _queue.c.sampled_at, _queue.c.agent, _queue.c.run_id, _queue.c.track)
    row = conn.execute(query.order_by(*order).limit(1)).first()
    return None if row is None else _item(row)


def left_for(conn: Connection, by: str, now: float, *, agent: str | None, skip: Sequence[str] = ()) -> int:
    """How many runs this person may judge, beside those that he or she holds."""
    query = _for_person(by, now, agent, None, skip, besides_own=True).subquery()
    return int(conn.execute(sa.select(sa.func.count()).select_from(query)).scalar_one())


def due_for(conn: Connection, by: str, now: float, *, agent: str | None, day: str) -> int:
    """How many runs this person may judge that are due by that day, with those that he or she holds."""
    query = _for_person(by, now, agent, None, ()).where(_queue.c.due_day <= day).subquery()
    return int(conn.execute(sa.select(sa.func.count()).select_from(query)).scalar_one())


def _for_person(
    by: str, now: float, agent: str | None, run_id: str | None, skip: Sequence[str], *, besides_own: bool = False
) -> sa.Select[Any]:
    query = sa.select(_queue).where(_queue.c.state.in_(OPEN), ~full_for(by, now), ~said_by(by))
    query = query.where(_queue.c.agent == agent) if agent else query
    query = query.where(_queue.c.run_id.not_in(skip)) if skip else query
    if besides_own:
        query = query.where(~sa.exists().where(_holds(now), _claims.c.by == by))
    if run_id is not None:  # whoever names a replay or a drill means it
        return query.where(_queue.c.run_id == run_id)
    return query.where(_queue.c.track == "live", _queue.c.mode != "drill")


def said_by(by: str) -> sa.ColumnElement[bool]:
    """Of a run of the queue, whether this person has judged it."""
    return sa.exists().where(same(_judgements, _queue), _judgements.c.by == by)


def full_for(by: str, now: float) -> sa.ColumnElement[bool]:
    """Of a run of the queue, whether others hold it, as many as it wants judges."""
    others = sa.select(sa.func.count()).select_from(_claims).where(_holds(now), _claims.c.by != by)
    wanted = sa.case((sa.and_(_queue.c.state == "waiting", _queue.c.second > 0), 2), else_=1)
    return others.scalar_subquery() >= wanted


def _holds(now: float) -> sa.ColumnElement[bool]:
    return sa.and_(same(_claims, _queue), _claims.c.over == 0, _claims.c.until > now)


def held_by(
    conn: Connection, by: str, now: float, *, agent: str | None, run_id: str | None, skip: Sequence[str] = ()
) -> Held | None:
    """What this person holds already, `run_id` if that is named."""
    query = sa.select(_claims).where(_claims.c.by == by, _claims.c.over == 0, _claims.c.until > now)
    query = query.where(_claims.c.agent == agent) if agent else query
    query = query.where(_claims.c.run_id == run_id) if run_id is not None else query
    query = query.where(_claims.c.run_id.not_in(skip)) if skip else query
    row = conn.execute(query.order_by(_claims.c.taken_at, _claims.c.claim).limit(1)).first()
    return None if row is None else _held(row)


def claim(conn: Connection, id: str) -> Held | None:
    """A claim by its id."""
    row = conn.execute(sa.select(_claims).where(_claims.c.claim == id)).first()
    return None if row is None else _held(row)


def _held(row: Row[Any]) -> Held:
    return Held(row.claim, Run(row.agent, row.run_id, row.track), row.by, row.until, bool(row.over))


def take(conn: Connection, id: str, run: Run, by: str, now: float, until: float) -> Held:
    """Gives the run to a person."""
    conn.execute(_claims.insert().values(dict(zip(_CLAIM, (id, *run, by, now, until, 0), strict=True))))
    return Held(id, run, by, until, False)


def extend(conn: Connection, id: str, until: float) -> None:
    conn.execute(_claims.update().where(_claims.c.claim == id).values(until=until))


def release(conn: Connection, id: str, now: float) -> None:
    """Ends a claim; whoever judges the run after this did not hold it."""
    conn.execute(_claims.update().where(_claims.c.claim == id).values(over=1, until=sa.func.min(now, _claims.c.until)
                 if conn.dialect.name == "sqlite" else sa.func.least(now, _claims.c.until)))  # fmt: skip


def holding(conn: Connection, run: Run, by: str, at: float) -> dict[str, float]:
    """Who held the run at a time and had not judged it, with when each took it. That a claim is over by now does not
    matter: what `by` says counts as of when it was said, however late it is read."""
    said = sa.exists().where(same(_judgements, _claims), _judgements.c.by == _claims.c.by)
    began = sa.or_(_claims.c.taken_at <= at, _claims.c.by == by)  # whoever speaks of a run took it before, by any clock
    query = sa.select(_claims.c.by, _claims.c.taken_at).where(_of(_claims, run), began, ~said)
    return {row.by: row.taken_at for row in conn.execute(query.where(_claims.c.until > at))}


def prune(conn: Connection, before: datetime) -> int:
    """Forgets claims that were over long ago."""
    return conn.execute(_claims.delete().where(_claims.c.until < before.timestamp())).rowcount


# Judgements


def judged(conn: Connection, run: Run, by: str) -> bool:
    """Whether this person has judged the run."""
    query = sa.select(sa.literal(1)).where(_of(_judgements, run), _judgements.c.by == by)
    return conn.execute(query).first() is not None


def opinions(conn: Connection, run: Run) -> list[Opinion]:
    """What was said of the run and counts, in the order in which it was said."""
    query = sa.select(_judgements).where(_of(_judgements, run), _judgements.c.counts == 1)
    return [opinion_of(row) for row in conn.execute(query.order_by(_judgements.c.judged_at, _judgements.c.event))]


def opinion_of(row: Row[Any]) -> Opinion:
    """A row of the judgements."""
    return Opinion(row.by, row.verdict, tuple(msgspec.json.decode(row.reasons)), row.corrected, row.note, row.judged_at)


def keep(
    conn: Connection, run: Run, one: Opinion, *, event: str, claim: str, seconds: float | None, counts: bool
) -> None:
    """Keeps a judgement, and ends what its judge held of the run."""
    reasons = msgspec.json.encode(one.reasons).decode()
    row = (*run, one.by, event, claim, one.verdict, reasons, one.corrected, one.note, seconds, one.at, int(counts))
    insert_new(conn, _judgements.name, _JUDGEMENT, [row], _KEY)
    conn.execute(_claims.update().where(_of(_claims, run), _claims.c.by == one.by).values(over=1))


def minutes_read(conn: Connection, agent: str, now: datetime) -> float:
    """Minutes that people have read of an agent's runs on this day (UTC), as far as their time is known."""
    day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    begins, ends = day.timestamp(), (day + timedelta(days=1)).timestamp()
    query = sa.select(sa.func.coalesce(sa.func.sum(_judgements.c.seconds), 0.0)).where(
        _judgements.c.agent == agent, _judgements.c.judged_at >= begins, _judgements.c.judged_at < ends
    )
    return float(conn.execute(query).scalar_one()) / 60


def why_not(conn: Connection, by: str, agent: str | None, run_id: str) -> str:
    """Why a person cannot have a run that he or she names."""
    query = sa.select(_queue).where(_queue.c.run_id == run_id)
    rows = [_item(row) for row in conn.execute(query.where(_queue.c.agent == agent) if agent else query)]
    if not rows:
        return f"{run_id} is not in the queue: list it with `midwatch reviews`"
    if any(judged(conn, one.run, by) for one in rows):
        return f"{by} has judged {run_id} already"
    if all(one.state in ("settled", "erased") for one in rows):
        return f"{run_id} is {rows[0].state}: nobody needs to judge it any more"
    return f"{run_id} is held by somebody else: it comes back when it is judged, released or its time has passed"
