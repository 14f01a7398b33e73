"""What the agent of a recorded run did, as an outcome to be judged, and the calls that a case replays. Pure."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from midwatch_services.replay.mapping import (
    OUT_OF_SCOPE,
    STOPPED,
    TRANSFERRED,
    HandOffStep,
    ModelStep,
    SaidStep,
    Step,
    ToolStep,
    to_played,
)
from midwatch_services.replay.source import SourceRun

from .billed import Billed
from .case import NO_RESULT, Kind, Recorded
from .costs import total
from .outcome import Called, CostBasis, Outcome

_TOKENS = (STOPPED, TRANSFERRED, OUT_OF_SCOPE)


def outcome_of(run: SourceRun, kinds: Mapping[str, Kind]) -> Outcome:
    """What the agent of a published run did. A call without a result did nothing."""
    played = to_played(run)
    cost, basis = _cost(played.steps, played.ended_at or datetime.now(UTC))
    return Outcome(
        said=[text for one in said_by("agent", played.steps) if (text := without_tokens(one.text))],
        calls=[
            Called(
                tool=one.tool,
                arguments=one.arguments,
                result=one.result,
                error=one.error,
                kind=one.kind,
                answered="own",
            )
            for one in recorded_of(played.steps, kinds)
        ],
        handed_off=any(isinstance(step, HandOffStep) for step in played.steps),
        model_calls=sum(isinstance(step, ModelStep) for step in played.steps),
        cost_usd=cost,
        cost_basis=basis,
        error=played.error,
    )


def recorded_of(steps: Sequence[Step], kinds: Mapping[str, Kind]) -> list[Recorded]:
    """The agent's calls with what came back, in the order of the results."""
    return [
        Recorded(
            step.tool, step.arguments, step.result,
            NO_RESULT if step.result is None and step.error is None else step.error, kinds.get(step.tool, "other"),
        )
        for step in steps
        if isinstance(step, ToolStep)
    ]  # fmt: skip


def said_by(speaker: str, steps: Sequence[Step]) -> list[SaidStep]:
    """What one of them said, in order."""
    return [step for step in steps if isinstance(step, SaidStep) and step.by == speaker]


def without_tokens(text: str) -> str:
    """The text without the words by which a simulated customer ends the conversation."""
    for token in _TOKENS:
        text = text.replace(token, "")
    return text.strip()


def _cost(steps: Sequence[Step], at: datetime) -> tuple[str | None, CostBasis]:
    models = [step for step in steps if isinstance(step, ModelStep)]
    billed = [Billed(model=one.model, provider=one.provider, usage=one.usage, cost_usd=one.cost_usd) for one in models]
    return total(billed, at)
