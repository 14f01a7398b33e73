"""What commands and the weekly note read of judgements. Nothing of a run is told before it is settled, save figures."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .. import tables
from .agreement import Read
from .corrections import Correction
from .decide import BY_HASH
from .store import same

_queue, _judgements = tables.Queued.__table__, tables.Judgement.__table__
_LIVE = sa.and_(_queue.c.track == "live", _queue.c.mode != "drill")


def reads(conn: Connection, agent: str | None = None) -> list[Read]:
    """Every run that people judged, with what each said of it, for the figures of how they agree."""
    query = (
        sa.select(
            _queue.c.agent, _queue.c.run_id, _queue.c.drawn, _queue.c.second, _queue.c.state, _queue.c.verdict,
            _judgements.c.by, _judgements.c.verdict.label("said"),
        )
        .join(_judgements, same(_queue, _judgements))
        .where(_LIVE, _judgements.c.counts == 1)
        .order_by(_queue.c.agent, _queue.c.run_id, _judgements.c.judged_at, _judgements.c.event)
    )  # fmt: skip
    query = query.where(_queue.c.agent == agent) if agent else query
    found: dict[tuple[str, str], Read] = {}
    for row in conn.execute(query):
        state = "settled" if row.verdict is not None else row.state  # an erased one was settled before
        blank = Read(row.agent, bool(row.drawn), row.second == BY_HASH, state, row.verdict, {})
        read = found.setdefault((row.agent, row.run_id), blank)
        found[row.agent, row.run_id] = read._replace(said={**read.said, row.by: row.said})
    return list(found.values())


def corrections(conn: Connection, since: datetime, until: datetime, agent: str | None = None) -> list[Correction]:
    """What was settled in a time as a fail, or with a corrected answer, the oldest first."""
    query = (
        sa.select(_queue, _judgements.c.by, _judgements.c.reasons, _judgements.c.corrected, _judgements.c.note,
                  _judgements.c.verdict.label("said"))
        .join(_judgements, same(_queue, _judgements))
        .where(_LIVE, _judgements.c.counts == 1, _queue.c.state == "settled")
        .where(_queue.c.settled_at >= since.timestamp(), _queue.c.settled_at < until.timestamp())
        .order_by(_queue.c.settled_at, _queue.c.agent, _queue.c.run_id, _judgements.c.judged_at, _judgements.c.event)
    )  # fmt: skip
    query = query.where(_queue.c.agent == agent) if agent else query
    found: dict[tuple[str, str], Correction] = {}
    for row in conn.execute(query):
        one = found.setdefault((row.agent, row.run_id), _correction(row))
        one.by.append(row.by)
        if row.said == row.verdict == "fail":
            one.reasons.extend(reason for reason in json.loads(row.reasons) if reason not in one.reasons)
        one.corrected.extend([row.corrected] if row.corrected else [])
        one.notes.extend([row.note] if row.note else [])
    return [one for one in found.values() if one.verdict == "fail" or one.corrected]


def _correction(row: Any) -> Correction:
    return Correction(
        agent=row.agent, run_id=row.run_id, ticket=row.ticket, verdict=row.verdict, version=row.version,
        settled_at=row.settled_at, reasons=[], corrected=[], notes=[], by=[],
    )  # fmt: skip


def agents(conn: Connection) -> Sequence[str]:
    """Agents of which runs were judged."""
    return list(conn.execute(sa.select(_judgements.c.agent).distinct().order_by(_judgements.c.agent)).scalars())


def settled_in(conn: Connection, since: datetime, until: datetime, agent: str | None = None) -> int:
    """How many runs were settled in a time."""
    query = sa.select(sa.func.count()).select_from(_queue).where(
        _LIVE, _queue.c.settled_at >= since.astimezone(UTC).timestamp(), _queue.c.settled_at < until.timestamp()
    )  # fmt: skip
    query = query.where(_queue.c.agent == agent) if agent else query
    return int(conn.execute(query).scalar_one())
