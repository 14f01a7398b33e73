"""What a schedule keeps and reads: where agents stand, verdicts, what waits, and runs added to the queue."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from midwatch.runtime.database import insert_new, upsert

from .. import tables
from .ageing import Open
from .besides import Asked
from .decide import Counts, State, day_of
from .plan import Item

_queue = tables.Queued.__table__
_runs = tables.Run.__table__
_keys = tables.Key.__table__
_judgements = tables.Judgement.__table__
_schedules = tables.Schedule.__table__
_ageing = tables.Ageing.__table__
_QUEUE_COLUMNS = (
    "agent", "run_id", "track", "mode", "ticket", "rate", "draw", "day", "key_hash", "sampled_at", "state", "drawn",
    "causes", "version", "due_day",
)  # fmt: skip
_RUN = ("agent", "run_id", "track")
_OPEN = ("waiting", "judged", "disputed")
# Whom people read: a drill was seen by no customer, and a replay's time is nobody's.
_READ = sa.and_(_queue.c.track == "live", _queue.c.mode != "drill", _queue.c.state.in_(_OPEN))

# Where agents stand


def states(conn: Connection, agents: Collection[str] | None = None) -> dict[str, State]:
    """The state of each agent, or of these."""
    query = sa.select(_schedules)
    query = query if agents is None else query.where(_schedules.c.agent.in_(sorted(agents)))
    return {row.agent: msgspec.msgpack.decode(row.body, type=State) for row in conn.execute(query)}


def save(conn: Connection, changed: Mapping[str, State]) -> None:
    """Keeps where these agents stand."""
    rows = [(agent, msgspec.msgpack.encode(state)) for agent, state in sorted(changed.items())]
    if rows:
        upsert(conn, _schedules.name, ("agent", "body"), rows, ("agent",))


def counts(conn: Connection, agent: str, since: float, until: float) -> Counts:
    """The verdicts that stood at `until` on live runs drawn since `since`, and how many were judged without one."""
    which = sa.and_(
        _queue.c.agent == agent, _queue.c.track == "live", _queue.c.mode == "live", _queue.c.drawn == 1,
        _queue.c.sampled_at >= since,
    )  # fmt: skip
    stood = sa.and_(which, _queue.c.settled_at < until, _queue.c.verdict.is_not(None))
    query = sa.select(_queue.c.verdict, sa.func.count()).where(stood).group_by(_queue.c.verdict)
    found = {verdict: int(count) for verdict, count in conn.execute(query)}
    waits = {verdict: _pending(conn, which, until, verdict) for verdict in (None, "fail")}
    verdicts = (found.get("pass", 0), found.get("fail", 0), found.get("unsure", 0))
    return Counts(*verdicts, pending=waits[None], doubted=waits["fail"])


def _pending(conn: Connection, which: sa.ColumnElement[bool], until: float, verdict: str | None) -> int:
    """How many were judged, so if one is given, and had no verdict that stood."""
    said = sa.exists().where(
        *(_judgements.c[name] == _queue.c[name] for name in _RUN),
        _judgements.c.counts == 1, _judgements.c.judged_at < until,
        _judgements.c.verdict == verdict if verdict else sa.true(),
    )  # fmt: skip
    still = sa.or_(_queue.c.state.in_(("judged", "disputed")), _queue.c.settled_at >= until)
    query = sa.select(sa.func.count()).select_from(_queue).where(which, still, said)
    return int(conn.execute(query).scalar_one())


def drawn_on(conn: Connection, agent: str, day: str) -> int:
    """How many live runs of that day were drawn."""
    which = (_runs.c.agent == agent, _runs.c.track == "live", _runs.c.day == day, _runs.c.drawn == 1)
    return int(conn.execute(sa.select(sa.func.count()).select_from(_runs).where(*which)).scalar_one())


# Runs read besides the draw


def add(conn: Connection, asked: Iterable[Asked], now: datetime) -> list[Asked]:
    """Puts the runs into the queue, or their cause to those that are there; returns what was new."""
    return [one for one in asked if _add(conn, one, now)]


def _add(conn: Connection, asked: Asked, now: datetime) -> bool:
    cause = asked.found.cause
    which = [_queue.c[name] == part for name, part in zip(_RUN, asked.run, strict=True)]
    row = conn.execute(sa.select(_queue.c.causes, _queue.c.state).where(*which)).first()
    if row is None:
        columns, known = _QUEUE_COLUMNS, _known(conn, asked, now)
        values = (
            *asked.run, "live", _text(asked.ticket), known.rate, known.draw, known.day, known.key_hash,
            now.timestamp(), "waiting", 0, _json([cause]), known.version, day_of(now.timestamp()),
        )  # fmt: skip
        insert_new(conn, _queue.name, columns, [values], _RUN)
        return True
    causes = msgspec.json.decode(row.causes)
    if row.state == "erased" or cause in causes:
        return False
    conn.execute(_queue.update().where(*which).values(causes=_json([*causes, cause])))
    return True


class _Known(NamedTuple):
    rate: float
    draw: float
    day: str
    key_hash: str
    version: str


def _known(conn: Connection, asked: Asked, now: datetime) -> _Known:
    """What was decided of the run; where it was not seen yet, a blank that its first event fills."""
    which = [_runs.c[name] == part for name, part in zip(_RUN, asked.run, strict=True)]
    query = sa.select(_runs.c.rate, _runs.c.draw, _runs.c.day, _runs.c.version, _keys.c.key)
    row = conn.execute(query.join(_keys, _keys.c.day == _runs.c.day).where(*which)).first()
    if row is None:
        return _Known(0.0, 1.0, day_of(now.timestamp()), "", asked.version or "")
    return _Known(row.rate, row.draw, row.day, sha256(bytes(row.key)).hexdigest(), row.version or asked.version or "")


def _json(causes: Sequence[str]) -> str:
    return msgspec.json.encode(causes).decode()


def _text(value: str | None) -> str | None:
    return value.replace("\0", "\ufffd") if value else value


# What waits


def fingerprint(conn: Connection) -> tuple[Any, ...]:
    """Differs where what waits, or what was judged, does."""
    columns = (_queue.c.agent, _queue.c.state, _queue.c.second, _queue.c.drawn)
    query = sa.select(*columns, sa.func.count(), sa.func.max(_queue.c.sampled_at)).where(_READ)
    waits = conn.execute(query.group_by(*columns).order_by(*columns)).all()
    judged = conn.execute(sa.select(sa.func.count(), sa.func.max(_judgements.c.judged_at))).one()
    return tuple(map(tuple, waits)), tuple(judged)


def waiting(conn: Connection) -> dict[str, list[Item]]:
    """What waits of each agent."""
    names = ("agent", "run_id", "state", "drawn", "causes", "sampled_at", "second", "due_day")
    found: dict[str, list[Item]] = {}
    for row in conn.execute(sa.select(*(_queue.c[name] for name in names)).where(_READ)):
        causes = [] if row.drawn else msgspec.json.decode(row.causes)
        need = 2 if row.state == "waiting" and row.second else 1
        item = Item(row.run_id, causes[0] if causes else "", row.sampled_at, need, row.due_day)
        found.setdefault(row.agent, []).append(item)
    return found


def move(conn: Connection, agent: str, days: Mapping[str, str]) -> None:
    """Has these runs (by id) be due on another day."""
    update = _queue.update().where(
        _queue.c.agent == agent, _queue.c.track == "live", _queue.c.run_id == sa.bindparam("which")
    )
    if days:
        rows = [{"which": run_id, "due": day} for run_id, day in days.items()]
        conn.execute(update.values(due_day=sa.bindparam("due")), rows)


def seconds(conn: Connection, agent: str, count: int) -> list[float]:
    """How long the agent's last judgements took, the newest first."""
    query = sa.select(_judgements.c.seconds).where(_judgements.c.agent == agent, _judgements.c.seconds.is_not(None))
    newest = query.order_by(_judgements.c.judged_at.desc(), _judgements.c.run_id, _judgements.c.by).limit(count)
    return [float(found) for found in conn.execute(newest).scalars()]


