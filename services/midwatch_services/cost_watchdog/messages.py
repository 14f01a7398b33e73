"""What was decided, as it leaves: alerts on the bus, and orders to halt a run. Ids follow from the cause."""

import shlex
from datetime import datetime
from typing import Any

import msgspec

from midwatch.contracts import codec, subjects
from midwatch.contracts.envelope import Time
from midwatch.contracts.governance import AlertRaised, AlertResolved
from midwatch.runtime.outbox import Outgoing

from .alerts import Decision, HaltRun, RaiseAlert

SOURCE = f"/services/{subjects.COST_WATCHDOG}"
HALT_RUN = "halt_run"  # kind of the outbox rows whose sink writes the switch


class HaltOrder(msgspec.Struct, frozen=True):
    """A halt on its way to the switch. `at`: when it was decided, so that it does not undo a later resume."""

    agent: str
    run_id: str
    reason: str
    by: str
    at: Time


def outgoing(decision: Decision, now: datetime, traceparent: str | None) -> Outgoing:
    """The outbox row of a decision."""
    if isinstance(decision, HaltRun):
        by = f"{subjects.COST_WATCHDOG}/{decision.rule}"
        order = HaltOrder(decision.agent, decision.run_id, decision.reason, by, now)
        msg_id = f"{decision.alert_id}-halt-{decision.run_id}"
        return Outgoing(msg_id, subjects.runs_key(decision.agent), msgspec.json.encode(order), HALT_RUN, traceparent)
    if isinstance(decision, RaiseAlert):
        return _said("raised", decision.agent, _raised(decision), decision.alert_id, now, traceparent)
    resolved = AlertResolved(alert_id=decision.alert_id, reason=decision.reason, repeats=decision.repeats)
    return _said("resolved", decision.agent, resolved, f"{decision.alert_id}-resolved", now, traceparent)


def _said(event: str, agent: str, data: Any, id: str, now: datetime, traceparent: str | None) -> Outgoing:
    body = codec.encode(codec.envelope("alert", event, data, source=SOURCE, id=id, time=now))
    return Outgoing(id, subjects.alert(agent, event), body, traceparent=traceparent)


def _raised(alert: RaiseAlert) -> AlertRaised:
    return AlertRaised(
        alert_id=alert.alert_id, rule=alert.rule, severity=alert.severity, title=alert.title, agent=alert.agent,
        run_id=alert.run_id or None, ticket=alert.ticket, value=alert.value, limit=alert.limit, cost_basis=alert.basis,
        dedupe_key=alert.dedupe_key, action_taken=alert.action,
        evidence=f"midwatch show {shlex.quote(alert.run_id)}" if alert.run_id else None,
        mode=alert.mode, event_id=alert.event_id, seq=alert.seq, tool=alert.tool or None, first_seq=alert.first_seq,
    )  # fmt: skip
