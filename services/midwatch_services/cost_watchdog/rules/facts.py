"""From a run event to what the rules judge of it."""

from hashlib import blake2b
from typing import Any

import msgspec

from midwatch.contracts.codec import RunEvent
from midwatch.contracts.runs import HandedOff, ModelCalled, Said, ToolCalled
from midwatch.runtime.pricing import Cost

from .memory import Facts

SHORT = 20  # characters; of what is shorter ("Thank you.") it means nothing that it is said again
_CEILING = 1e12  # a nonsensical count stays a number that can be summed and stored
_sorted = msgspec.json.Encoder(order="sorted")


def facts_of(event: RunEvent, cost: Cost | None) -> Facts | None:
    """What the rules judge, None where that is nothing."""
    data, dollars = event.data, float(cost.amount) if cost is not None and cost.amount else 0.0
    if isinstance(data, ToolCalled):
        ok, write = succeeded(data), data.kind == "write"
        return Facts(event.time.timestamp(), call_of(data), ok, write, dollars=dollars)
    if isinstance(data, ModelCalled):
        tokens = float(min(data.usage.input_tokens + data.usage.output_tokens, _CEILING)) if data.usage else 0.0
        text = _text_of("model", _reply(data.output))
        return Facts(event.time.timestamp(), text=text, tokens=tokens, dollars=dollars)
    if isinstance(data, Said) and data.by == "agent":
        text = _text_of("said", data.text)
        return None if text is None else Facts(text=text)
    # One that was stopped hands off as well: that is no wish of the agent.
    if isinstance(data, HandedOff) and data.key is None:
        return Facts(hand_off=True)
    return None


def call_of(call: ToolCalled) -> int:
    """Digest of a tool and its normalised arguments, whatever came back."""
    return _digest(_sorted.encode((call.tool, normalised(call.arguments), call.full_lengths.get("arguments"))))


def normalised(arguments: Any) -> Any:
    """Arguments as they mean the same: JSON text as what it says, and a whole number without a fraction.

    Texts stay as they are: a path, a code or a name in another case or with a space more may be another.
    """
    if isinstance(arguments, str):
        try:
            arguments = msgspec.json.decode(arguments)
        except (msgspec.MsgspecError, RecursionError):
            return arguments
    try:
        return _whole(arguments) if b".0" in msgspec.json.encode(arguments) else arguments
    except RecursionError:
        return arguments


def succeeded(call: ToolCalled) -> bool:
    """Whether a tool did what it was called for. Some say in their result that they did not, and not in `error`."""
    if call.error is not None:
        return False
    result = call.result
    if isinstance(result, dict):
        return not (result.get("error") or result.get("isError"))
    return not (isinstance(result, str) and result[:50].lstrip().lower().startswith(("error", '{"error"')))


def _reply(output: Any) -> Any:
    """What a model said to somebody; what it says beside a tool call is said to nobody."""
    if isinstance(output, dict):
        return None if output.get("tool_calls") else output.get("text", output.get("content"))
    return output


def _text_of(source: str, text: Any) -> int | None:
    """Digest of a text, without its case and spacing. What a model says the agent may say after it: each counts by
    itself."""
    if not isinstance(text, str):
        return None
    plain = " ".join(text.casefold().split())
    return _digest(f"{source}\0{plain}".encode("utf-8", "surrogatepass")) if len(plain) >= SHORT else None


def _whole(value: Any) -> Any:
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, dict):
        return {name: _whole(part) for name, part in value.items()}
    return [_whole(part) for part in value] if isinstance(value, list) else value


def _digest(body: bytes) -> int:
    return int.from_bytes(blake2b(body, digest_size=8).digest(), "big")
