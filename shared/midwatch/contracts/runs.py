"""What an agent says of a run: six events, and two of shadow mode."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from .money import Money
from .subjects import AGENT_PATTERN

Mode = Literal["live", "shadow", "eval", "drill", "replay"]
ToolKind = Literal["read", "write", "other"]
Resolution = Literal["resolved", "handed_off", "halted", "fell_back", "failed", "abandoned"]
Speaker = Literal["customer", "agent", "human"]
CostBasis = Literal["reported", "priced", "estimated", "unpriced"]

AgentName = Annotated[str, Meta(pattern=AGENT_PATTERN)]
RunId = Annotated[str, Meta(min_length=1, max_length=128)]
Count = Annotated[int, Meta(ge=0)]
Epoch = Annotated[int, Meta(ge=0, le=2**63 - 1)]  # revision of a switch key
Milliseconds = Annotated[float, Meta(ge=0)]

FIELD_LIMIT = 256 * 1024  # bytes of one field as JSON; the SDK cuts what is longer
EVENT_LIMIT = 1024 * 1024  # bytes of one message; readers refuse what is larger


class RunData(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Fields of every run event. `seq` is the order within one source: 0, 1, 2 … from the SDK."""

    run_id: RunId
    agent: AgentName
    version: str
    mode: Mode
    seq: Count
    ticket: str | None = None
    session: str | None = None
    labels: dict[str, str] = {}
    truncated: bool = False
    full_lengths: dict[str, int] = {}  # bytes, as JSON, that each cut field had


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message of a conversation, as the model clients write it."""

    role: str
    content: Any = None
    name: str | None = None


class Started(RunData, frozen=True, kw_only=True, omit_defaults=True):
    """A run began. `customer` is an opaque reference, never a name."""

    input: str | list[Message]
    channel: str | None = None
    customer: str | None = None


class Said(RunData, frozen=True, kw_only=True, omit_defaults=True):
    """Someone in the conversation said something."""

    by: Speaker
    text: str


class Usage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Tokens of one model call. `input_tokens` includes those read from the cache."""

    input_tokens: Count = 0
    output_tokens: Count = 0
    cache_read_tokens: Count = 0
    cache_write_tokens: Count = 0
    reasoning_tokens: Count = 0


class ModelCalled(RunData, frozen=True, kw_only=True, omit_defaults=True):
    """A model was called. `cost_usd` stands only where the provider or framework reported one. `reservation`: the id
    under which money was set aside for it. `estimate_usd`: what it is counted as where nobody knows a price."""

    provider: str | None = None
    model: str
    usage: Usage | None = None
    cost_usd: Money | None = None
    latency_ms: Milliseconds | None = None
    finish_reason: str | None = None
    output: Any = None
    error: str | None = None
    response_id: str | None = None
    reservation: str | None = None
    estimate_usd: Money | None = None


class ToolCalled(RunData, frozen=True, kw_only=True, omit_defaults=True):
    """A tool was called and came back. `call_id` may repeat inside a run: it is no identity."""

    call_id: str | None = None
    tool: str
    kind: ToolKind = "other"
    arguments: Any = None
    result: Any = None
    error: str | None = None
    latency_ms: Milliseconds | None = None
    cost_usd: Money | None = None
    undo: str | None = None
    reservation: str | None = None


class HandedOff(RunData, frozen=True, kw_only=True, omit_defaults=True):
    """The case went to a person or another agent: `to` is `human` or `agent:<name>`."""

    to: str
    reason: str
    summary: str | None = None
    context: Any = None
    key: str | None = (
        None  # what stopped the run: a key of the switch, `lease`, `route` or `budget`; None for the agent's own wish
    )
    epoch: Epoch | None = None
    own: bool = False  # the fallback of the agent's program takes the case; else the router does


class Finished(RunData, frozen=True, kw_only=True, omit_defaults=True):
    """The run ended. `epoch` and `halted_by` name the switch write that halted it."""

    resolution: Resolution
    output: Any = None
    error: str | None = None
    epoch: Epoch | None = None
    halted_by: str | None = None


class Proposed(RunData, frozen=True, kw_only=True, omit_defaults=True):
    """What a shadow agent would have done; nothing was."""

    action: str
    output: Any = None


class HumanActed(RunData, frozen=True, kw_only=True, omit_defaults=True):
    """What the person did with the case that a shadow agent also saw."""

    action: str
    output: Any = None
    by: str | None = None


RUN_EVENTS: dict[str, type[RunData]] = {
    "started": Started,
    "said": Said,
    "model_called": ModelCalled,
    "tool_called": ToolCalled,
    "handed_off": HandedOff,
    "finished": Finished,
    "proposed": Proposed,
    "human_acted": HumanActed,
}
