"""What is true now: the switch, an agent's card, and the presence of its instances."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from .envelope import Time
from .money import Money
from .runs import AgentName, Epoch, RunId, ToolKind

State = Literal["halted", "running"]
LostControl = Literal["fall_back", "carry_on"]
Stage = Literal["shadow", "canary", "full"]
TripMode = Literal["observe", "act"]
DrillEvery = Literal["weekly", "monthly", "quarterly", "never"]
AtLimit = Literal["alert", "halt_run", "fall_back", "halt_agent"]


class SwitchRecord(Struct, frozen=True, kw_only=True):
    """One position of the switch: who set it, when and why. Only `state` is required: `nats kv put` is enough."""

    state: State
    reason: str = ""
    by: str = ""
    at: Time | None = None
    fallback: str | None = None
    expires_at: Time | None = None
    drill: bool = False


SwitchMap = dict[str, SwitchRecord]  # value of `tools.<agent>` and `runs.<agent>`


class ToolRule(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`cost`: US dollars of one call, where the call itself reports none."""

    kind: ToolKind
    cost: Money | None = None


def kind_of(tools: Mapping[str, ToolRule], tool: str, said: ToolKind) -> ToolKind:
    """What a call of a tool does: the card's word where its `tools` name it, else what the call itself said."""
    rule = tools.get(tool)
    return rule.kind if rule else said


