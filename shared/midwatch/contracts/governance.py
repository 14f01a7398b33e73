"""What the services say: alerts, switch reports, review draws, digests."""

from typing import Any, Literal

from msgspec import Struct

from .control import SwitchRecord
from .envelope import Time
from .erasure import ErasureCompleted, ErasureErased, ErasureRequested, ErasureResolved
from .money import Money
from .reviews import (
    DigestWritten,
    ReviewAdded,
    ReviewAgreed,
    ReviewDisputed,
    ReviewJudged,
    ReviewKeyCommitted,
    ReviewKeyRevealed,
    ReviewRated,
    ReviewSampled,
    ReviewSummed,
)  # fmt: skip
from .runs import AgentName, CostBasis, Epoch, Mode

Severity = Literal["page", "ticket", "info"]
GateVerdict = Literal["passed", "failed", "inconclusive"]
BUDGET_FLEET_DAY = "budget_fleet_day"  # rule of the alerts on what all agents together cost in a day
# Rules whose alerts may page, of this release; other systems may have rules of their own.
PAGES = (
    "activity_after_containment", "budget_day", "budget_hour", "budget_run", "budget_run_steps", "budget_run_tokens",
    "budget_ticket", "channel_dead", "loop_cycle", "loop_hand_offs", "loop_no_new_state", "loop_text", "loop_writes",
    "not_armed", "velocity", "watchdog_behind",
)  # fmt: skip
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
    action_taken: str = "none"  # none, or halted_ or would_halt_ with run, agent or fleet
    evidence: str | None = None
    mode: Mode = "live"
    event_id: str | None = None  # the run event at which it was raised
    seq: int | None = None
    tool: str | None = None  # what the run did too often
    first_seq: int | None = None  # of the run event with which that began


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
    epoch: Epoch
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
    epoch: Epoch
    target: str | None = None
    requested_at: Time
    seconds: float | None = None  # from the write to the last confirmation
    instances: list[InstanceReport] = []
    reason: str = ""
    runs_stopped: int = 0  # runs that ended by this halt
    cases: int = 0  # cases that it sent to the fallback
    first_case_seconds: float | None = None  # from the write to the first of them


