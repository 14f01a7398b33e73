"""What a run is asked for, what its fallback is handed, and what an agent that takes a case is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .contracts.runs import Mode


@dataclass(frozen=True)
class Handoff:
    """What a fallback is called with: the whole context of the run that was halted.

    `sole`: nobody else has the case, and nobody else gets it unless this fallback fails. False: the server could not
    be asked; kill-switch may have opened the case for people too, so say only what may be said twice.
    """

    agent: str
    run_id: str
    ticket: str | None
    input: Any
    to: str  # `human` or `agent:<name>`
    reason: str
    by: str
    key: str  # the switch key that says so, `lease` or `route`
    epoch: int | None
    events: list[dict[str, Any]] = field(default_factory=list, repr=False)  # oldest first
    events_left_out: int = 0  # of a very long run, between the first event and the next
    sole: bool = True


@dataclass(frozen=True)
class Case:
    """Somebody waits for an answer that another agent will not give: what a function under `@agent.takes` is given."""

    case_id: str
    agent: str  # that left it
    run_id: str  # of that agent
    ticket: str | None
    input: Any
    reason: str
    events: list[dict[str, Any]] = field(default_factory=list, repr=False)  # of that run, oldest first
    chain: tuple[str, ...] = ()  # agents that had the case before
    doubt: str = ""  # why the customer may have had an answer already, if so


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
