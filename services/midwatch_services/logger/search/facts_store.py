"""What a reading is made of, as the log's tables have it."""

from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .reading import WAITING, Facts, took_us

_MOST = 20_000  # events of one run that are read


def facts(conn: Connection, agent: str, run_id: str) -> Facts | None:
    """None where there is no such run in the log."""
    given = {"agent": agent, "run_id": run_id}
    run = conn.execute(
        sa.text(
            "SELECT first_at, version, mode, resolution, customer, cost_usd, started_at, ended_at FROM logger_runs "
            "WHERE agent = :agent AND run_id = :run_id"
        ),
        given,
    ).first()
    if run is None:
        return None
    rules = conn.execute(
        sa.text(
            "SELECT rule FROM logger_alerts WHERE agent = :agent AND run_id = :run_id AND raised IS NOT NULL "
            "ORDER BY raised_key"
        ),
        given,
    ).scalars()
    review = conn.execute(
        sa.text("SELECT verdict FROM logger_reviews WHERE agent = :agent AND run_id = :run_id"), given
    ).first()
    return Facts(
        agent, run_id, run.first_at, run.version, run.mode, run.resolution, run.customer, run.cost_usd,
        took_us(run.started_at or run.first_at, run.ended_at), tuple(rules),
        None if review is None else review.verdict or WAITING,
    )  # fmt: skip


def bodies(conn: Connection, agent: str, run_id: str) -> Iterator[tuple[str, str]]:
    """The events of a run in order, each (event, body)."""
    query = sa.text(
        "SELECT event, body FROM logger_events WHERE agent = :agent AND run_id = :run_id "
        "AND month = (SELECT month FROM logger_runs WHERE agent = :agent AND run_id = :run_id) "
        "ORDER BY seq, time, id LIMIT :most"
    )
    given = {"agent": agent, "run_id": run_id, "most": _MOST}
    return ((event, body) for event, body in conn.execute(query, given, execution_options={"yield_per": 1_000}))