class LimitRule(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What happens when a budget is spent, by scope: it is said (`alert`), the run is halted (`halt_run`), the agent is
    halted until the hour or day is over (`fall_back`; of a run or ticket: its runs), or until a person resumes it
    (`halt_agent`)."""

    run: AtLimit = "halt_run"
    ticket: AtLimit = "halt_run"
    hour: AtLimit = "fall_back"
    day: AtLimit = "fall_back"


class BudgetRule(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """US dollars that one run, all runs of one ticket, and the agent in a UTC hour and day may cost; None is no limit.

    `run_tokens`, `run_steps`: what bounds a run of which a call has no known price; a step is a model call. `reserve`:
    each model call's ceiling is set aside before it is made. `unreachable`: what an agent that reserves does when
    nobody answers: it goes on under what it holds, or falls back.
    """

    run: Money = "1"
    ticket: Money = "2"
    hour: Money | None = None
    day: Money | None = None
    run_tokens: Annotated[int, Meta(ge=1)] = 500_000
    run_steps: Annotated[int, Meta(ge=1)] = 100
    at_limit: LimitRule = LimitRule()
    reserve: bool = False
    unreachable: Literal["go_on", "fall_back"] = "fall_back"


class RepeatRule(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How many repeats halt a run; `observe` only says that it would have."""

    halt_at: Annotated[int, Meta(ge=2)]
    mode: TripMode = "observe"


class VelocityRule(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How many times the agent's own usual cost or tokens a minute halt a run."""

    times: Annotated[float, Meta(gt=1)] = 5.0
    mode: TripMode = "observe"


class LoopRule(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a run goes in circles. `alert_at`, `halt_at`: length of a streak of tool calls without new state. `writes`:
    the same write, successful each time. `cycle`: rounds of the same few calls. `text`: the agent says the same again.
    `hand_offs`: of one ticket. `stalled`: seconds without an event after which an unfinished run is reported; 0 is
    never."""

    alert_at: Annotated[int, Meta(ge=2)] = 3
    halt_at: Annotated[int, Meta(ge=2)] = 5
    writes: RepeatRule = RepeatRule(halt_at=4, mode="act")
    cycle: RepeatRule = RepeatRule(halt_at=3)
    text: RepeatRule = RepeatRule(halt_at=3)
    hand_offs: RepeatRule = RepeatRule(halt_at=6)
    velocity: VelocityRule = VelocityRule()
    stalled: Annotated[float, Meta(ge=0)] = 1800.0


REASONS = ("promised_too_much", "wrong_fact", "wrong_write", "should_have_handed_off", "tone", "other")
COMPLAINTS = ("complain", "complaint", "lawyer", "manager", "supervisor", "unacceptable", "ridiculous")


class BesidesRule(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Runs that are read besides those drawn: with an alert of severity page or ticket, handed off without a word of
    context, that cost more than `cost`, that called one of `tools`, whose customer used one of the words
    `complaints`."""

    alerts: bool = True
    hand_offs: bool = True
    cost: Money | None = None
    tools: list[str] = []
    complaints: tuple[str, ...] = COMPLAINTS


class ReviewRule(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What people read of an agent's runs. `rate`: share (0 to 1) that is drawn for the first `days` days; then the
    shares of `taper`, one after the other, while the upper bound of the failure rate stays under `fail_limit`.
    `minutes_a_day`: what reviewers have for this agent, 0 for no limit. `second_review`: share of what was read that
    another person reads as well, without knowing the first verdict. `reasons`: what a fail may be called. `claim`:
    seconds for which one reviewer holds a run. `age`: seconds after which a run that waits raises an alert."""

    rate: Annotated[float, Meta(ge=0, le=1)] = 0.2
    days: Annotated[int, Meta(ge=1)] = 30
    taper: tuple[Annotated[float, Meta(ge=0, le=1)], ...] = (0.1, 0.05, 0.02)
    fail_limit: Annotated[float, Meta(gt=0, lt=1)] = 0.03
    minutes_a_day: Annotated[int, Meta(ge=0)] = 60
    second_review: Annotated[float, Meta(ge=0, le=1)] = 0.2
    reasons: tuple[str, ...] = REASONS
    claim: Annotated[float, Meta(gt=0)] = 1800.0
    age: Annotated[float, Meta(gt=0)] = 3 * 86_400.0
    besides: BesidesRule = BesidesRule()

    @property
    def steps(self) -> tuple[float, ...]:
        """The rates in order: the first, then those of `taper`, each below the one before."""
        steps = [self.rate]
        steps += [share for place, share in enumerate(self.taper) if share < min((self.rate, *self.taper[:place]))]
        return tuple(steps)


class TripRule(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What halts the agent without a person; `observe` only says that it would have. `alerts`: rules whose page alert
    does it. `halted_runs`: runs halted one by one within an hour, 0 for never. `failed_runs`: share of the runs that
    finished within an hour, of at least ten; 0 for never."""

    mode: TripMode = "observe"
    alerts: list[str] = []
    halted_runs: Annotated[int, Meta(ge=0)] = 3
    failed_runs: Annotated[float, Meta(ge=0, le=1)] = 0.5


class SwitchRule(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`lease`: seconds for which an instance may act on its last good reading of the switch. `drill_hours`: when a
    drill may begin by itself, UTC."""

    lease: Annotated[float, Meta(gt=0)] = 5.0
    lost_control: LostControl = "fall_back"
    drill: DrillEvery = "monthly"
    drill_hours: Annotated[str, Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$")] = "02:00-05:00"
    trips: TripRule = TripRule()


class AlertRule(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who is told of the agent's alerts: routes, or contacts, of pager.yaml; empty leaves it to that file."""

    page: str = ""
    ticket: str = ""


class RedactRule(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the run log does not keep as it was said: `email`, `phone`, `card`, `iban`, what matches `pattern`, or the
    value of every key `field`. `name` is what stands in its place. `reversible`: it is kept, encrypted."""

    name: str
    pattern: str | None = None
    field: str | None = None
    reversible: bool = False


REDACTED = tuple(RedactRule(name=name) for name in ("email", "phone", "card", "iban"))  # unless the card says otherwise


class LogRule(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`keep`: seconds for which runs are kept. `redact`: what is replaced before anything of a run is stored.
    `digest_words`: how long the agent's digest may be."""

    keep: Annotated[float, Meta(gt=0)] = 400 * 86_400.0
    redact: tuple[RedactRule, ...] = REDACTED
    digest_words: Annotated[int, Meta(ge=100, le=2000)] = 2000


class Card(Struct, frozen=True, kw_only=True):
    """An agent's scope as the bucket holds it; `hash` is of its meaning, not of its spacing."""

    agent: AgentName
    owner: str
    purpose: str
    can: list[str]
    cannot: list[str] = []
    escalate_when: list[str] = []
    tools: dict[str, ToolRule] = {}
    fallback: str = "human"
    budget: BudgetRule = BudgetRule()
    loops: LoopRule = LoopRule()
    review: ReviewRule = ReviewRule()
    switch: SwitchRule = SwitchRule()
    alerts: AlertRule = AlertRule()
    log: LogRule = LogRule()
    hash: str = ""
    applied_by: str = ""
    applied_at: Time | None = None


class Route(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far an agent is let act: `shadow` acts on nothing, `canary` on the share `traffic` (0 to 1) of the tickets,
    drawn with `salt`, `full` on all. No route at all is `full`; a deleted or unreadable one is not."""

    stage: Stage
    traffic: Annotated[float, Meta(ge=0, le=1)] = 1.0
    salt: str = ""
    reason: str = ""
    by: str = ""
    at: Time | None = None


class CaseClaim(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Value in the cases bucket: who sees to the case. `to`: `own` (the fallback of the agent's program), `human` or
    `agent:<name>`. `by`: an instance, or kill-switch. `key` and `epoch`: what halted the run."""

    agent: AgentName
    run_id: RunId
    by: str
    to: str
    at: Time
    key: str = ""
    epoch: Epoch | None = None
    reason: str = ""


class Presence(Struct, frozen=True, kw_only=True):
    """What one running process of an agent says of itself, each second. `applied`: revision of each key it obeys."""

    agent: AgentName
    instance: Annotated[str, Meta(pattern=r"^[^\s.*>]+$", max_length=255)]  # one token of a subject
    version: str
    host: str
    pid: int
    applied: dict[str, int]
    runs_in_flight: list[str] = []
    draining: list[str] = []
    control_read_at: Time | None = None
    leaving: bool = False
    lease: float = 5.0  # seconds
    lost_control: bool = False  # acting (or not) without a readable switch, by the card's word
    spooled: int = 0  # events on disk that the server has not acknowledged
    lost: int = 0  # events that neither disk nor server took, since the process began
    control_age: float | None = None  # seconds since the oldest of the last good readings, whatever the clock says
    without_control: LostControl | None = None  # what it does now that its lease has run out
    own_fallback: bool = False  # its program has a fallback of its own, which takes the cases of its runs
    no_case: list[str] = []  # runs in flight that nobody waits for (shadow, eval, replay): no case is opened for them
    blocking: bool = False  # its runs are in threads, which a halt stops at their next call
    stage: Stage | None = None  # by its route; None where it has none
    process: str = ""  # changes where another process takes the same name: what the one before had is nobody's now
    written_off_by: str = ""  # an operator's word that the process is dead; stands with `leaving`


class DeadLetter(Struct, frozen=True, kw_only=True):
    """A message that a service could not process, whole, with the reason. `data` is its body in base64."""

    service: str
    reason: str  # a short code: malformed, unknown_version, wrong_agent, oversized, bad_subject, failed
    error: str
    attempts: int
    subject: str
    stream: str
    stream_seq: int
    at: datetime
    headers: dict[str, str] = {}
    data: bytes


def decode_record(data: bytes) -> SwitchRecord | None:
    """The record in a switch value, or None where it cannot be read (which is not running)."""
    try:
        return msgspec.json.decode(data, type=SwitchRecord)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def decode_map(data: bytes) -> SwitchMap | None:
    """The map in a `tools.` or `runs.` value, or None where it cannot be read (which halts all of it)."""
    try:
        return msgspec.json.decode(data, type=dict[str, SwitchRecord])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def encode(value: Any) -> bytes:
    """Any of these structs as the JSON that stands on the wire."""
    return msgspec.json.encode(value)
