"""The sampler's tables, and what it remembers of them in memory."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from midwatch.runtime.database import insert_new

from . import tables
from .decide import DayKey, Decision, Drawn

PREFIX = "reviewer_sampler"
_keys = tables.Key.__table__
_runs = tables.Run.__table__
_queue = tables.Queued.__table__
_KEY_COLUMNS = tuple(_keys.columns.keys())
_RUN_COLUMNS = tuple(_runs.columns.keys())
_QUEUE_COLUMNS = (
    "agent", "run_id", "track", "mode", "ticket", "rate", "draw", "day", "key_hash", "sampled_at", "state", "version",
    "due_day",
)  # fmt: skip
_OPEN = ("waiting", "judged", "disputed")  # states of a run that wants a judge
_NEVER = 1e12  # by any clock; SQLite takes an index for a stretch with two ends
_RUN = tuple(_runs.primary_key.columns.keys())

# Writing


def key_of(conn: Connection, day: str, fresh: bytes) -> tuple[DayKey, bool]:
    """The key of `day`, which is `fresh` if there was none, and whether its hash was published."""
    insert_new(conn, _keys.name, _KEY_COLUMNS, [(day, fresh, 0, 0)], ("day",))
    row = conn.execute(sa.select(_keys.c.key, _keys.c.committed).where(_keys.c.day == day)).one()
    return DayKey(day, bytes(row.key)), bool(row.committed)


def mark_committed(conn: Connection, day: str) -> None:
    conn.execute(_keys.update().where(_keys.c.day == day).values(committed=1))


def mark_revealed(conn: Connection, day: str) -> None:
    conn.execute(_keys.update().where(_keys.c.day == day).values(revealed=1))


def save(conn: Connection, decisions: Sequence[Decision], now: datetime) -> list[Drawn]:
    """Records the runs that were never decided, queues those drawn, and returns these."""
    rows = [
        (
            *one.first.run, one.first.day, one.rate, one.draw, int(isinstance(one, Drawn)), one.first.stored_at,
            one.first.version, now.timestamp(),
        )
        for one in decisions
    ]  # fmt: skip
    fresh = [decisions[place] for place in insert_new(conn, _runs.name, _RUN_COLUMNS, rows, _RUN)]
    met = _meet(conn, fresh)
    drawn = [one for one in fresh if isinstance(one, Drawn) and one.first.run not in met]
    queued = [_queue_row(one, now) for one in drawn]
    new = insert_new(conn, _queue.name, _QUEUE_COLUMNS, queued, _RUN) if drawn else []
    return [drawn[place] for place in new] + [one for one in fresh if isinstance(one, Drawn) and one.first.run in met]


def _meet(conn: Connection, decisions: Sequence[Decision]) -> set[tuple[str, str, str]]:
    """Fills in what was decided of runs that were added to the queue before they were seen, and returns those."""
    unseen = _queue.c.key_hash == sa.literal_column("''")
    waiting = {(row.agent, row.run_id, row.track) for row in conn.execute(sa.select(*_queue_key()).where(unseen))}
    met = [one for one in decisions if one.first.run in waiting]
    for one in met:
        which = [column == part for column, part in zip(_queue_key(), one.first.run, strict=True)]
        figures = {"rate": one.rate, "draw": one.draw, "day": one.first.day, "key_hash": one.key_hash}
        drawn = int(isinstance(one, Drawn))
        conn.execute(_queue.update().where(*which).values(**figures, drawn=drawn, version=one.first.version))
    return {one.first.run for one in met}


def _queue_key() -> tuple[sa.Column[str], ...]:
    return _queue.c.agent, _queue.c.run_id, _queue.c.track


def _queue_row(one: Drawn, now: datetime) -> tuple[Any, ...]:
    ticket = one.first.ticket.replace("\0", "\ufffd") if one.first.ticket else one.first.ticket
    return (
        *one.first.run, one.first.mode, ticket, one.rate, one.draw, one.first.day, one.key_hash, now.timestamp(),
        "waiting", one.first.version, one.first.day,
    )  # fmt: skip


def prune(conn: Connection, before: datetime) -> int:
    """Forgets runs first seen before `before`. The queue stays."""
    return conn.execute(_runs.delete().where(_runs.c.seen_at < before.timestamp())).rowcount


# Reading


def to_reveal(conn: Connection, today: str) -> list[DayKey]:
    """Keys of days before `today` that were committed to and are not revealed yet."""
    query = sa.select(_keys.c.day, _keys.c.key).where(
        _keys.c.day < today, _keys.c.committed == 1, _keys.c.revealed == 0
    )
    return [DayKey(row.day, bytes(row.key)) for row in conn.execute(query.order_by(_keys.c.day))]


def queue(
    conn: Connection, *, agent: str | None = None, mode: str | None = None, waiting: bool = False,
    limit: int | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """The review queue, the newest first; `waiting`: of what waits for a judgement alone. Replays, and drills, which no
    customer saw, are left out unless `mode` asks for them."""
    query = sa.select(_queue).order_by(_queue.c.sampled_at.desc(), _queue.c.agent, _queue.c.run_id).limit(limit)
    query = query.where(_of(mode), _queue.c.state.in_(_OPEN) if waiting else sa.true())
    query = query.where(_queue.c.agent == agent) if agent else query
    return [_shown(dict(row._mapping)) for row in conn.execute(query)]


def backlog(conn: Connection, mode: str | None = None) -> dict[str, int]:
    """How many runs of each agent wait for a judgement: live ones unless `mode` asks for others."""
    query = sa.select(_queue.c.agent, sa.func.count()).where(_of(mode), _queue.c.state.in_(_OPEN))
    return {agent: int(count) for agent, count in conn.execute(query.group_by(_queue.c.agent))}


def _of(mode: str | None) -> sa.ColumnElement[bool]:
    return _queue.c.mode == mode if mode else sa.and_(_queue.c.track == "live", _queue.c.mode != "drill")


def backlogs(conn: Connection, times: Sequence[float]) -> dict[str, list[int]]:
    """How many of an agent's live runs waited for a judgement at each of the times, which are in order; what was erased
    since is left out."""
    found: dict[str, list[int]] = {}
    # One after the other, so that each is a stretch of the index.
    for settled in (_queue.c.settled_at.is_(None), _queue.c.settled_at.between(times[0], _NEVER)):
        live = (_queue.c.track == "live", _queue.c.mode != "drill", _queue.c.state != "erased", settled)
        rows = sa.select(
            _queue.c.agent, _place(_queue.c.sampled_at, times).label("first"),
            _place(_queue.c.settled_at, times).label("end"),
        ).where(*live).subquery()  # fmt: skip
        alike = [rows.c[name] for name in ("agent", "first", "end")]
        counted: sa.Select[Any] = sa.select(*alike, sa.func.count()).group_by(*alike)
        for agent, first, end, count in conn.execute(counted):
            waited = found.setdefault(agent, [0] * len(times))
            for place in range(first, end):
                waited[place] += int(count)
    return found


def _place(column: sa.ColumnElement[Any], times: Sequence[float]) -> sa.ColumnElement[int]:
    """The first of the times by which it was so: one behind the last where it was never."""
    return sa.case(
        (column.is_(None), len(times)), *[(column < at, place) for place, at in enumerate(times)], else_=len(times)
    )  # fmt: skip


def of_run(conn: Connection, agent: str, run_id: str) -> list[dict[str, Any]]:
    """What the queue holds of one run: nothing where it was not drawn."""
    query = sa.select(_queue).where(_queue.c.agent == agent, _queue.c.run_id == run_id)
    return [_shown(dict(row._mapping)) for row in conn.execute(query)]


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    del row["track"], row["second"]  # that a second is asked may say what the first said
    row["settled_at"] = row["settled_at"] and _rfc(row["settled_at"])
    row["sampled_at"] = _rfc(row["sampled_at"])
    return row


def _rfc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def queued(conn: Connection, runs: Sequence[tuple[str, str]]) -> int:
    """How many items of the queue are of these runs (agent, run id)."""
    which = sa.tuple_(_queue.c.agent, _queue.c.run_id)
    return sum(
        conn.execute(sa.select(sa.func.count()).select_from(_queue).where(which.in_(runs[at : at + 400]))).scalar_one()
        for at in range(0, len(runs), 400)
    )


def shares(conn: Connection, *, agent: str | None = None, track: str = "live") -> list[dict[str, Any]]:
    """How many runs of each agent were drawn, of those remembered."""
    runs, drawn = sa.func.count().label("runs"), sa.func.sum(_runs.c.drawn).label("drawn")
    query = sa.select(_runs.c.agent, runs, drawn).where(_runs.c.track == track).group_by(_runs.c.agent)
    query = query.where(_runs.c.agent == agent) if agent else query
    return [
        {"agent": row.agent, "runs": int(row.runs), "drawn": int(row.drawn), "share": int(row.drawn) / int(row.runs)}
        for row in conn.execute(query.order_by(_runs.c.agent))
    ]


def runs_of(conn: Connection, days: Sequence[str]) -> list[dict[str, Any]]:
    """Every run that was decided on these days, with its figures."""
    query = sa.select(_runs).where(_runs.c.day.in_(days)).order_by(_runs.c.day, _runs.c.agent, _runs.c.run_id)
    return [dict(row._mapping) for row in conn.execute(query)]


def queued_of(conn: Connection, days: Sequence[str]) -> set[tuple[str, str, str]]:
    """The runs in the queue that were drawn on these days; those that were only added are no draws."""
    query = sa.select(*_queue_key()).where(_queue.c.day.in_(days), _queue.c.drawn == 1)
    return {(row.agent, row.run_id, row.track) for row in conn.execute(query)}


def known(conn: Connection, runs: Sequence[tuple[str, str, str]]) -> set[tuple[str, str, str]]:
    """Which of these runs were decided, on whatever day."""
    found: set[tuple[str, str, str]] = set()
    columns = (_runs.c.agent, _runs.c.run_id, _runs.c.track)
    for start in range(0, len(runs), 500):
        some = runs[start : start + 500]
        query = sa.select(*columns).where(sa.tuple_(*columns).in_(some))
        found |= {(row.agent, row.run_id, row.track) for row in conn.execute(query)}
    return found
