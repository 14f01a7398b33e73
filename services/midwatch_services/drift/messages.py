"""What was decided, as it leaves: alerts on the bus. Ids follow from the cause. Pure."""

from datetime import datetime
from typing import Any

from midwatch.contracts import codec, subjects
from midwatch.contracts.governance import AlertRaised, AlertResolved
from midwatch.runtime.outbox import Outgoing

from .alerts import Decision, Raise
from .policy import ALERTING, RULE

SOURCE = f"/services/{subjects.DRIFT}"


def outgoing(decision: Decision, now: datetime) -> Outgoing:
    """The outbox row of a decision."""
    if isinstance(decision, Raise):
        return _said("raised", decision.agent, _raised(decision), decision.alert_id, now)
    data = AlertResolved(alert_id=decision.alert_id, reason=decision.reason, repeats=decision.repeats)
    return _said("resolved", decision.agent, data, f"{decision.alert_id}-resolved", now)


def _raised(decision: Raise) -> AlertRaised:
    finding = decision.finding
    return AlertRaised(
        alert_id=decision.alert_id, rule=RULE, severity=ALERTING[decision.mode], title=decision.title,
        agent=decision.agent, value=round(finding.recent, 6), limit=round(finding.baseline, 6),
        dedupe_key=f"{RULE}/{decision.cause}/{decision.mode}/{decision.agent}",
        evidence=_command(decision), mode=decision.mode,
    )  # fmt: skip


def _command(decision: Raise) -> str:
    mode = "" if decision.mode == "live" else f" --mode {decision.mode}"
    return f"midwatch drift --agent {decision.agent} --date {decision.day}{mode}"


def _said(event: str, agent: str, data: Any, id: str, now: datetime) -> Outgoing:
    body = codec.encode(codec.envelope("alert", event, data, source=SOURCE, id=id, time=now))
    return Outgoing(id, subjects.alert(agent, event), body)
