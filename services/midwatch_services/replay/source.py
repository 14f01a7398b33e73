"""A run as its file holds it, in the shape of `agentrun/1`. Fields not named here (prompts, model arguments, raw
payloads) are never read, so that nothing of them can be copied."""

from typing import Any, Literal

from msgspec import Struct, field

from midwatch.contracts.runs import RunId

SCHEMA = "agentrun/1"
Timing = Literal["recorded", "absent", "placeholder"]


class SourceUsage(Struct, frozen=True):
    """Tokens as the file counts them; `provider_usage` is the provider's own naming."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    provider_usage: dict[str, Any] | None = None


class SourceCall(Struct, frozen=True):
    """A tool call; `requestor` is `user` where the customer's own device was used."""

    name: str
    id: str | None = None
    args: Any = None
    requestor: str | None = None


class SourceMessage(Struct, frozen=True):
    """One message of a conversation. On role `tool`, the result of a call."""

    role: str
    content: Any = None
    ts: str | None = None
    cost_usd: float | None = None
    usage: SourceUsage | None = None
    generation_s: float | None = None
    model: str | None = None
    finish_reason: str | None = None
    tool_calls: list[SourceCall] | None = None
    tool_call_id: str | None = None
    tool_name: str | None = None
    error: bool | None = None
    requestor: str | None = None


class SourceAgent(Struct, frozen=True):
    name: str
    model: str | None = None


class SourceFile(Struct, frozen=True):
    """Where the file's makers took the run from."""

    repo: str | None = None
    path: str | None = None
    trial: int | None = None


class SourceReward(Struct, frozen=True):
    """What the reward was reckoned from: `DB`, `ACTION`, `COMMUNICATE` …"""

    reward_basis: list[str] | None = None


class SourceOutcome(Struct, frozen=True):
    """`reward_info` stands in `agentrun/1`, `reward_basis` beside the reward in tau2."""

    reward: float | None = None
    reward_info: SourceReward | None = None
    reward_basis: list[str] | None = None

    @property
    def basis(self) -> list[str]:
        """What the reward was reckoned from, empty where the file does not say."""
        return self.reward_basis or (self.reward_info.reward_basis if self.reward_info else None) or []


class SourceAction(Struct, frozen=True):
    """A call that the task's author expects, of the agent (`assistant`) or the customer's device (`user`).
    `compare_args`: the arguments that count: all where it is None."""

    name: str
    args: Any = None
    requestor: str | None = None
    compare_args: list[str] | None = None


class SourceRun(Struct, frozen=True):
    """One run of a file."""

    run_id: RunId
    agent: SourceAgent
    domain: str
    task_id: str
    messages: list[SourceMessage]
    started_at: str | None = None
    ended_at: str | None = None
    timing: Timing = "absent"
    termination_reason: str | None = None
    source: SourceFile = field(default_factory=SourceFile)
    outcome: SourceOutcome | None = None
    gold_actions: list[SourceAction] | None = None
