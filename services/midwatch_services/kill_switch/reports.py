"""What kill-switch says on the bus. Ids are derived from the cause, so that saying it twice is saying it once."""

import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from midwatch.contracts import codec, subjects
from midwatch.contracts.governance import AlertRaised, InstanceReport, SwitchContained, SwitchMoved
from midwatch.runtime.outbox import Outgoing

from .decide import Call, Halt, Move, Phase, Verdict, Write, lapsed

SOURCE = f"/services/{subjects.KILL_SWITCH}"
RULE = "activity_after_containment"


def _id(*cause: object) -> str:
    return hashlib.sha256(repr(cause).encode()).hexdigest()[:32]


def _outgoing(noun: str, event: str, agent: str | None, data: Any, *, id: str, time: datetime) -> Outgoing:
    name = agent or subjects.FLEET
    subject = subjects.alert(name, event) if noun == "alert" else subjects.switch(name, event)
    body = codec.encode(codec.envelope(noun, event, data, source=SOURCE, id=id, time=time))
    return Outgoing(id, subject, body)


def moved(write: Write, move: Move, agent: str | None) -> Outgoing:
    """`halted` or `resumed`."""
    data = SwitchMoved(
        key=write.key, epoch=write.revision, record=move.record, written_at=write.written_at, target=move.target
    )
    id = _id(move.event, write.key, move.target, write.revision, write.written_at)
    return _outgoing("switch", move.event, agent, data, id=id, time=write.written_at)


Tell = Callable[[SwitchContained], list[Outgoing]]  # what to publish, given the report as it was saved


class Said(NamedTuple):
    """A halt before and after, its report, and what to publish of it."""

    before: Halt
    after: Halt
    report: SwitchContained
    tell: Tell


def judged(halt: Halt, verdict: Verdict, phase: Phase, now: datetime) -> tuple[SwitchContained, Tell]:
    """`contained`, or `unconfirmed` with who is missing."""
    report = _report(halt, seconds=verdict.seconds, instances=list(verdict.reports))
    id = _id(phase, halt.key, halt.target, halt.epoch, halt.requested_at, sorted(lapsed(verdict.reports)))
    return report, lambda saved: [_outgoing("switch", phase, halt.agent, saved, id=id, time=now)]


def revoked(halt: Halt, call: Call, now: datetime) -> tuple[SwitchContained, Tell]:
    """The end of a proof that turned out wrong, and the page that says so."""
    since = (call.began - (halt.contained_at or call.began)).total_seconds()
    what = "a model" if call.tool is None else f"the tool {call.tool}"
    title = f"{call.agent} called {what} {since:.1f} s after the halt of {_scope(halt)} was contained"
    report = _report(halt, reason=f"{title} (run {call.run_id}, event {call.event_id})")
    cause = (halt.key, halt.target, halt.epoch, halt.requested_at)
    alert = AlertRaised(
        alert_id=_id(RULE, *cause),
        rule=RULE,
        severity="page",
        title=title,
        agent=call.agent,
        run_id=call.run_id,
        value=round(since, 3),
        dedupe_key=f"{RULE}:{halt.key}:{halt.target or ''}:{halt.epoch}",
        event_id=call.event_id,
        seq=call.seq,
    )
    return report, lambda saved: [
        _outgoing("switch", "revoked", halt.agent, saved, id=_id("revoked", *cause), time=now),
        _outgoing("alert", "raised", call.agent, alert, id=alert.alert_id, time=now),
    ]


def _scope(halt: Halt) -> str:
    if halt.agent is None:
        return "the fleet"
    if halt.kind == "agent":
        return halt.agent
    noun = halt.kind if halt.target is None else halt.kind.removesuffix("s")
    return f"{noun} {halt.target or ''} of {halt.agent}".replace("  ", " ")


def _report(
    halt: Halt, *, seconds: float | None = None, instances: list[InstanceReport] | None = None, reason: str = ""
) -> SwitchContained:
    return SwitchContained(
        key=halt.key,
        epoch=halt.epoch,
        target=halt.target,
        requested_at=halt.requested_at,
        seconds=seconds,
        instances=instances or [],
        reason=reason,
    )
