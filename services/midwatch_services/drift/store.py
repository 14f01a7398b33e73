"""The tables of drift: facts of runs, verdicts on days, alerts that stand; and what others read of them."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec.structs import replace
from sqlalchemy.engine import Connection

from midwatch.contracts.runs import Mode
from midwatch.runtime.database import insert_new, upsert

from . import tables
from .alerts import Open
from .decide import Finding, Verdict
from .facts import Facts
from .windows import Ended

PREFIX = "drift"
_facts = tables.Facts.__table__
_days = tables.Day.__table__
_judgements = tables.Judgement.__table__
_findings = tables.Finding.__table__
_alerts = tables.Alert.__table__
_FACTS_COLUMNS = tuple(_facts.columns.keys())
_JUDGEMENT_COLUMNS = tuple(_judgements.columns.keys())
_FINDING_COLUMNS = tuple(_findings.columns.keys())
_ALERT_COLUMNS = tuple(_alerts.columns.keys())
_VERDICT_KEY = ("agent", "mode", "day", "against")
_CHUNK = 500  # ids of one query

# Writing


def save_facts(conn: Connection, some: Sequence[tuple[Facts, int]]) -> None:
    """Keeps what is known of runs, each with how many events the log had of it, in place of what was known before."""
    rows = [
        (one.agent, one.run_id, one.mode, one.version, one.ended_at, events, msgspec.msgpack.encode(one))
        for one, events in some
    ]
    upsert(conn, _facts.name, _FACTS_COLUMNS, rows, ("agent", "run_id"))


def save_verdicts(conn: Connection, agent: str, mode: Mode, day: str, verdicts: Sequence[Verdict]) -> bool:
    """Keeps the verdicts on a day, unless there are some: a day is judged once. Returns whether there were none."""
    query = sa.select(_judgements.c.day).where(
        _judgements.c.agent == agent, _judgements.c.mode == mode, _judgements.c.day == day
    )
    if conn.execute(query.limit(1)).first() is not None:
        return False
    key = (agent, mode, day)
    known = _known(conn, agent, sorted({run for one in verdicts for finding in one.findings for run in finding.runs}))
    rows = [
        (*key, one.against, one.label, one.phase, one.recent_runs, one.baseline_runs, one.least, one.tests)
        for one in verdicts
    ]
    found = [
        (*key, one.against, position, finding.cause, msgspec.msgpack.encode(_without(finding, known)))
        for one in verdicts
        for position, finding in enumerate(one.findings)
    ]
    insert_new(conn, _judgements.name, _JUDGEMENT_COLUMNS, rows, _VERDICT_KEY)
    insert_new(conn, _findings.name, _FINDING_COLUMNS, found, (*_VERDICT_KEY, "position"))
    return True


def save_alerts(conn: Connection, agent: str, mode: Mode, standing: Mapping[str, Open]) -> None:
    """Keeps the alerts of an agent that stand, and no others."""
    conn.execute(_alerts.delete().where(_alerts.c.agent == agent, _alerts.c.mode == mode))
    rows = [(agent, mode, cause, one.alert_id, ",".join(one.against), one.repeats) for cause, one in standing.items()]
    insert_new(conn, _alerts.name, _ALERT_COLUMNS, rows, ("agent", "mode", "cause"))


def mark_judged(conn: Connection, day: str, now: datetime) -> None:
    """No agent's runs of that day are to be judged any more."""
    insert_new(conn, _days.name, ("day", "judged_at"), [(day, now.isoformat())], ("day",))


def prune(conn: Connection, before: str) -> int:
    """Forgets runs that ended before that day. Verdicts and findings stay."""
    return conn.execute(_facts.delete().where(_facts.c.ended_at < before)).rowcount


def forget(conn: Connection, runs: Sequence[tuple[str, str]]) -> int:
    """Erases what is known of runs (agent, run id): the log has them no more, or a customer asked for it."""
    by_agent: dict[str, list[str]] = {}
    for agent, run_id in runs:
        by_agent.setdefault(agent, []).append(run_id)
    return sum(
        conn.execute(_facts.delete().where(_facts.c.agent == agent, _facts.c.run_id.in_(some))).rowcount
        for agent, run_ids in by_agent.items()
        for some in _chunks(run_ids)
    )


