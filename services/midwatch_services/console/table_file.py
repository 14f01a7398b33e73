"""Runs as rows of a table that other programs open. Pure."""

import json
from typing import Any

LONGEST = 2_000  # characters of a cell
COLUMNS = (
    "run", "agent", "version", "ticket", "customer", "mode", "began", "ended", "took_ms", "resolution", "cost_usd",
    "cost_basis", "model_calls", "tool_calls", "tool_errors", "messages", "halted_by", "asked", "answered",
)  # fmt: skip
_FIELDS = (
    "run_id", "agent", "version", "ticket", "customer", "mode", "started_at", "ended_at", "latency_ms", "resolution",
    "cost_usd", "cost_basis", "model_calls", "tool_calls", "tool_errors", "messages", "halted_by", "input", "output",
)  # fmt: skip
_BEGINS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def row(run: dict[str, Any]) -> list[str]:
    """A run's cells, in the order of `COLUMNS`."""
    return [cell(run[name]) for name in _FIELDS]


def cell(value: Any) -> str:
    """A value as text that no spreadsheet takes for a formula: an apostrophe comes before what begins as one."""
    if value is None:
        return ""
    if isinstance(value, int | float):
        return f"{value:.0f}" if isinstance(value, float) else str(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    return f"'{text}" if text.lstrip(" ").startswith(_BEGINS_A_FORMULA) else text
