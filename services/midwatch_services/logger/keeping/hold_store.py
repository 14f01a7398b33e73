"""Holds in the database: folded from their events, listed, and asked which runs they keep."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from midwatch.contracts.envelope import Envelope, utc_now
from midwatch.runtime.database import upsert

from .. import tables
from ..decide import text_of
from .decide import Hold, HoldRow, fold_hold

HOLD_COLUMNS = tuple(tables.Hold.__table__.columns.keys())
_CHUNK = 500  # run ids in one question

IN_FORCE = "h.placed_at IS NOT NULL AND h.lifted_at IS NULL AND (h.until IS NULL OR h.until > :now)"
# Whether the hold `h` keeps the run `r`. A run may name its ticket in another event than that which its row has.
MATCHES = """
    (h.agent IS NULL OR h.agent = r.agent) AND (h.run_id IS NULL OR h.run_id = r.run_id)
    AND (h.customer IS NULL OR h.customer = r.customer)
    AND (h.ticket IS NULL OR h.ticket = r.ticket OR EXISTS (
        SELECT 1 FROM logger_events t WHERE t.agent = r.agent AND t.run_id = r.run_id AND t.ticket = h.ticket))
"""
# Needs `:now`.
IS_HELD = f"EXISTS (SELECT 1 FROM logger_holds h WHERE {IN_FORCE} AND {MATCHES})"  # noqa: S608


def save_hold(conn: Connection, event: Envelope[Hold]) -> None:
    """Folds one event of a hold into it; again changes nothing."""
    select = sa.text(f"SELECT {', '.join(HOLD_COLUMNS)} FROM logger_holds WHERE hold_id = :id")  # noqa: S608
    found = conn.execute(select, {"id": event.data.hold_id}).first()
    row = HoldRow(**found._mapping) if found else HoldRow(hold_id=event.data.hold_id)
    upsert(conn, "logger_holds", HOLD_COLUMNS, [msgspec.structs.astuple(fold_hold(row, event))], ("hold_id",))


def held(
    conn: Connection, agent: str, run_ids: Sequence[str], *, now: datetime | None = None
) -> dict[str, dict[str, Any]]:
    """Of these runs of an agent those that must be kept, each with the oldest hold that says so."""
    query = sa.text(
        f"SELECT r.run_id AS held_run, h.* FROM logger_runs r JOIN logger_holds h ON {IN_FORCE} AND {MATCHES} "  # noqa: S608
        "WHERE r.agent = :agent AND r.run_id IN :run_ids ORDER BY h.placed_key"
    ).bindparams(sa.bindparam("run_ids", expanding=True))
    found: dict[str, dict[str, Any]] = {}
    at = text_of(now or utc_now())
    for start in range(0, len(run_ids), _CHUNK):
        some = list(run_ids[start : start + _CHUNK])
        for row in conn.execute(query, {"agent": agent, "run_ids": some, "now": at}):
            columns = dict(row._mapping)
            found.setdefault(columns.pop("held_run"), shown(columns))
    return found


def read_holds(conn: Connection, *, hold_id: str | None = None, now: datetime | None = None) -> list[dict[str, Any]]:
    """Every hold that was ever placed, or those whose id begins so, the oldest first; `in_force` says which keep runs
    now, `runs` how many."""
    query = sa.text(
        f"SELECT h.*, CASE WHEN {IN_FORCE} THEN 1 ELSE 0 END AS in_force, CASE WHEN {IN_FORCE} THEN "  # noqa: S608
        f"(SELECT count(*) FROM logger_runs r WHERE {MATCHES}) ELSE 0 END AS runs FROM logger_holds h "
        "WHERE h.placed_at IS NOT NULL AND substr(h.hold_id, 1, :length) = :hold_id ORDER BY h.placed_key"
    )
    given = {"hold_id": hold_id or "", "length": len(hold_id or ""), "now": text_of(now or utc_now())}
    found = [dict(row._mapping) for row in conn.execute(query, given)]
    return [shown(row) | {"in_force": bool(row["in_force"]), "runs": row["runs"]} for row in found]


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A hold's columns without the keys of its fold."""
    return {name: row[name] for name in HOLD_COLUMNS if not name.endswith("_key")}
