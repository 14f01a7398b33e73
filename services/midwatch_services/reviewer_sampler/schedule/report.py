"""Where each agent stands in its schedule, and how much there is to read: what `midwatch reviews schedule` prints."""

from datetime import date, datetime
from typing import Any

from sqlalchemy.engine import Connection

from . import decide, store
from .plan import cap, seconds_each
from .policy import MEDIAN_OF


def schedules(conn: Connection, agent: str | None, now: datetime) -> list[dict[str, Any]]:
    """One row an agent that has run, by name."""
    today = decide.day_of(now.timestamp())
    waits = {row["agent"]: row for row in store.backlog(conn, agent, today)}
    return [
        _row(conn, name, state, today, waits.get(name))
        for name, state in sorted(store.states(conn, None if agent is None else [agent]).items())
    ]


def _row(conn: Connection, agent: str, state: decide.State, today: str, waits: dict[str, Any] | None) -> dict[str, Any]:
    counts = store.counts(conn, agent, state.zero, decide.end_of(today))
    each = seconds_each(store.seconds(conn, agent, MEDIAN_OF))
    last = waits["last_day"] if waits else today
    return {
        "agent": agent, "rate": state.rate, "step": state.step, "steps": list(state.rule.steps), "since": state.since,
        "cause": state.cause, "what": state.what, "version": state.version, "judged": counts.judged,
        "failed": counts.failed, "unsure": counts.unsure, "pending": counts.pending,
        "upper": round(counts.bounds[1], 6) if counts.judged else None, "fail_limit": state.rule.fail_limit,
        "why": decide.why(state, counts, today), "drawn_today": store.drawn_on(conn, agent, today),
        "minutes_a_day": state.rule.minutes, "seconds_each": each, "time_today": cap(state.rule.minutes, each),
        "waiting": waits["waiting"] if waits else 0,
        "backlog_days": (date.fromisoformat(last) - date.fromisoformat(today)).days if waits else 0,
    }  # fmt: skip
