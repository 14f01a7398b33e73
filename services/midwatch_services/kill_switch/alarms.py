"""The alerts that kill-switch raises: one is open for a condition, repeats are counted, its end resolves it."""

import hashlib
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from midwatch.contracts import codec, subjects
from midwatch.contracts.governance import AlertRaised, AlertResolved, Severity
from midwatch.runtime.outbox import Outbox, Outgoing

from . import tables
from .reports import SOURCE
from .tables import from_micros, micros
from .words import one_line

_alarms = tables.Alarm.__table__
_TITLE_LIMIT = 500  # characters; names and what others say are part of it


class Alarm(NamedTuple):
    """An alert that is open."""

    dedupe_key: str
    alert_id: str
    agent: str
    rule: str
    raised_at: datetime
    repeats: int


class Alarms:
    """Raises and resolves alerts inside the caller's transaction; they leave by the outbox."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def raise_(
        self, conn: Connection, *, dedupe_key: str, rule: str, severity: Severity, title: str, agent: str,
        now: datetime, run_id: str | None = None, ticket: str | None = None, value: str | float | None = None,
        limit: str | float | None = None, evidence: str | None = None, action_taken: str = "none",
    ) -> bool:  # fmt: skip
        """Raises the alert, unless one is open under `dedupe_key`: then the repeat is counted. `agent` may be
        `subjects.FLEET`. Returns whether it was raised."""
        again = _alarms.update().where(_alarms.c.dedupe_key == dedupe_key)
        if conn.execute(again.values(repeats=_alarms.c.repeats + 1)).rowcount:
            return False
        alert_id = hashlib.sha256(f"{dedupe_key}\0{micros(now)}".encode()).hexdigest()[:32]
        row = {"dedupe_key": dedupe_key, "alert_id": alert_id, "agent": agent, "rule": rule}
        conn.execute(_alarms.insert().values(**row, raised_at=micros(now), repeats=0))
        alert = AlertRaised(
            alert_id=alert_id, rule=rule, severity=severity, title=one_line(title, _TITLE_LIMIT), agent=agent,
            run_id=run_id, ticket=ticket, value=value, limit=limit, dedupe_key=dedupe_key,
            action_taken=action_taken, evidence=evidence,
        )  # fmt: skip
        self._say(conn, agent, "raised", alert, alert_id, now)
        return True

    def resolve(self, conn: Connection, dedupe_key: str, *, reason: str, now: datetime) -> bool:
        """Resolves the alert that is open under `dedupe_key`, if one is. Returns whether it was."""
        found = conn.execute(sa.select(_alarms).where(_alarms.c.dedupe_key == dedupe_key)).first()
        if found is None:
            return False
        conn.execute(_alarms.delete().where(_alarms.c.dedupe_key == dedupe_key))
        data = AlertResolved(alert_id=found.alert_id, reason=reason, repeats=found.repeats)
        self._say(conn, found.agent, "resolved", data, f"{found.alert_id}-resolved", now)
        return True

    def _say(self, conn: Connection, agent: str, event: str, data: Any, id: str, now: datetime) -> None:
        body = codec.encode(codec.envelope("alert", event, data, source=SOURCE, id=id, time=now))
        self._outbox.add(conn, Outgoing(id, subjects.alert(agent, event), body))


def open_alarms(conn: Connection, *rules: str) -> list[Alarm]:
    """The alerts of these rules that are open, by dedupe key."""
    query = sa.select(_alarms).where(_alarms.c.rule.in_(rules)).order_by(_alarms.c.dedupe_key)
    return [
        Alarm(row.dedupe_key, row.alert_id, row.agent, row.rule, from_micros(row.raised_at), row.repeats)
        for row in conn.execute(query)
    ]
