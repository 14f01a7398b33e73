"""Rows as services keep them, put there without the services."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from midwatch.runtime.database import Database, migrate
from midwatch.runtime.settings import Settings
from midwatch_services.kill_switch.tables import micros


def insert(settings: Settings, service: str, table: Any, rows: Sequence[dict[str, Any]]) -> None:
    """Puts rows where a service keeps them."""
    url = settings.database_for(service)
    migrate(url, service)
    database = Database(url, name=service)
    try:
        database.write_now(lambda conn: conn.execute(sa.insert(table.__table__), list(rows)))
    finally:
        database.close()


def a_case(number: int, opened_at: datetime, **fields: Any) -> dict[str, Any]:
    """A case as kill-switch keeps it."""
    at = micros(opened_at)
    return {
        "case_id": f"case-{number}", "run_id": f"r-{number}", "agent": "desk", "state": "open", "to": "human",
        "taker": "", "taken_by": "", "taken_run": "", "reference": "", "mode": "live", "opened_by": "kill-switch",
        "key": "", "reason": "", "doubt": "", "chain": "[]", "asked": "", "opened_at": at, "updated_at": at, **fields,
    }  # fmt: skip


def a_review(name: str, sampled_at: float, settled_at: float | None = None, **fields: Any) -> dict[str, Any]:
    """A run in the review queue as reviewer-sampler keeps it."""
    return {
        "agent": "desk", "run_id": name, "track": "live", "mode": "live", "rate": 0.2, "draw": 0.1, "day": "",
        "key_hash": "", "sampled_at": sampled_at, "state": "waiting" if settled_at is None else "settled", "drawn": 1,
        "causes": "[]", "version": "1", "due_day": "", "second": 0, "settled_at": settled_at, **fields,
    }  # fmt: skip
