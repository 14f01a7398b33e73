"""What a card may hold: the sections that this release obeys, and no other."""

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StrictInt,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from midwatch.contracts import control
from midwatch.contracts.money import WRITTEN, read_money
from midwatch.contracts.subjects import AGENT_PATTERN, is_agent_name

from . import values
from .base import Section
from .base import text as _text
from .base import text_schema as _text_schema
from .log import Log

WORD_LIMIT = 200
LEASE_LEAST = 2.0  # seconds; the switch is read once a second
_TOOL = r"^[^\s]{1,128}$"
_HOURS = r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$"
_RULE = r"^[a-z][a-z0-9_]{0,62}$"
_CONTACT = r"^([a-z0-9][a-z0-9_-]{0,62})?$"
_FALLBACK = r"^(human|agent:[a-z0-9][a-z0-9_-]{0,62})$"


def _sentence(value: Any) -> str:
    if isinstance(value, dict) and value.keys() & {"say", "when"}:
        raise ValueError(
            "holds `{say, when}`, which is not enforced by this release, so it is not accepted: "
            "write the sentence alone"
        )
    return _text(value)


def _agent(value: str) -> str:
    if not is_agent_name(value):
        raise ValueError("must be lower-case letters, digits, `-` and `_`, at most 63, no dots")
    return value


def _tool(value: str) -> str:
    if not re.match(_TOOL, value) or not value.isprintable():
        raise ValueError("is no tool's name: at most 128 characters, no spaces")
    return value


def _fallback(value: str) -> str:
    if not re.match(_FALLBACK, value):
        raise ValueError("must be `human` or `agent:<name>`")
    return value


def _lease(value: float) -> float:
    if value < LEASE_LEAST:
        raise ValueError(f"must be at least {LEASE_LEAST:g}s: the switch is read once a second")
    return value


def _hours(value: str) -> str:
    if not re.match(_HOURS, value):
        raise ValueError("must be two times of day in UTC, such as 02:00-05:00")
    return value


def _rule(value: str) -> str:
    if not re.match(_RULE, value):
        raise ValueError("is no rule of an alert, such as `budget_run`")
    return value


def _contact(value: str) -> str:
    if not re.match(_CONTACT, value):
        raise ValueError("must be the name of a route or contact in pager.yaml, such as on-call")
    return value


def _by_kind(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_text), _text_schema("Plain text")]
Sentence = Annotated[str, BeforeValidator(_sentence), _text_schema("One plain sentence")]
AgentName = Annotated[
    str, BeforeValidator(_text), AfterValidator(_agent), _text_schema("The agent's name", pattern=AGENT_PATTERN)
]
ToolName = Annotated[str, BeforeValidator(_text), AfterValidator(_tool), _text_schema("A tool's name", pattern=_TOOL)]
Fallback = Annotated[
    str,
    BeforeValidator(_text),
    AfterValidator(_fallback),
    _text_schema("Who takes over: `human` or `agent:<name>`", pattern=_FALLBACK),
]
Money = Annotated[
    str,
    BeforeValidator(read_money),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": WRITTEN}],
         "description": "US dollars, such as $1 or 0.50"}
    ),
]  # fmt: skip
Share = Annotated[
    float,
    BeforeValidator(values.share),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "minimum": 0, "exclusiveMaximum": 1},
                   {"type": "string", "pattern": values.SHARE}],
         "description": "A share, such as 20% or 0.2"}
    ),
]  # fmt: skip
Lease = Annotated[
    float,
    BeforeValidator(values.seconds),
    AfterValidator(_lease),
    WithJsonSchema({"type": "string", "pattern": values.TIME, "description": "A time of 2s or more, such as 5s or 1m"}),
]
Hours = Annotated[
    str,
    BeforeValidator(_text),
    AfterValidator(_hours),
    _text_schema("Two times of day in UTC, such as 02:00-05:00", pattern=_HOURS),
]
Rule = Annotated[
    str,
    BeforeValidator(_text),
    AfterValidator(_rule),
    _text_schema("The rule of an alert, such as budget_run", pattern=_RULE),
]
Contact = Annotated[
    str,
    BeforeValidator(lambda value: value if value == "" else _text(value)),
    AfterValidator(_contact),
    _text_schema("A route or contact of pager.yaml, such as on-call", pattern=_CONTACT),
]
Lasting = Annotated[
    float,
    BeforeValidator(values.seconds),
    WithJsonSchema({"type": "string", "pattern": values.TIME, "description": "A time such as 30m; 0s is never"}),
]
Steps = Annotated[StrictInt, Field(ge=2)]
Count = Annotated[StrictInt, Field(ge=1)]


class Tool(Section):
    """What a tool does to the world: `read` changes nothing, `write` does, `other` is undecided."""

    later = frozenset({"when", "approve_when", "undo", "limits"})
    kind: Literal["read", "write", "other"]
    cost: Money | None = Field(default=None, description="US dollars of one call that reports none itself")


def _by_scope(value: Any) -> Any:
    if isinstance(value, str) and value not in get_args(control.AtLimit):
        raise ValueError("must be `alert`, `halt_run`, `fall_back` or `halt_agent`, or one of them for each scope")
    return dict.fromkeys(AtLimit.model_fields, value) if isinstance(value, str) else value


