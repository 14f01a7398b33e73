"""What retention reads and removes. One call is one short transaction's work."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..decide import text_of
from ..evidence.chain import removal_note
from ..evidence.chain_store import append_note
from ..partitions import partition
from ..search.index_store import forget
from .decide import Span, spans
from .hold_store import IN_FORCE, IS_HELD
from .policy import KEEPING, Keeping

_PAST = "r.agent = :agent AND r.month <= :month AND r.stored_at < :cutoff"
_SOME = 500  # keys in one statement


_LOCK_NOT_AVAILABLE = "55P03"


class BeingRead(Exception):
    """Somebody reads the log without a pause."""


class Past(NamedTuple):
    """A run that may go, and where it stands in the order in which runs go."""

    run_id: str
    month: str
    first_at: str
    events: int


@dataclass(frozen=True)
class Gone:
    """How much was removed, or would be."""

    runs: int = 0
    events: int = 0
    alerts: int = 0

    def __add__(self, other: "Gone") -> "Gone":
        return Gone(self.runs + other.runs, self.events + other.events, self.alerts + other.alerts)


def agents(conn: Connection) -> list[str]:
    """Every agent of which the log holds a run or an alert."""
    found = conn.exec_driver_sql(
        "SELECT agent FROM logger_runs UNION SELECT agent FROM logger_alerts WHERE agent IS NOT NULL ORDER BY 1"
    )
    return list(found.scalars())


def newest(conn: Connection) -> datetime | None:
    """When the server stored the newest event of the log."""
    # The newest place would be found in an index, but where a log was imported it need not be the newest event's.
    found = conn.exec_driver_sql("SELECT max(stored_at) FROM logger_runs").scalar()
    return datetime.fromisoformat(found) if found else None


def counted_to(conn: Connection) -> datetime | None:
    """Up to which time the last pass has counted."""
    found = conn.exec_driver_sql("SELECT counted_to FROM logger_passes WHERE name = 'retention'").scalar()
    return datetime.fromisoformat(found) if found else None


def count_to(conn: Connection, at: datetime) -> None:
    """Saves up to which time this pass has counted."""
    conn.execute(
        sa.text(
            "INSERT INTO logger_passes (name, counted_to) VALUES ('retention', :at) "
            "ON CONFLICT (name) DO UPDATE SET counted_to = excluded.counted_to"
        ),
        {"at": text_of(at)},
    )


def past(
    conn: Connection, agent: str, cutoff: str, now: str, after: Past | None, keeping: Keeping = KEEPING
) -> list[Past]:
    """The next runs of an agent that may go, oldest first, of at most so many events together as one transaction may
    remove; at least one where there is one."""
    further = "AND (r.month, r.first_at, r.run_id) > (:after_month, :after_first, :after_run)" if after else ""
    query = sa.text(
        f"SELECT r.run_id, r.month, r.first_at, r.events FROM logger_runs r WHERE {_PAST} {further} "  # noqa: S608
        f"AND NOT {IS_HELD} ORDER BY r.month, r.first_at, r.run_id LIMIT :runs"
    )
    given: dict[str, Any] = {"agent": agent, "month": cutoff[:7], "cutoff": cutoff, "now": now, "runs": keeping.runs}
    if after:
        given |= {"after_month": after.month, "after_first": after.first_at, "after_run": after.run_id}
    found, events = list[Past](), 0
    for row in conn.execute(query, given):
        one = Past(*row)
        events += one.events
        if found and events > keeping.events:
            break
        found.append(one)
    return found


def count_past(conn: Connection, agent: str, cutoff: str, now: str) -> tuple[Gone, int]:
    """What of an agent would go, and how many of its runs are past and held."""
    query = sa.text(
        "SELECT count(*), coalesce(sum(CASE WHEN held = 0 THEN 1 ELSE 0 END), 0), "  # noqa: S608
        "coalesce(sum(CASE WHEN held = 0 THEN events ELSE 0 END), 0), "
        "coalesce(sum(CASE WHEN held = 0 THEN alerts ELSE 0 END), 0) FROM (SELECT r.events, "
        f"CASE WHEN {IS_HELD} THEN 1 ELSE 0 END AS held, (SELECT count(*) FROM logger_alerts a "
        f"WHERE a.agent = r.agent AND a.run_id = r.run_id) AS alerts FROM logger_runs r WHERE {_PAST}) AS past"
    )
    given = {"agent": agent, "month": cutoff[:7], "cutoff": cutoff, "now": now}
    every, runs, events, alerts = conn.execute(query, given).one()
    return Gone(int(runs), int(events), int(alerts)), int(every - runs)


def remove(
    conn: Connection, agent: str, runs: Sequence[Past], cutoff: str, at: datetime, keeping: Keeping = KEEPING
) -> Gone:
    """Removes runs of an agent, all that the log has of them, and says so in the agent's chain."""
    ids = [one.run_id for one in runs]
    gone = sorted(_scalars(conn, "SELECT place FROM logger_events WHERE agent = :agent AND run_id IN :ids", agent, ids))
    chained = [place for place in gone if place]  # what was stored before there were places is in no chain
    if chained:
        found = _spans_of(conn, agent, chained, set(ids), keeping.window)
        append_note(conn, agent, "removal", removal_note(_reason(cutoff), text_of(at), found), at)
    _execute(conn, "DELETE FROM logger_events WHERE agent = :agent AND run_id IN :ids", agent, ids)
    _execute(conn, "DELETE FROM logger_reviews WHERE agent = :agent AND run_id IN :ids", agent, ids)
    alerts = _execute(conn, "DELETE FROM logger_alerts WHERE agent = :agent AND run_id IN :ids", agent, ids)
    forget(conn, agent, ids)
    count = _execute(conn, "DELETE FROM logger_runs WHERE agent = :agent AND run_id IN :ids", agent, ids)
    return Gone(count, len(gone), alerts)


