"""The halts that were, each with its proof, what it stopped, and what ended it. Read by the commands."""

from datetime import datetime
from typing import NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from midwatch.contracts import subjects
from midwatch.contracts.control import SwitchRecord
from midwatch.contracts.governance import SwitchContained

from . import store, tables
from .decide import Halt, Target

_halts = tables.Halt.__table__


class Past(NamedTuple):
    """A halt. `closed_at`: when it ended; `ended_by`: the record that took its place, at `ended_epoch`."""

    halt: Halt
    report: SwitchContained | None  # as last judged
    runs_stopped: int
    cases: int
    first_case_seconds: float | None
    closed_at: datetime | None
    ended_by: SwitchRecord | None
    ended_epoch: int | None


def read(
    conn: Connection, *, agent: str | None, fleet: bool, epoch: int | None = None, of: tuple[str, Target] | None = None,
    limit: int | None = None,
) -> list[Past]:  # fmt: skip
    """The halts of an agent, those of the fleet, or both; of everybody where neither is asked for; `of` one key and
    target alone. Newest first."""
    keys = ([subjects.FLEET_KEY] if fleet else []) + (list(subjects.switch_keys(agent)[1:]) if agent else [])
    query = sa.select(_halts).order_by(_halts.c.requested_at.desc(), _halts.c.epoch.desc(), _halts.c.target)
    if keys:
        query = query.where(_halts.c.key.in_(keys))
    if of is not None:
        query = query.where(_halts.c.key == of[0], _halts.c.target == (of[1] or ""))
    if epoch is not None:
        query = query.where(_halts.c.epoch == epoch)
    return [_past(row) for row in conn.execute(query.limit(limit))]


def _past(row: Row[tuple[object, ...]]) -> Past:
    first = None if row.first_case_at is None else max(0, row.first_case_at - row.requested_at) / 1_000_000
    return Past(
        halt=store.halt_of(row),
        report=None if row.report is None else msgspec.json.decode(row.report, type=SwitchContained),
        runs_stopped=row.runs_stopped,
        cases=row.cases,
        first_case_seconds=first,
        closed_at=None if row.closed_at is None else tables.from_micros(row.closed_at),
        ended_by=None if row.ended_by is None else msgspec.json.decode(row.ended_by, type=SwitchRecord),
        ended_epoch=row.ended_epoch,
    )
