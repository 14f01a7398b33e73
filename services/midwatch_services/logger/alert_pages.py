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

WANTS = "wants"  # asked for as a severity: whatever wants somebody
_NEWEST = "~"  # a key that none comes after


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which alerts: all that is given must be so. `before` or `after`: the `raised_key` of the one that the page ends
    or begins behind."""

    state: State = "open"
    agent: str | None = None
    severity: str | None = None
    before: str | None = None
    after: str | None = None
    limit: int = 50


class Counts(NamedTuple):
    """How many alerts are as wanted on all pages together, and how many of them are newer than a page."""

    all: int
    newer: int


class Unattended(NamedTuple):
    """An alert that is neither over nor taken on, as briefly as a list needs it."""

    alert_id: str
    agent: str
    raised_at: str
    severity: str
    title: str
    run_id: str | None


def wants(severity: str, mode: str) -> bool:
    """Whether an alert wants somebody: what is for information does not, nor what no live run brought about."""
    return mode == "live" and severity != "info"


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
        if wants((one := _BRIEFLY.decode(raised)).severity, one.mode)
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
        if wants((one := _BRIEFLY.decode(raised)).severity, one.mode)
    ]


def find(conn: Connection, wanted: Wanted) -> list[dict[str, Any]]:
    """The alerts with the contract's fields, what became of them, and `raised_key`."""
    clauses, given = _asked(wanted)
    given["most"] = wanted.limit
    if wanted.before is not None:
        clauses.append("raised_key < :before")
        given["before"] = wanted.before
    if wanted.after is not None:
        clauses.append("raised_key > :after")
        given["after"] = wanted.after
    order = "DESC" if wanted.after is None else "ASC"
    query = sa.text(
        f"SELECT {_COLUMNS} FROM logger_alerts WHERE {' AND '.join(clauses)} "  # noqa: S608
        f"ORDER BY raised_key {order} LIMIT :most"
    )
    found = [alert_of(dict(row._mapping)) for row in conn.execute(query, given)]
    return found if wanted.after is None else found[::-1]


def count(conn: Connection, wanted: Wanted, first: str | None) -> Counts:
    """How many there are, on whatever page. `first`: the `raised_key` of the first of the page that is shown."""
    clauses, given = _asked(wanted)
    query = sa.text(
        "SELECT count(*), coalesce(sum(CASE WHEN raised_key > :first THEN 1 ELSE 0 END), 0) "  # noqa: S608
        f"FROM logger_alerts WHERE {' AND '.join(clauses)}"
    )
    found = conn.execute(query, given | {"first": first or _NEWEST}).one()
    return Counts(int(found[0]), int(found[1]))


def _asked(wanted: Wanted) -> tuple[list[str], dict[str, Any]]:
    """The clauses of what is asked for, whatever the page, and what they are given."""
    clauses, given = ["raised IS NOT NULL", *_STATES[wanted.state]], dict[str, Any]()
    if wanted.agent is not None:
        clauses.append("agent = :agent")
        given["agent"] = wanted.agent
    # As the logger writes it: within a text of the alert the quotes would have a stroke before them.
    if wanted.severity == WANTS:
        clauses += ["raised NOT LIKE :info", "(raised LIKE :live OR raised NOT LIKE :mode)"]
        given |= {"info": '%"severity":"info"%', "live": '%"mode":"live"%', "mode": '%"mode":"%'}
    elif wanted.severity is not None:
        clauses.append("raised LIKE :severity")
        given["severity"] = f'%"severity":"{wanted.severity}"%'
    return clauses, given


def one(conn: Connection, alert_id: str) -> dict[str, Any] | None:
    """One alert."""
    query = sa.text(f"SELECT {_COLUMNS} FROM logger_alerts WHERE alert_id = :id AND raised IS NOT NULL")  # noqa: S608
    row = conn.execute(query, {"id": alert_id}).first()
    return None if row is None else alert_of(dict(row._mapping))