def _spans_of(conn: Connection, agent: str, gone: Sequence[int], ids: set[str], window: int) -> list[Span]:
    query = sa.text(
        "SELECT place, agent, run_id FROM logger_events WHERE place BETWEEN :first AND :last ORDER BY place LIMIT :most"
    )
    found = conn.execute(query, {"first": gone[0], "last": gone[-1], "most": window + 1}).all()
    if len(found) > window:
        return spans(((place, False, agent) for place in gone), apart=True)[agent]
    return spans((place, run_id not in ids, whose) for place, whose, run_id in found if whose == agent)[agent]


def remove_alerts(conn: Connection, agent: str, cutoff: str, now: str, keeping: Keeping = KEEPING) -> int:
    """Removes alerts of an agent that are past and over, and of no run that the log still has."""
    newest_of = " , ".join(f"coalesce(a.{name}, '')" for name in ("raised_at", "acknowledged_at", "resolved_at"))
    greatest = "max" if conn.dialect.name == "sqlite" else "greatest"
    query = sa.text(
        f"DELETE FROM logger_alerts WHERE alert_id IN (SELECT a.alert_id FROM logger_alerts a WHERE a.agent = :agent "  # noqa: S608
        f"AND {greatest}({newest_of}) < :cutoff AND (a.resolved_at IS NOT NULL OR a.run_id IS NOT NULL) "
        "AND NOT EXISTS (SELECT 1 FROM logger_runs r WHERE r.agent = a.agent AND r.run_id = a.run_id) "
        f"AND NOT EXISTS (SELECT 1 FROM logger_holds h WHERE {IN_FORCE} AND (h.agent IS NULL OR h.agent = a.agent) "
        "AND (h.run_id IS NULL OR h.run_id = a.run_id) AND h.ticket IS NULL AND h.customer IS NULL) LIMIT :most)"
    )
    return conn.execute(query, {"agent": agent, "cutoff": cutoff, "now": now, "most": keeping.events}).rowcount


# PostgreSQL: a month at once


def whole_month(conn: Connection, month: str, cutoffs: Iterable[tuple[str, str]], now: str) -> bool:
    """Whether nothing in a month's partition must be kept."""
    query = sa.text(
        "SELECT NOT EXISTS (SELECT 1 FROM logger_runs r "  # noqa: S608
        "LEFT JOIN unnest(CAST(:agents AS text[]), CAST(:cutoffs AS text[])) AS c(agent, cutoff) ON c.agent = r.agent "
        f"WHERE r.month = :month AND (c.cutoff IS NULL OR r.stored_at >= c.cutoff OR {IS_HELD}))"
    )
    by_agent = dict(cutoffs)
    given = {"agents": list(by_agent), "cutoffs": list(by_agent.values()), "month": month, "now": now}
    return bool(conn.execute(query, given).scalar_one())


def spans_of_month(conn: Connection, month: str) -> dict[str, list[Span]]:
    """By agent, the places of a month's events."""
    # Of the whole table, where another pass may have dropped the month meanwhile: then it has no place.
    ends = sa.text("SELECT min(place), max(place) FROM logger_events WHERE month = :month AND place > 0")
    first, last = conn.execute(ends, {"month": month}).one()
    query = sa.text(
        "SELECT place, month <> :month, agent FROM logger_events WHERE place BETWEEN :first AND :last ORDER BY place"
    )
    rows = conn.execution_options(yield_per=5000).execute(query, {"month": month, "first": first, "last": last})
    return spans((place, is_kept, agent) for place, is_kept, agent in rows)


def drop_month(
    conn: Connection, month: str, found: Mapping[str, Sequence[Span]], cutoffs: Mapping[str, str], at: datetime,
    keeping: Keeping = KEEPING,
) -> None:  # fmt: skip
    """Drops a month's partition, and says so in the chain of each agent. The runs' rows stay for `remove`.

    Raises BeingRead where readers do not let go of the log for as long as the logger may wait.
    """
    conn.exec_driver_sql(f"SET LOCAL lock_timeout = '{int(keeping.lock_seconds * 1000)}ms'")
    try:
        conn.exec_driver_sql(f"DROP TABLE {partition(month)}")
    except sa.exc.OperationalError as error:
        if getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE:
            raise BeingRead from error
        raise
    for agent, of_agent in found.items():
        append_note(conn, agent, "removal", removal_note(_reason(cutoffs[agent]), text_of(at), of_agent), at)


def _reason(cutoff: str) -> str:
    return f"age: the log heard last of these runs before {cutoff}"


def _scalars(conn: Connection, query: str, agent: str, ids: Sequence[str]) -> Iterator[Any]:
    statement = sa.text(query).bindparams(sa.bindparam("ids", expanding=True))
    for start in range(0, len(ids), _SOME):
        yield from conn.execute(statement, {"agent": agent, "ids": list(ids[start : start + _SOME])}).scalars()


def _execute(conn: Connection, query: str, agent: str, ids: Sequence[str]) -> int:
    statement = sa.text(query).bindparams(sa.bindparam("ids", expanding=True))
    chunks = (list(ids[start : start + _SOME]) for start in range(0, len(ids), _SOME))
    return sum(conn.execute(statement, {"agent": agent, "ids": some}).rowcount for some in chunks)
