"""What runs of an exported log did, as if they had been replayed."""

import gzip
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from midwatch.contracts.envelope import Envelope
from midwatch.contracts.runs import RUN_EVENTS, RunData
from midwatch.errors import MidwatchError
from midwatch_services.logger.transfer.layout import file_of, read_manifest

from .billed import Billed
from .case import Kind
from .costs import total
from .outcome import Called, Outcome

_DECODERS = {event: msgspec.json.Decoder(Envelope[data]) for event, data in RUN_EVENTS.items()}  # type: ignore[valid-type]


class BadExport(MidwatchError):
    """its runs cannot be read: {why}"""


class _Row(msgspec.Struct):
    """What is asked of a line; the rest is for those who check it."""

    run_id: str
    event: str
    body: str


Event = tuple[str, Any]  # its name, and its data


_row = msgspec.json.Decoder(_Row).decode


def read(folder: Path, ids: Collection[str], tasks: Collection[str]) -> dict[str, list[Event]]:
    """The events of the runs with these ids, or of these tasks (`<domain>/<task>` by their labels), in order. What was
    erased is left out. Raises NoExport, BadExport."""
    manifest = read_manifest(folder)
    if manifest.format != "jsonl":
        raise BadExport(why="it is of Parquet: export again with --format jsonl")
    found: dict[str, list[Event]] = {}
    try:
        for row in _rows(folder / file_of("events", "jsonl")):
            if row.event in _DECODERS and not row.body.startswith('{"erased":'):
                data: RunData = _DECODERS[row.event].decode(row.body).data
                if row.run_id in ids or task_of(data) in tasks:
                    found.setdefault(row.run_id, []).append((row.event, data))
    except (OSError, EOFError, zlib.error, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadExport(why=str(error)) from None
    for events in found.values():
        events.sort(key=lambda event: event[1].seq)
    return found


def task_of(data: RunData) -> str:
    """The benchmark's task of a run that was published from one; empty for others."""
    return f"{data.labels['domain']}/{data.labels['task']}" if {"domain", "task"} <= data.labels.keys() else ""


def outcome_of(events: Sequence[Event], kinds: Mapping[str, Kind]) -> Outcome:
    """What the agent did; `kinds` of its tools, else as they were logged."""
    said = [data.text for event, data in events if event == "said" and data.by == "agent"]
    ends = [data for event, data in events if event == "finished"]
    said += [one.output for one in ends if not said and isinstance(one.output, str) and one.output]
    models = [data for event, data in events if event == "model_called"]
    cost, basis = total(
        (
            Billed(
                model=one.model, provider=one.provider, usage=one.usage, cost_usd=one.cost_usd, failed=bool(one.error)
            )
            for one in models
        ),
        datetime.now(UTC),
    )
    return Outcome(
        said=said,
        calls=[
            Called(
                tool=one.tool, arguments=one.arguments, result=one.result, error=one.error,
                kind=kinds.get(one.tool, one.kind), answered="own",
            )
            for event, one in events
            if event == "tool_called"
        ],
        handed_off=any(event == "handed_off" for event, _ in events),
        model_calls=len(models), cost_usd=cost, cost_basis=basis,
        error=next((one.error for one in ends if one.resolution in ("failed", "halted") and one.error), None),
    )  # fmt: skip


def _rows(path: Path) -> Iterator[_Row]:
    with gzip.open(path) as lines:
        for line in lines:
            yield _row(line)
