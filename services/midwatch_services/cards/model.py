"""What a card may hold: the sections that this release obeys, and no other."""

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, StrictInt, ValidationInfo, field_validator, model_validator

from midwatch.contracts import control

from .base import Section
from .fields import (
    AgentName,
    Contact,
    Count,
    Fallback,
    Hours,
    Lasting,
    Lease,
    Money,
    Rule,
    Sentence,
    Share,
    Steps,
    Text,
    ToolName,
)
from .log import Log
from .review import Review

WORD_LIMIT = 200


def _by_kind(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


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
