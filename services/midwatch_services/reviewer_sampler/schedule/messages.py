"""What a schedule says on the bus. Ids follow from the cause. Pure."""

from datetime import datetime
from hashlib import sha256
from typing import Any

from midwatch.contracts import codec, subjects
from midwatch.contracts.governance import AlertRaised, AlertResolved
from midwatch.contracts.reviews import ReviewAdded, ReviewRated
from midwatch.runtime.outbox import Outgoing

from .ageing import Decision, Raise
from .besides import Asked
from .decide import State
from .policy import AGEING

SOURCE = f"/services/{subjects.REVIEWER_SAMPLER}"


def rated(agent: str, state: State, now: datetime) -> Outgoing:
    """The rate that holds from now on."""
    data = ReviewRated(
        agent=agent, rate=state.rate, step=state.step, cause=state.cause, what=state.what, judged=state.judged,
        failed=state.failed, upper=state.upper,
    )  # fmt: skip
    return _outgoing("review", agent, "rated", data, _id("rated", agent, repr(state.began), str(state.number)), now)


def added(asked: Asked, now: datetime) -> Outgoing:
    """A run is read for a cause."""
    run, found = asked.run, asked.found
    data = ReviewAdded(
        run_id=run.run_id, agent=run.agent, cause=found.cause, what=found.what[:200], ticket=asked.ticket
    )
    id = _id("added", run.agent, run.run_id, found.cause)
    return _outgoing("review", run.agent, "added", data, id, now, run.run_id)


def ageing(decision: Decision, now: datetime) -> Outgoing:
    """The alert that runs wait too long, or its end."""
    if isinstance(decision, Raise):
        raised = AlertRaised(
            alert_id=decision.alert_id, rule=AGEING, severity="ticket", title=decision.title, agent=decision.agent,
            value=round(decision.days, 2), limit=round(decision.limit, 2), dedupe_key=f"{AGEING}/{decision.agent}",
            evidence=f"midwatch reviews --agent {decision.agent}",
        )  # fmt: skip
        return _outgoing("alert", decision.agent, "raised", raised, decision.alert_id, now)
    resolved = AlertResolved(alert_id=decision.alert_id, reason=decision.reason, repeats=decision.repeats)
    return _outgoing("alert", decision.agent, "resolved", resolved, f"{decision.alert_id}-resolved", now)


def _id(kind: str, *parts: str) -> str:
    return f"{kind}-{sha256(chr(0).join(parts).encode('utf-8', 'surrogatepass')).hexdigest()}"


def _outgoing(
    noun: str, agent: str, event: str, data: Any, id: str, now: datetime, subject: str | None = None
) -> Outgoing:
    body = codec.encode(codec.envelope(noun, event, data, source=SOURCE, id=id, time=now, subject=subject))
    name = subjects.alert(agent, event) if noun == "alert" else subjects.review(agent, event)
    return Outgoing(id, name, body)