class AtLimit(Section):
    """What happens when a budget is spent, by scope."""

    run: control.AtLimit = control.LimitRule().run
    ticket: control.AtLimit = control.LimitRule().ticket
    hour: control.AtLimit = control.LimitRule().hour
    day: control.AtLimit = control.LimitRule().day


class Budget(Section):
    """What one run, all runs of one ticket, and the agent in a UTC hour and day may cost, and what happens then."""

    run: Money = control.BudgetRule().run
    ticket: Money = control.BudgetRule().ticket
    hour: Money | None = None
    day: Money | None = None
    run_tokens: Count = Field(default=control.BudgetRule().run_tokens, description="Of a run without known prices")
    run_steps: Count = Field(default=control.BudgetRule().run_steps, description="Model calls of such a run")
    at_limit: Annotated[AtLimit, BeforeValidator(_by_scope)] = AtLimit()
    reserve: bool = Field(default=False, description="Set each model call's ceiling aside before it is made")
    unreachable: Literal["go_on", "fall_back"] = control.BudgetRule().unreachable


class Writes(Section):
    """How often the same write has to succeed to halt its run (`act`), or to be only said (`observe`)."""

    halt_at: Steps = control.LoopRule().writes.halt_at
    mode: control.TripMode = control.LoopRule().writes.mode


class Cycle(Section):
    """How many rounds of the same few calls halt a run (`act`), or are only said (`observe`)."""

    halt_at: Steps = control.LoopRule().cycle.halt_at
    mode: control.TripMode = control.LoopRule().cycle.mode


class SameText(Section):
    """How often an agent has to say the same to halt its run (`act`), or for it to be only said (`observe`)."""

    halt_at: Steps = control.LoopRule().text.halt_at
    mode: control.TripMode = control.LoopRule().text.mode


class HandOffs(Section):
    """How many hand-offs of one ticket halt the run (`act`), or are only said (`observe`)."""

    halt_at: Steps = control.LoopRule().hand_offs.halt_at
    mode: control.TripMode = control.LoopRule().hand_offs.mode


class Velocity(Section):
    """How many times the agent's own usual cost or tokens a minute halt a run (`act`), or are only said (`observe`)."""

    times: Annotated[float, Field(gt=1)] = control.VelocityRule().times
    mode: control.TripMode = "observe"


class Loops(Section):
    """When a run goes in circles: a streak of tool calls without new state, and rules with thresholds of their own."""

    alert_at: Steps = control.LoopRule().alert_at
    halt_at: Steps = control.LoopRule().halt_at
    writes: Writes = Writes()
    cycle: Cycle = Cycle()
    text: SameText = SameText()
    hand_offs: HandOffs = HandOffs()
    velocity: Velocity = Velocity()
    stalled: Lasting = control.LoopRule().stalled

    @model_validator(mode="after")
    def _alert_first(self) -> "Loops":
        if self.alert_at >= self.halt_at:
            raise ValueError(
                f"must alert before they halt: alert_at ({self.alert_at}) is not below halt_at ({self.halt_at})"
            )
        return self


class Review(Section):
    """The share of runs that is drawn for people to read."""

    later = frozenset({"days", "taper", "fail_limit", "minutes_a_day", "second_review"})
    rate: Share = control.ReviewRule().rate


class Trips(Section):
    """What halts the agent without a person (`act`), or is only said (`observe`)."""

    mode: control.TripMode = control.TripRule().mode
    alerts: list[Rule] = Field(default=[], description="Rules whose page alert does it")
    halted_runs: Annotated[StrictInt, Field(ge=0)] = Field(
        default=control.TripRule().halted_runs, description="Runs halted one by one within an hour; 0 for never"
    )
    failed_runs: Share = control.TripRule().failed_runs


class Switch(Section):
    """How long an instance may act on its last good reading of the switch, what it does after that, when a drill is
    due, and what trips the switch by itself."""

    lease: Lease = control.SwitchRule().lease
    lost_control: Literal["fall_back", "carry_on"] = control.SwitchRule().lost_control
    drill: control.DrillEvery = control.SwitchRule().drill
    drill_hours: Hours = control.SwitchRule().drill_hours
    trips: Trips = Trips()


class Alerts(Section):
    """Who is told of the agent's alerts: a route or a contact of pager.yaml; what is left out goes by that file."""

    page: Contact = ""
    ticket: Contact = ""


class CardFile(Section):
    """The scope card of one agent: what it is for, what it may do, and where it stops."""

    later = frozenset({"rollout"})
    agent: AgentName = Field(description="The agent's name")
    owner: Text = Field(description="Who answers for it")
    purpose: Text = Field(description="What it is for, in a sentence")
    can: list[Sentence] = Field(min_length=1, description="What it may do")
    cannot: list[Sentence] = Field(default=[], description="What it must never do")
    escalate_when: list[Sentence] = Field(default=[], description="When it must hand over to a person")
    tools: dict[ToolName, Annotated[Tool, BeforeValidator(_by_kind)]] = Field(
        default={}, description="The tools that it calls, each with its kind"
    )
    fallback: Fallback = "human"
    budget: Budget = Budget()
    loops: Loops = Loops()
    review: Review = Review()
    switch: Switch = Switch()
    alerts: Alerts = Alerts()
    log: Log = Log()

    @field_validator("fallback")
    @classmethod
    def _falls_back_to_another(cls, value: str, info: ValidationInfo) -> str:
        if value == f"agent:{info.data.get('agent')}":
            raise ValueError("is the agent itself: write `human` or another agent")
        return value
