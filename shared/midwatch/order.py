"""What a run is asked for, and what its fallback is handed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .contracts.runs import Mode


@dataclass(frozen=True)
class Handoff:
    """What a fallback is called with: the whole context of the run that was halted."""

    agent: str
    run_id: str
    ticket: str | None
    input: Any
    to: str  # `human` or `agent:<name>`
    reason: str
    by: str
    key: str  # the switch key that says so, or `lease`
    epoch: int | None
    events: list[dict[str, Any]] = field(default_factory=list, repr=False)  # oldest first
    events_left_out: int = 0  # of a very long run, between the first event and the next


@dataclass(frozen=True, slots=True)
class Order:
    """What `Agent.run` was asked for."""

    agent: str
    version: str
    input: Any
    run_id: str
    ticket: str | None = None
    channel: str | None = None
    customer: str | None = None
    session: str | None = None
    labels: Mapping[str, str] | None = None
    mode: Mode = "live"
    ids: Callable[[int], str] | None = None
    at: datetime | None = None
    fallback: Callable[[Handoff], Any] | None = None
