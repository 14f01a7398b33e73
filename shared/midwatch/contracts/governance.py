"""What the services say: alerts, switch reports, review draws."""

from typing import Any, Literal

from msgspec import Struct

from .control import SwitchRecord
from .envelope import Time
from .runs import AgentName, CostBasis, Mode

Severity = Literal["page", "ticket", "info"]
InstanceState = Literal["applied", "unconfirmed", "lapsed", "left"]


class AlertRaised(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something needs a person. `title` is one plain sentence with the figure in it."""

    alert_id: str
    rule: str
    severity: Severity
    title: str
    agent: str
    run_id: str | None = None
    ticket: str | None = None
    value: str | int | float | None = None
    limit: str | int | float | None = None
    cost_basis: CostBasis | None = None
    dedupe_key: str
    action_taken: str = "none"  # none, halted_run, would_halt_run
    evidence: str | None = None
    mode: Mode = "live"
    event_id: str | None = None  # the run event at which it was raised
    seq: int | None = None


class AlertAcknowledged(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A person has seen the alert and takes it on."""

    alert_id: str
    by: str
    note: str = ""


class AlertResolved(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The condition ended. `repeats`: how often it was met again while the alert was open."""

    alert_id: str
    reason: str
    repeats: int = 0


class SwitchMoved(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A key of the switch was written: `halted` or `resumed`. `target`: the tool or run, on keys that hold a map."""

    key: str
    epoch: int
    record: SwitchRecord
    written_at: Time  # the server's
    target: str | None = None


class InstanceReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far one instance has got with a halt. `seconds`: from the write to its report."""

    agent: str
    instance: str
    state: InstanceState
    seconds: float | None = None
    running: list[str] = []
    draining: list[str] = []


class SwitchContained(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The proof of a halt (`contained`), the list of who is missing (`unconfirmed`), or its revocation (`revoked`)."""

    key: str
    epoch: int
    target: str | None = None
    requested_at: Time
    seconds: float | None = None  # from the write to the last confirmation
    instances: list[InstanceReport] = []
    reason: str = ""


class ReviewSampled(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run was drawn for a person to read: `draw` < `rate`. Anyone can recompute it from the day's key."""

    run_id: str
    agent: AgentName
    rate: float
    draw: float
    day: str  # YYYY-MM-DD, UTC: whose key drew it
    key_hash: str  # SHA-256 of that key, hex
    ticket: str | None = None
    mode: Mode = "live"


class ReviewKeyCommitted(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The hash of the key that draws on `day`, published before the first draw of it."""

    day: str
    key_hash: str


class ReviewKeyRevealed(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The key itself, once its day is over: every draw of the day can be recomputed."""

    day: str
    key: str  # hex
    key_hash: str


GOVERNANCE_EVENTS: dict[tuple[str, str], type[Any]] = {
    ("alert", "raised"): AlertRaised,
    ("alert", "acknowledged"): AlertAcknowledged,
    ("alert", "resolved"): AlertResolved,
    ("switch", "halted"): SwitchMoved,
    ("switch", "resumed"): SwitchMoved,
    ("switch", "contained"): SwitchContained,
    ("switch", "unconfirmed"): SwitchContained,
    ("switch", "revoked"): SwitchContained,
    ("review", "sampled"): ReviewSampled,
    ("review", "committed"): ReviewKeyCommitted,
    ("review", "revealed"): ReviewKeyRevealed,
}