class SwitchDrilled(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A drill is over. Times are seconds from the halt (`restore`: from the resume); None is not reached. `lost` and
    `doubled` are tickets of the drill's own flow. `signed_off_by` is empty until a person has looked at it."""

    drill_id: str
    agent: AgentName
    by: str
    started_at: Time
    passed: bool
    failures: list[str] = []  # sentences
    scheduled: bool = False
    signed_off_by: str = ""
    epoch: Epoch | None = None
    effective_seconds: float | None = None
    last_call_seconds: float | None = None  # the last call of the drill's flow that was still admitted
    first_fallback_seconds: float | None = None
    restore_seconds: float | None = None
    tickets: int = 0
    answered: int = 0
    fell_back: int = 0
    lost: int = 0
    doubled: int = 0
    restored: bool = False
    instances: list[InstanceReport] = []


class CaseOpened(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Somebody waits for an answer that the agent will not give. `events`: the run, oldest first, each with its `event`
    and `time`; `left_out` of them in the middle did not fit. `chain`: agents that had the case before. `doubt`: why the
    customer may have had an answer already, in words."""

    case_id: str
    agent: AgentName
    run_id: str
    to: str  # human, or agent:<name>
    reason: str
    opened_by: str
    mode: Mode = "live"
    by: str = ""  # who halted
    key: str = ""
    epoch: Epoch | None = None
    ticket: str | None = None
    customer: str | None = None
    channel: str | None = None
    session: str | None = None
    input: Any = None
    events: list[Any] = []
    left_out: int = 0
    chain: list[str] = []
    doubt: str = ""


class CaseOffered(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An agent is asked to take a case: it does by creating `offer_key` in the cases bucket before `until`."""

    taker: AgentName
    offer_key: str
    until: Time
    within: float  # seconds from now, for those whose clock is wrong
    case: CaseOpened


class CaseAccepted(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Someone takes the case on. Of two, the first in the stream has it. `reference`: its number at the help desk."""

    case_id: str
    by: str
    reference: str = ""


class CaseReturned(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whoever had the case puts it back for others."""

    case_id: str
    by: str
    note: str = ""


class CaseClosed(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The customer has been seen to, or the case needs nobody any more."""

    case_id: str
    by: str
    note: str = ""


class HoldPlaced(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What matches all that is named here must be kept: neither age nor a request for erasure removes it from the log.
    `until`: when the hold ends by itself."""

    hold_id: str
    by: str
    reason: str
    agent: AgentName | None = None
    run_id: str | None = None
    ticket: str | None = None
    customer: str | None = None
    until: Time | None = None


class HoldLifted(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a hold kept may go again."""

    hold_id: str
    by: str
    reason: str


class AuditActed(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A person did something on a page. `action` is its name, such as `digest.read`, `target` what it was done to.
    `detail` holds figures and names, never what customers wrote."""

    by: str
    role: str  # viewer, reviewer, operator or admin; empty for who was refused and is not signed in
    action: str
    target: str = ""
    detail: dict[str, str] = {}


class EvidenceCheckpointed(Struct, frozen=True, kw_only=True):
    """The heads of the run log's chains that moved since the checkpoint before, signed. The signature (Ed25519, hex) is
    over this object as JSON without `signature`, keys in order, no spaces, UTF-8."""

    number: int  # from 1
    at: str  # RFC 3339, UTC: text, because it is signed as it stands
    heads: dict[AgentName, tuple[int, str]]  # the number of the chain's last block, and that block's head in hex
    previous: str  # SHA-256, in hex, of what was signed of the checkpoint before; zeros for the first
    key: str  # id of the public key: the first 16 hex digits of the SHA-256 of its 32 bytes
    signature: str


class EvalCompleted(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An eval set was replayed against a version and held against a baseline. `cases`: those that may gate and
    were compared. `p_value`: of McNemar's exact test that it got worse."""

    agent: AgentName
    version: str
    verdict: GateVerdict
    why: str  # one plain sentence
    baseline: str = ""  # the version it was held against; empty where there was none
    eval_set: str = ""  # SHA-256 of the cases' meaning, in hex
    cases: int = 0
    gating: int | None = None  # of the whole set, compared or not; None where that was not told
    passed: int = 0
    baseline_passed: int = 0
    regressions: list[str] = []  # names of cases
    repaired: list[str] = []
    p_value: float | None = None
    cost_usd: Money | None = None
    by: str = ""


GOVERNANCE_EVENTS: dict[tuple[str, str], type[Any]] = {
    ("alert", "raised"): AlertRaised,
    ("alert", "acknowledged"): AlertAcknowledged,
    ("alert", "resolved"): AlertResolved,
    ("switch", "halted"): SwitchMoved,
    ("switch", "resumed"): SwitchMoved,
    ("switch", "contained"): SwitchContained,
    ("switch", "unconfirmed"): SwitchContained,
    ("switch", "revoked"): SwitchContained,
    ("switch", "drilled"): SwitchDrilled,
    ("case", "opened"): CaseOpened,
    ("case", "offered"): CaseOffered,
    ("case", "accepted"): CaseAccepted,
    ("case", "returned"): CaseReturned,
    ("case", "closed"): CaseClosed,
    ("review", "sampled"): ReviewSampled,
    ("review", "added"): ReviewAdded,
    ("review", "rated"): ReviewRated,
    ("review", "judged"): ReviewJudged,
    ("review", "agreed"): ReviewAgreed,
    ("review", "disputed"): ReviewDisputed,
    ("review", "summed"): ReviewSummed,
    ("review", "committed"): ReviewKeyCommitted,
    ("review", "revealed"): ReviewKeyRevealed,
    ("digest", "written"): DigestWritten,
    ("hold", "placed"): HoldPlaced,
    ("hold", "lifted"): HoldLifted,
    ("erasure", "requested"): ErasureRequested,
    ("erasure", "resolved"): ErasureResolved,
    ("erasure", "erased"): ErasureErased,
    ("erasure", "completed"): ErasureCompleted,
    ("evidence", "checkpointed"): EvidenceCheckpointed,
    ("audit", "acted"): AuditActed,
    ("eval", "completed"): EvalCompleted,
}
