"""What reviewers said of one run, for whoever makes something of it once the verdict stands. Only reads."""

import json
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from . import tables

_queue = tables.Queued.__table__
_judgements = tables.Judgement.__table__


@dataclass(frozen=True, slots=True)
class Said:
    """`settled`: the verdict stands. `failed`: it is a fail, or some reviewer's is. The rest is of those who said what
    stands, and empty before it does."""

    settled: bool = False
    failed: bool = False
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    corrected: str = ""


def said_of(conn: Connection, agent: str, run_id: str) -> Said:
    """What reviewers said of a run; nothing where nobody has judged it."""
    row = conn.execute(
        sa.select(_queue.c.state, _queue.c.verdict).where(_queue.c.agent == agent, _queue.c.run_id == run_id)
    ).first()
    query = sa.select(_judgements).where(_judgements.c.agent == agent, _judgements.c.run_id == run_id)
    judged = conn.execute(query.order_by(_judgements.c.judged_at)).all()
    fails = [one for one in judged if one.verdict == "fail"]
    if row is None or row.state != "settled":
        return Said(failed=bool(fails))
    standing = [one for one in judged if one.verdict == row.verdict]
    reasons = dict.fromkeys(reason for one in standing for reason in json.loads(one.reasons or "[]"))
    return Said(
        settled=True,
        failed=row.verdict == "fail",
        reasons=tuple(map(str, reasons)),
        notes=tuple(one.note for one in standing if one.note),
        corrected=next((one.corrected for one in reversed(standing) if one.corrected), ""),
    )
