"""What a recorded run did, as if it had been replayed. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime

from midwatch_services.replay.mapping import HandOffStep, ModelStep, SaidStep, ToolStep, to_played
from midwatch_services.replay.source import SourceRun

from .billed import Billed
from .case import Kind
from .costs import total
from .outcome import Called, Outcome


def outcome_of(run: SourceRun, kinds: Mapping[str, Kind]) -> Outcome:
    """The agent's part of `run`; `kinds` of its tools."""
    played = to_played(run)
    models = [one for one in played.steps if isinstance(one, ModelStep)]
    billed = [Billed(model=one.model, provider=one.provider, usage=one.usage, cost_usd=one.cost_usd) for one in models]
    cost, basis = total(billed, played.ended_at or datetime.now(UTC))
    return Outcome(
        said=[one.text for one in played.steps if isinstance(one, SaidStep) and one.by == "agent"],
        calls=[
            Called(
                tool=one.tool, arguments=one.arguments, result=one.result, error=one.error,
                kind=kinds.get(one.tool, "other"), answered="own",
            )
            for one in played.steps
            if isinstance(one, ToolStep)
        ],
        handed_off=any(isinstance(one, HandOffStep) for one in played.steps),
        model_calls=len(models), cost_usd=cost, cost_basis=basis,
    )  # fmt: skip
