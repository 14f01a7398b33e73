"""What a model's answer says of its cost: tokens, model, reason of its end. By shape, without importing any client.

Known shapes: OpenAI chat completions and responses (and the many that copy them), Anthropic messages, Google genai,
LiteLLM (which reports a cost), and dictionaries of the same keys.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from .contracts.money import to_money
from .contracts.runs import Usage

_MODULES = {
    "openai": "openai",
    "anthropic": "anthropic",
    "google": "google",
    "mistralai": "mistral",
    "cohere": "cohere",
}
_HOSTS = {
    "api.openai.com": "openai", "openai.azure.com": "azure", "api.anthropic.com": "anthropic",
    "openrouter.ai": "openrouter", "api.mistral.ai": "mistral", "api.groq.com": "groq", "api.deepseek.com": "deepseek",
    "api.x.ai": "x-ai", "api.together.xyz": "together", "generativelanguage.googleapis.com": "google",
}  # fmt: skip


def read(answer: Any, keywords: Mapping[str, Any], function: Any = None) -> dict[str, Any]:
    """The fields of a `model_called` event that can be read from `answer`. The model falls back to the `model=` that
    the call was given. Raises nothing."""
    fields: dict[str, Any] = {"model": _text(keywords.get("model")) or "unknown"}
    for part in (_identity, _ending, lambda a: {"usage": tokens(_first(a, "usage", "usage_metadata"))}, _cost):
        try:
            fields |= {name: value for name, value in part(answer).items() if value is not None}
        except Exception:  # noqa: S112  an answer of a shape of its own costs us this part, never the run
            continue
    try:
        provider = _provider(answer, function)
    except Exception:
        provider = None
    return fields | ({"provider": provider} if provider else {})


def tokens(usage: Any) -> Usage | None:
    """Token counts as the contract has them (input includes what was read from or written to the cache), or None."""
    if usage is None or isinstance(usage, Usage):
        return usage
    if _has(usage, "prompt_token_count") or _has(usage, "candidates_token_count"):
        return _google(usage)
    written = _count(usage, "cache_creation_input_tokens") or _count(usage, "cache_write_tokens")
    if _has(usage, "prompt_tokens") or _has(usage, "completion_tokens"):
        return _openai(
            usage, "prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details"
        )
    if _has(usage, "cache_read_input_tokens") or _has(usage, "cache_creation_input_tokens"):
        # Anthropic counts only what was neither read from nor written to the cache as input.
        read_ = _count(usage, "cache_read_input_tokens")
        return Usage(
            input_tokens=_count(usage, "input_tokens") + read_ + written, cache_read_tokens=read_,
            output_tokens=_count(usage, "output_tokens"), cache_write_tokens=written,
        )  # fmt: skip
    if _has(usage, "input_tokens") or _has(usage, "output_tokens"):
        return _openai(usage, "input_tokens", "output_tokens", "input_tokens_details", "output_tokens_details")
    return None


def _openai(usage: Any, prompt: str, completion: str, prompt_details: str, completion_details: str) -> Usage:
    details, out = _get(usage, prompt_details), _get(usage, completion_details)
    return Usage(
        input_tokens=_count(usage, prompt),
        output_tokens=_count(usage, completion),
        cache_read_tokens=_count(details, "cached_tokens") or _count(usage, "cache_read_tokens"),
        cache_write_tokens=_count(usage, "cache_creation_input_tokens") or _count(usage, "cache_write_tokens"),
        reasoning_tokens=_count(out, "reasoning_tokens") or _count(usage, "reasoning_tokens"),
    )


def _google(usage: Any) -> Usage:
    thoughts = _count(usage, "thoughts_token_count")
    return Usage(
        input_tokens=_count(usage, "prompt_token_count") + _count(usage, "tool_use_prompt_token_count"),
        output_tokens=_count(usage, "candidates_token_count") + thoughts,
        cache_read_tokens=_count(usage, "cached_content_token_count"),
        reasoning_tokens=thoughts,
    )


def _identity(answer: Any) -> dict[str, Any]:
    return {
        "model": _text(_first(answer, "model", "model_version")),
        "response_id": _text(_first(answer, "id", "response_id")),
    }


def _ending(answer: Any) -> dict[str, Any]:
    if choices := _list(answer, "choices"):
        message = _get(choices[0], "message")
        calls = [_called(_get(call, "function")) for call in _list(message, "tool_calls")]
        return _end(_get(choices[0], "finish_reason"), _get(message, "content"), calls)
    if candidates := _list(answer, "candidates"):
        parts = _list(_get(candidates[0], "content"), "parts")
        calls = [_called(call) for part in parts if (call := _get(part, "function_call")) is not None]
        said = [part for part in parts if not _get(part, "thought")]
        return _end(_get(candidates[0], "finish_reason"), _texts(said), calls)
    if items := _list(answer, "output"):
        calls = [_called(item) for item in items if _get(item, "type") == "function_call"]
        said = [part for item in items for part in _list(item, "content")]
        why = _get(_get(answer, "incomplete_details"), "reason") or _get(answer, "status")
        return _end(why, _texts(said), calls)
    if blocks := _list(answer, "content"):
        calls = [_called(block) for block in blocks if _get(block, "type") == "tool_use"]
        return _end(_get(answer, "stop_reason"), _texts(blocks), calls)
    if isinstance(answer, str):
        return {"output": answer}
    return _end(_first(answer, "finish_reason", "stop_reason"), _first(answer, "output", "text", "content"), [])


def _end(reason: Any, text: Any, calls: list[dict[str, Any]]) -> dict[str, Any]:
    text = text if isinstance(text, str | list | dict) else None
    reason = getattr(reason, "name", reason)  # Google's is an enum
    return {
        "finish_reason": reason if isinstance(reason, str) else None,
        "output": {"text": text, "tool_calls": calls} if calls else text,
    }


def _called(call: Any) -> dict[str, Any]:
    return {"name": _get(call, "name"), "arguments": _first(call, "arguments", "input", "args")}


def _texts(parts: list[Any]) -> str | None:
    return "".join(text for part in parts if isinstance(text := _get(part, "text"), str)) or None


def _cost(answer: Any) -> dict[str, Any]:
    usage = _get(answer, "usage")
    for found in (_get(_get(answer, "_hidden_params"), "response_cost"), _get(usage, "cost"), _get(answer, "cost_usd")):
        if found is not None and not isinstance(found, bool):
            return {"cost_usd": to_money(found)}
    return {}


def _provider(answer: Any, function: Any) -> str | None:
    if known := _text(_get(_get(answer, "_hidden_params"), "custom_llm_provider")):
        return known
    # The client's address says more than its class: many serve OpenAI's protocol.
    address = str(getattr(getattr(getattr(function, "__self__", None), "_client", None), "base_url", "") or "")
    if host := urlsplit(address).hostname:
        return next((name for end, name in _HOSTS.items() if host == end or host.endswith("." + end)), None)
    return _text(_get(answer, "provider")) or _MODULES.get(type(answer).__module__.partition(".")[0])


def _get(value: Any, name: str) -> Any:
    if value is None:
        return None
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _first(value: Any, *names: str) -> Any:
    return next((found for name in names if (found := _get(value, name)) is not None), None)


def _has(value: Any, name: str) -> bool:
    return isinstance(_get(value, name), int)


def _count(value: Any, name: str) -> int:
    found = _get(value, name)
    return found if isinstance(found, int) and found > 0 else 0


def _list(value: Any, name: str) -> list[Any]:
    found = _get(value, name)
    return list(found) if isinstance(found, list | tuple) else []


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
