"""What the watchdog can decide, and the alerts of one run or ticket while an event is judged. Pure."""

from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Literal

from midwatch.contracts.runs import CostBasis, Mode

from . import say
from .state import Open, Subject

Severity = Literal["page", "ticket", "info"]
Level = Literal["half", "warn", "halt", "observe"]
Halts = Literal["run", "agent"]
Action = Literal["none", "halted_run", "would_halt_run", "halted_agent", "would_halt_agent"]


@dataclass(frozen=True, slots=True)
class RaiseAlert:
    """A person is told. `event_id` and `seq` are of the event at which it came; a changed card has none. `run_id` is
    empty where it is of no run."""

    alert_id: str
    dedupe_key: str
    rule: str
    severity: Severity
    title: str
    mode: Mode
    agent: str
    run_id: str
    ticket: str | None
    value: str | int
    limit: str | int
    basis: CostBasis | None
    action: Action
    event_id: str | None
    seq: int | None
    tool: str = ""
    first_seq: int | None = None  # of the event with which it began


@dataclass(frozen=True, slots=True)
class ResolveAlert:
    """The condition of an alert has ended."""

    alert_id: str
    agent: str
    reason: str
    repeats: int


@dataclass(frozen=True, slots=True)
class HaltRun:
    """The run is to stop."""

    alert_id: str
    agent: str
    run_id: str
    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class HaltAgent:
    """The agent is to stop: until `expires_at`, or until a person resumes it."""

    alert_id: str
    agent: str
    rule: str
    reason: str
    expires_at: datetime | None


Decision = RaiseAlert | ResolveAlert | HaltRun | HaltAgent


@dataclass(frozen=True, slots=True)
class Cause:
    """What is judged: a run, its ticket, and the event, if it was one."""

    run: Subject
    ticket: str | None
    event_id: str | None = None
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that is met: `level` tells those of a rule apart, `halts` what it halts, which `observe` only says.
    `tool` and `first_seq`: what did it, and since which event."""

    rule: str
    level: Level
    title: str
    value: str | int
    limit: str | int
    halts: Halts | None
    basis: CostBasis | None = None
    severity: Severity = "ticket"  # of one that halts nothing, of live runs
    observe: bool = False
    tool: str = ""
    first_seq: int | None = None

    @property
    def name(self) -> str:
        return f"{self.rule}.{self.level}"


_DONE: dict[tuple[Halts, bool], Action] = {
    ("run", False): "halted_run", ("run", True): "would_halt_run",
    ("agent", False): "halted_agent", ("agent", True): "would_halt_agent",
}  # fmt: skip


class Book:
    """The alerts of `owner`: one is open for a condition, repeats are counted, and it is resolved when that ends."""

    def __init__(self, owner: Subject, alerts: dict[str, Open], raised: int) -> None:
        self.owner = owner
        self.alerts, self.raised = alerts, raised
        self.halts: dict[str, HaltRun | HaltAgent] = {}  # by run; of the agent under no name
        self.said: list[Decision] = []

    def met(self, condition: Condition, cause: Cause, *, again: bool, reopens: bool = False) -> bool:
        """Raises the alert of a condition. Of one that is open it counts a repeat, if it was met `again`; one that is
        closed stays so unless it `reopens`. Returns whether it was raised."""
        known = self.alerts.get(condition.name)
        if known is not None and not (known.closed and reopens):
            if again and not known.closed:
                self._put(condition.name, Open(known.alert_id, known.repeats + 1))
            return False
        self.raised += 1
        dedupe_key = f"{condition.name}/{self.owner}"
        identity = f"{dedupe_key}\0{self.raised}\0{cause.event_id}".encode()
        alert_id = blake2b(identity, digest_size=16).hexdigest()
        self._put(condition.name, Open(alert_id))
        self.said.append(self._alert(condition, cause, alert_id, dedupe_key))
        return True

    def _alert(self, condition: Condition, cause: Cause, alert_id: str, dedupe_key: str) -> RaiseAlert:
        mode = self.owner.mode
        action: Action = "none"
        severity = condition.severity
        title = condition.title
        would = mode == "replay" or condition.observe
        if condition.halts:
            action = _DONE[condition.halts, would]
            title += " and would be halted" if would else " and is halted"
            if not condition.observe:
                severity = "page" if mode in ("live", "drill") else "ticket"
        if mode == "replay":
            severity = "info"
        return RaiseAlert(
            alert_id=alert_id, dedupe_key=dedupe_key, rule=condition.rule, severity=severity, title=title, mode=mode,
            agent=self.owner.agent, run_id=cause.run.name, ticket=cause.ticket, value=condition.value,
            limit=condition.limit, basis=condition.basis, action=action, event_id=cause.event_id, seq=cause.seq,
            tool=say.name(condition.tool), first_seq=condition.first_seq,
        )  # fmt: skip

    def halt(self, run_id: str, condition: Condition) -> None:
        """Halts a run for a condition whose alert was raised. A replay halts nothing, nor does what only observes."""
        if self.owner.mode != "replay" and not condition.observe and run_id not in self.halts:
            alert_id = self.alerts[condition.name].alert_id
            self.halts[run_id] = HaltRun(alert_id, self.owner.agent, run_id, condition.rule, condition.title)

    def halt_agent(self, condition: Condition, until: datetime | None = None) -> None:
        """Halts the agent likewise."""
        if self.owner.mode != "replay":
            alert_id = self.alerts[condition.name].alert_id
            self.halts[""] = HaltAgent(alert_id, self.owner.agent, condition.rule, condition.title, until)

    def end(self, name: str, reason: str) -> None:
        """The condition has ended: its next time is a new one."""
        known = self.alerts.get(name)
        if known is not None:
            self.alerts = {other: open_ for other, open_ in self.alerts.items() if other != name}
            self._resolve(known, reason)

    def close(self, reason: str) -> None:
        """Resolves every open alert; the same conditions raise no further ones."""
        for name, known in self.alerts.items():
            if not known.closed:
                self._put(name, Open(known.alert_id, known.repeats, closed=True))
                self._resolve(known, reason)

    def _resolve(self, known: Open, reason: str) -> None:
        if not known.closed:
            self.said.append(ResolveAlert(known.alert_id, self.owner.agent, reason, known.repeats))

    def _put(self, name: str, alert: Open) -> None:
        self.alerts = {**self.alerts, name: alert}
