"""Runs as rows of a table that other programs open. Pure."""

import json
from typing import Any

from . import sheet

LONGEST = 2_000  # characters of a cell
COLUMNS = (
    "run", "agent", "version", "ticket", "customer", "mode", "began", "ended", "took_ms", "resolution", "cost_usd",
    "cost_basis", "model_calls", "tool_calls", "tool_errors", "messages", "halted_by", "asked", "answered",
)  # fmt: skip
_FIELDS = (
    "run_id", "agent", "version", "ticket", "customer", "mode", "started_at", "ended_at", "latency_ms", "resolution",
    "cost_usd", "cost_basis", "model_calls", "tool_calls", "tool_errors", "messages", "halted_by", "input", "output",
)  # fmt: skip


def row(run: dict[str, Any]) -> list[str]:
    """A run's cells, in the order of `COLUMNS`."""
    return [cell(run[name]) for name in _FIELDS]


def cell(value: Any) -> str:
    """A value as a cell that is not too long for a table."""
    if isinstance(value, float):
        return f"{value:.0f}"
    if value is None or isinstance(value, int):
        return sheet.cell(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return sheet.cell(text if len(text) <= LONGEST else f"{text[:LONGEST]}…")
