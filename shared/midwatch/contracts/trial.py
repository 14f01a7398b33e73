"""What an agent that is replayed is asked, over HTTP or NATS, and what it answers. Plain JSON; nothing keeps it."""

from typing import Any, Literal

from msgspec import Struct

from .runs import AgentName, RunId

TRIAL_LIMIT = 1024 * 1024  # bytes of one answer


class TrialCall(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tool call that the agent wants. `id`: its own; the result carries it."""

    tool: str
    arguments: Any = None
    id: str = ""


class TrialMessage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message of the conversation. An agent's may hold calls; a tool's is the result of one, or the error with
    which it failed."""

    role: Literal["customer", "agent", "human", "tool"]
    text: str = ""
    calls: list[TrialCall] = []
    id: str = ""
    tool: str = ""
    result: Any = None
    error: str | None = None


class TrialTurn(Struct, frozen=True, kw_only=True):
    """Asks for the agent's next answer. `messages`: the whole conversation, what is to be answered last. `turn` counts
    what the customer says, from 1."""

    case: str
    run_id: RunId
    agent: AgentName
    version: str
    turn: int
    messages: list[TrialMessage]


class TrialAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer: what it says, the calls that it wants answered first, or whom it hands off to. `usage`: as the
    model's client gave it. `cost_usd`: where the provider reported one. `done`: the conversation is over."""

    say: str | None = None
    calls: list[TrialCall] = []
    hand_off: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None
    model: str | None = None
    provider: str | None = None
    cost_usd: float | str | None = None
    done: bool = False