def unname(conn: Connection, runs: Sequence[tuple[str, str]]) -> int:
    """Takes the runs out of the findings that show them; returns from how many. What those say is of many customers."""
    by_agent: dict[str, set[str]] = {}
    for agent, run_id in runs:
        by_agent.setdefault(agent, set()).add(run_id)
    count = 0
    for agent, gone in by_agent.items():
        for row in conn.execute(sa.select(_findings).where(_findings.c.agent == agent)).all():
            finding = msgspec.msgpack.decode(row.body, type=Finding)
            if gone.isdisjoint(finding.runs):
                continue
            body = msgspec.msgpack.encode(_without(finding, set(finding.runs) - gone))
            which = [_findings.c[name] == getattr(row, name) for name in (*_VERDICT_KEY, "position")]
            conn.execute(_findings.update().where(*which).values(body=body))
            count += 1
    return count


def _without(finding: Finding, known: Collection[str]) -> Finding:
    return replace(finding, runs=[run for run in finding.runs if run in known])


def _known(conn: Connection, agent: str, run_ids: Sequence[str]) -> set[str]:
    """Those of the runs that were not forgotten since they were read."""
    return {
        run_id
        for some in _chunks(run_ids)
        for run_id in conn.execute(
            sa.select(_facts.c.run_id).where(_facts.c.agent == agent, _facts.c.run_id.in_(some))
        ).scalars()
    }


# Reading


def last_day(conn: Connection) -> str | None:
    """The latest day that is judged."""
    found: str | None = conn.execute(sa.select(sa.func.max(_days.c.day))).scalar_one()
    return found


def ended(conn: Connection, since: str) -> list[Ended]:
    """The runs known that ended on that day or later."""
    names = ("agent", "run_id", "mode", "version", "ended_at", "events")
    query = sa.select(*(_facts.c[name] for name in names)).where(_facts.c.ended_at >= since)
    return [Ended(*row) for row in conn.execute(query)]


def facts(conn: Connection, agent: str, run_ids: Sequence[str]) -> dict[str, Facts]:
    """What is known of these runs, by id."""
    found: dict[str, Facts] = {}
    for some in _chunks(run_ids):
        query = sa.select(_facts.c.run_id, _facts.c.body).where(_facts.c.agent == agent, _facts.c.run_id.in_(some))
        found |= {row.run_id: msgspec.msgpack.decode(row.body, type=Facts) for row in conn.execute(query)}
    return found


def standing(conn: Connection) -> dict[tuple[str, Mode], dict[str, Open]]:
    """The alerts that stand, by agent and mode, then by cause."""
    found: dict[tuple[str, Mode], dict[str, Open]] = {}
    for row in conn.execute(sa.select(_alerts)):
        alert = Open(row.alert_id, tuple(row.against.split(",")), row.repeats)
        found.setdefault((row.agent, row.mode), {})[row.cause] = alert
    return found


def read_judgements(
    conn: Connection, agent: str | None = None, day: str | None = None, mode: Mode = "live"
) -> list[dict[str, Any]]:
    """How each comparison of a day ended (of the latest judged day, unless one is given), without its findings."""
    return [
        dict(row._mapping) for row in conn.execute(_of_day(conn, sa.select(_judgements), _judgements, agent, day, mode))
    ]


def read_findings(
    conn: Connection, agent: str | None = None, day: str | None = None, mode: Mode = "live"
) -> list[dict[str, Any]]:
    """What was found on a day (the latest judged day, unless one is given): each finding's fields, with `agent`, `mode`
    and `day`; the most telling causes of each agent first."""
    query = _of_day(conn, sa.select(_findings), _findings, agent, day, mode)
    rows = conn.execute(query.order_by(_findings.c.agent, _findings.c.against, _findings.c.position))
    return [
        {"agent": row.agent, "mode": row.mode, "day": row.day}
        | msgspec.to_builtins(msgspec.msgpack.decode(row.body, type=Finding))
        for row in rows
    ]


def _of_day(
    conn: Connection, query: sa.Select[Any], table: sa.Table, agent: str | None, day: str | None, mode: Mode
) -> sa.Select[Any]:
    query = query.where(table.c.day == (day or last_day(conn) or ""), table.c.mode == mode)
    return query.where(table.c.agent == agent) if agent else query


def _chunks(ids: Sequence[str]) -> list[Sequence[str]]:
    return [ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK)]
