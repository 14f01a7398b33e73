"""What a press of Stop would do, and what a halt is called. Pure."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol

from midwatch.contracts import control
from midwatch.contracts.control import Card, SwitchRecord
from midwatch.contracts.subjects import is_agent_name

Kind = Literal["fleet", "agent", "tool", "run"]
Unreadable = Literal["", "tools", "runs"]
KINDS: tuple[Kind, ...] = ("fleet", "agent", "tool", "run")
EXPIRIES = {"": None, "30m": timedelta(minutes=30), "2h": timedelta(hours=2), "1d": timedelta(days=1)}
NAME_LIMIT, REASON_LIMIT = 128, 500  # characters


class ScopeLike(Protocol):
    """A `switchboard.Scope`."""

    @property
    def agent(self) -> str | None: ...
    @property
    def tool(self) -> str | None: ...
    @property
    def run_id(self) -> str | None: ...
    @property
    def target(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Instance:
    """A process of an agent, as it reported itself `age` seconds ago. `why_not` is empty where it is armed. `process`
    tells it from another that had its name before."""

    agent: str
    instance: str
    why_not: str
    running: tuple[str, ...]
    draining: tuple[str, ...]
    host: str
    pid: int
    version: str
    age: float
    process: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """A halt that stands. `unreadable`: it is one because the list of the agent's halted `tools` or `runs` cannot be
    read; empty for any other."""

    scope: ScopeLike
    by: str
    reason: str
    at: datetime | None
    expires_at: datetime | None
    fallback: str | None
    drill: bool
    epoch: int
    unreadable: Unreadable = ""

    @property
    def is_of(self) -> ScopeLike | None:
        """What was halted by name; None where that is not known."""
        return None if self.unreadable else self.scope


@dataclass(frozen=True, slots=True)
class Effect:
    """What a halt would meet. `runs`: in flight in its scope; `strays`: those of agents that send no presence, None
    where nobody knows."""

    instances: int
    not_armed: Sequence[Instance]
    runs: int
    strays: int | None

    @property
    def moving(self) -> int:
        return self.runs + (self.strays or 0)


def kind_of(scope: ScopeLike) -> Kind:
    """Which of the four it is."""
    if scope.agent is None:
        return "fleet"
    return "tool" if scope.tool is not None else "run" if scope.run_id is not None else "agent"


def fields_of(scope: ScopeLike) -> dict[str, str]:
    """The scope as the fields of a form or an address hold it."""
    named = {"agent": scope.agent, "tool": scope.tool, "run": scope.run_id}
    return {"what": kind_of(scope)} | {name: value for name, value in named.items() if value is not None}


def effect(scope: ScopeLike, instances: Sequence[Instance], strays: Mapping[str, Sequence[str]] | None) -> Effect:
    """What a halt of `scope` would meet just now."""
    some = [one for one in instances if scope.agent in (None, one.agent)]
    runs = sum(_in_scope(scope, one.running) for one in some)
    heard = {one.agent for one in instances}
    silent = None if strays is None else sum(
        _in_scope(scope, found) for agent, found in strays.items()
        if scope.agent in (None, agent) and agent not in heard
    )  # fmt: skip
    return Effect(len(some), [one for one in some if one.why_not], runs, silent)


def _in_scope(scope: ScopeLike, runs: Sequence[str]) -> int:
    return len(runs) if scope.run_id is None else sum(run == scope.run_id for run in runs)


def is_fallback(text: str) -> bool:
    """Whether cases may be sent there."""
    return text in ("", "human") or (text.startswith("agent:") and is_agent_name(text[6:]))


def takers(scope: ScopeLike, fallback: str, cards: Sequence[Card]) -> dict[str, list[str]]:
    """Whose cases would go to whom, by the halt or else by each card; an agent without a card has people."""
    by_card = {card.agent: card.fallback for card in cards}
    agents = sorted(by_card) if scope.agent is None else [scope.agent]
    found: dict[str, list[str]] = {}
    for agent in agents:
        found.setdefault(fallback or by_card.get(agent, "human"), []).append(agent)
    return found


def seen(*what: object) -> str:
    """What a part of a page sends along of what it shows, so that it is not brought anew while that is the same."""
    return hashlib.sha256(repr(what).encode()).hexdigest()[:16]


def mark(record: SwitchRecord | None) -> str:
    """What a form carries of the record that its reader saw, so that only that one is lifted."""
    return hashlib.sha256(control.encode(record) if record else b"").hexdigest()[:16]
