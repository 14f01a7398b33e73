"""Which exports were made of the log: an erasure asks which of them hold a run."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .. import tables

EXPORT_COLUMNS = tuple(tables.Export.__table__.columns.keys())
_CHUNK = 500  # run ids in one question

# A run's first event may come after an export, and with an earlier time: it counts whether the export's time and the
# run's overlap at all, so that an export which holds the run is never left out.
_MAY_HOLD = """
    (x.agent IS NULL OR x.agent = r.agent) AND (x.run_id IS NULL OR x.run_id = r.run_id)
    AND (x.until IS NULL OR r.first_at < x.until) AND (x.since IS NULL OR r.last_at >= x.since)
    AND r.month <= substr(x.made_at, 1, 7)
"""


def record_export(conn: Connection, **columns: Any) -> None:
    """Records an export, before anything of it is on the disk."""
    names = ", ".join(EXPORT_COLUMNS)
    values = ", ".join(f":{name}" for name in EXPORT_COLUMNS)
    conn.execute(sa.text(f"INSERT INTO logger_exports ({names}) VALUES ({values})"), columns)  # noqa: S608


def read_exports(conn: Connection) -> list[dict[str, Any]]:
    """Every export that was made, the oldest first."""
    query = sa.text(f"SELECT {', '.join(EXPORT_COLUMNS)} FROM logger_exports ORDER BY made_at, id")  # noqa: S608
    return [dict(row._mapping) for row in conn.execute(query)]


def exports_with(conn: Connection, agent: str, run_ids: Sequence[str]) -> list[dict[str, Any]]:
    """The exports that hold, or may hold, one of these runs of an agent, the oldest first."""
    query = sa.text(
        f"SELECT {', '.join(f'x.{name}' for name in EXPORT_COLUMNS)} FROM logger_exports x WHERE EXISTS ("  # noqa: S608
        f"SELECT 1 FROM logger_runs r WHERE r.agent = :agent AND r.run_id IN :run_ids AND {_MAY_HOLD})"
    ).bindparams(sa.bindparam("run_ids", expanding=True))
    found: dict[str, dict[str, Any]] = {}
    for start in range(0, len(run_ids), _CHUNK):
        some = list(run_ids[start : start + _CHUNK])
        for row in conn.execute(query, {"agent": agent, "run_ids": some}):
            found[row.id] = dict(row._mapping)
    return sorted(found.values(), key=lambda one: (one["made_at"], one["id"]))


def finish_export(conn: Connection, id: str, **counts: int) -> None:
    """Adds how much an export holds, once it is written."""
    conn.execute(
        sa.text("UPDATE logger_exports SET runs = :runs, events = :events, alerts = :alerts WHERE id = :id"),
        {"id": id, **counts},
    )