def judged_since(conn: Connection, agent: str, since: float) -> int:
    """Judgements of the agent's runs since then."""
    which = (_judgements.c.agent == agent, _judgements.c.judged_at >= since)
    return int(conn.execute(sa.select(sa.func.count()).select_from(_judgements).where(*which)).scalar_one())


def backlog(conn: Connection, agent: str | None, today: str) -> list[dict[str, Any]]:
    """Of each agent how many runs wait, for how many there is time today, and by when the rest is due."""
    today_too = sa.func.sum(sa.case((_queue.c.due_day <= today, 1), else_=0))
    query = sa.select(_queue.c.agent, sa.func.count(), today_too, sa.func.max(_queue.c.due_day)).where(_READ)
    query = query.where(_queue.c.agent == agent) if agent else query
    rows = conn.execute(query.group_by(_queue.c.agent).order_by(_queue.c.agent))
    return [
        {"agent": name, "waiting": int(count), "today": int(now), "last_day": max(last, today)}
        for name, count, now, last in rows
    ]


# Alerts on what waits too long


def standing(conn: Connection) -> dict[str, Open]:
    """The alerts that stand, by agent."""
    return {row.agent: msgspec.msgpack.decode(row.body, type=Open) for row in conn.execute(sa.select(_ageing))}


def save_standing(conn: Connection, agent: str, alert: Open | None) -> None:
    """Keeps the agent's alert; None is none."""
    if alert is None:
        conn.execute(_ageing.delete().where(_ageing.c.agent == agent))
    else:
        upsert(conn, _ageing.name, ("agent", "body"), [(agent, msgspec.msgpack.encode(alert))], ("agent",))
