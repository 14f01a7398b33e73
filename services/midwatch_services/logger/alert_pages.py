"""Alerts a page at a time, the newest first, as people leaf through them."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .store import alert_of

State = Literal["open", "acknowledged", "resolved", "all"]
_STATES = {
    "open": ["acknowledged_at IS NULL", "resolved_at IS NULL"],
    "acknowledged": ["acknowledged_at IS NOT NULL", "resolved_at IS NULL"],
    "resolved": ["resolved_at IS NOT NULL"],
    "all": [],
}  # fmt: skip
_COLUMNS = (
    "raised, raised_key, raised_at, service, acknowledged_at, acknowledged_by, resolved_at, resolved_reason, repeats"
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which alerts: all that is given must be so. `before`: the `raised_key` of the last that was seen."""

    state: State = "open"
    agent: str | None = None
    severity: str | None = None
    before: str | None = None
    limit: int = 50


class Unattended(NamedTuple):
    """An alert that is neither over nor taken on, as briefly as a list needs it."""

    alert_id: str
    agent: str
    raised_at: str
    severity: str
    title: str
    run_id: str | None


class _Brief(msgspec.Struct):
    title: str
    severity: str
    run_id: str | None = None
    mode: str = "live"


_BRIEFLY = msgspec.json.Decoder(_Brief)


def unattended(conn: Connection) -> list[Unattended]:
    """The live alerts that want somebody and that nobody has taken on: those that wake people before the others, the
    newest first."""
    query = sa.text(
        "SELECT alert_id, agent, raised_at, raised FROM logger_alerts WHERE raised IS NOT NULL "
        "AND acknowledged_at IS NULL AND resolved_at IS NULL ORDER BY raised_key DESC"
    )
    found = [
        Unattended(alert_id, agent, raised_at, one.severity, one.title, one.run_id)
        for alert_id, agent, raised_at, raised in conn.execute(query)
        if (one := _BRIEFLY.decode(raised)).mode == "live" and one.severity != "info"
    ]
    return sorted(found, key=lambda one: one.severity != "page")


def raised_since(conn: Connection, begin: str) -> list[tuple[str, str]]:
    """The live alerts since `begin` (as `decide.text_of` writes it) that wanted somebody: of which agent, and when."""
    query = sa.text(
        "SELECT agent, raised_at, raised FROM logger_alerts WHERE raised IS NOT NULL AND raised_at >= :begin"
    )
    return [
        (agent, raised_at)
        for agent, raised_at, raised in conn.execute(query, {"begin": begin})
        if (one := _BRIEFLY.decode(raised)).mode == "live" and one.severity != "info"
    ]


def find(conn: Connection, wanted: Wanted) -> list[dict[str, Any]]:
    """The alerts with the contract's fields, what became of them, and `raised_key`."""
    clauses = ["raised IS NOT NULL", *_STATES[wanted.state]]
    given: dict[str, Any] = {}
    if wanted.agent is not None:
        clauses.append("agent = :agent")
        given["agent"] = wanted.agent
    if wanted.before is not None:
        clauses.append("raised_key < :before")
        given["before"] = wanted.before
    query = sa.text(
        f"SELECT {_COLUMNS} FROM logger_alerts WHERE {' AND '.join(clauses)} ORDER BY raised_key DESC"  # noqa: S608
    )
    found: list[dict[str, Any]] = []
    for row in conn.execute(query, given):
        one = alert_of(dict(row._mapping))
        if wanted.severity is None or one["severity"] == wanted.severity:
            found.append(one)
        if len(found) == wanted.limit:
            break
    return found


def one(conn: Connection, alert_id: str) -> dict[str, Any] | None:
    """One alert."""
    query = sa.text(f"SELECT {_COLUMNS} FROM logger_alerts WHERE alert_id = :id AND raised IS NOT NULL")  # noqa: S608
    row = conn.execute(query, {"id": alert_id}).first()
    return None if row is None else alert_of(dict(row._mapping))
