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


class SourceOutcome(Struct, frozen=True):
    reward: float | None = None


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
