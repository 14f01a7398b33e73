"""What was decided, as it leaves: alerts on the bus, and orders to halt a run. Ids follow from the cause."""

import shlex
from datetime import datetime
from typing import Any

import msgspec

from midwatch.contracts import codec, subjects
from midwatch.contracts.envelope import Time
from midwatch.contracts.governance import AlertRaised, AlertResolved
from midwatch.runtime.outbox import Outgoing

from .alerts import Decision, HaltAgent, HaltRun, RaiseAlert

SOURCE = f"/services/{subjects.COST_WATCHDOG}"
HALT = "halt_run"  # kind of the outbox rows whose sink writes the switch


class HaltOrder(msgspec.Struct, frozen=True):
    """A halt on its way to the switch: of a run, or of the agent where there is no `run_id`. `at`: when it was decided,
    so that it does not undo a later resume."""

    agent: str
    run_id: str
    reason: str
    by: str
    at: Time
    expires_at: Time | None = None


def outgoing(decision: Decision, now: datetime, traceparent: str | None) -> Outgoing:
    """The outbox row of a decision."""
    if isinstance(decision, HaltRun | HaltAgent):
        by = f"{subjects.COST_WATCHDOG}/{decision.rule}"
        run_id, expires_at, key = "", None, subjects.agent_key(decision.agent)
        if isinstance(decision, HaltRun):
            run_id, key = decision.run_id, subjects.runs_key(decision.agent)
        else:
            expires_at = decision.expires_at
        order = HaltOrder(decision.agent, run_id, decision.reason, by, now, expires_at)
        return Outgoing(f"{decision.alert_id}-halt-{run_id}", key, msgspec.json.encode(order), HALT, traceparent)
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
