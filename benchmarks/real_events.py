"""The published runs as the events that their agents would have published, for benchmarks of what reads them."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from load import Message

from midwatch.contracts import codec, runs, subjects
from midwatch_services.replay import formats
from midwatch_services.replay.mapping import HandOffStep, ModelStep, PlayedRun, SaidStep, to_played


def run_events(folder: Path, runs_wanted: int | None = None) -> Iterator[Message]:
    """Every event of the runs in the folder, in the order of their file."""
    found = (one for one in formats.read(folder / "agent-runs" / "runs.jsonl.gz") if isinstance(one, formats.Found))
    for one in itertools.islice(found, runs_wanted):
        yield from of_run(to_played(one.run))


def of_run(run: PlayedRun) -> Iterator[Message]:
    """The events of one run."""
    common = {"run_id": run.run_id, "agent": run.agent, "version": "1", "mode": "replay", "ticket": run.ticket}
    at = datetime(2026, 11, 22, 12, tzinfo=UTC)
    made: list[tuple[str, runs.RunData]] = [("started", runs.Started(**common, seq=0, input=run.input))]
    for seq, step in enumerate(run.steps, 1):
        made.append(_event({**common, "seq": seq}, step))
    made.append(("finished", runs.Finished(**common, seq=len(made), resolution=run.resolution)))
    for event, data in made:
        id = f"{run.run_id}-{data.seq}"
        envelope = codec.envelope("run", event, data, source="/agents/x/replay", subject=run.run_id, id=id, time=at)
        yield Message(subjects.run(run.agent, event), id, codec.encode(envelope))


def _event(common: dict[str, Any], step: Any) -> tuple[str, runs.RunData]:
    if isinstance(step, SaidStep):
        return "said", runs.Said(**common, by=step.by, text=step.text)
    if isinstance(step, ModelStep):
        return "model_called", runs.ModelCalled(
            **common, provider=step.provider, model=step.model, usage=step.usage, cost_usd=step.cost_usd,
            latency_ms=step.latency_ms,
        )  # fmt: skip
    if isinstance(step, HandOffStep):
        return "handed_off", runs.HandedOff(**common, to="human", reason=step.reason, summary=step.summary)
    return "tool_called", runs.ToolCalled(
        **common, tool=step.tool, call_id=step.call_id, arguments=step.arguments, result=step.result, error=step.error
    )
