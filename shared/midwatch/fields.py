"""What an agent hands us, made fit for the wire: encoded whatever it is, and cut where it is too long."""

import logging
from datetime import UTC, datetime
from typing import Any

import msgspec

from .contracts.envelope import Envelope, utc_now
from .contracts.money import to_money
from .contracts.runs import EVENT_LIMIT, FIELD_LIMIT, Message, RunData, Usage
from .usage import tokens

log = logging.getLogger("midwatch")

_KEPT = frozenset(  # never cut: identity, or of bounded size
    (
        "run_id",
        "agent",
        "mode",
        "seq",
        "truncated",
        "full_lengths",
        "usage",
        "by",
        "kind",
        "resolution",
        "reservation",
        "estimate_usd",
    )
)
_SHORTEST = 64  # bytes; no field is cut below this


def _plain(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json")
    return _described(value)


def _described(value: Any) -> str:
    try:
        return whole(repr(value))
    except Exception:
        return f"<{type(value).__name__}>"


_encoder = msgspec.json.Encoder(enc_hook=_plain)


def whole(text: str) -> str:
    """`text` without lone surrogates, which no UTF-8 can carry."""
    return text.encode("utf-8", "replace").decode("utf-8")


def to_text(value: Any) -> str:
    """`value` as text, whatever it is. Never raises."""
    try:
        return whole(value if isinstance(value, str) else str(value))
    except Exception:
        return f"<{type(value).__name__}>"


def to_json(value: Any) -> bytes:
    """`value` as JSON, whatever it is: what JSON cannot say is described. Never raises."""
    try:
        return _encoder.encode(value)
    except Exception:
        return _encoder.encode(_safe(value, frozenset()))


def to_input(value: Any) -> str | list[Message]:
    """A run's input as the contract has it: text, or a list of messages. Anything else becomes its JSON text."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and value:
        messages = [_message(item) for item in value]
        if all(messages):
            return [message for message in messages if message]
    return to_json(value).decode()


def describe(error: BaseException) -> str:
    return to_text(f"{type(error).__name__}: {to_text(error)}")


def optional(value: Any) -> str | None:
    return None if value is None else to_text(value)


def to_usage(usage: Any) -> Usage | None:
    try:
        return tokens(usage)
    except Exception:
        return None


def to_cost(amount: Any) -> str | None:
    try:
        return None if amount is None else to_money(amount)
    except (ValueError, ArithmeticError):
        log.warning("midwatch: %r is no cost in US dollars: recorded without one", amount)
        return None


def to_duration(value: float | None) -> float | None:
    return max(0.0, round(value, 3)) if isinstance(value, int | float) else None


def to_utc(at: datetime | None) -> datetime:
    if at is None:
        return utc_now()
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def encode_event(envelope: Envelope[Any], limit: int = EVENT_LIMIT) -> bytes:
    """The event as the body of a message of at most `limit` bytes. Fields over FIELD_LIMIT are cut. Never raises for
    what stands in its fields."""
    try:
        body = _encoder.encode(envelope)
    except Exception:
        envelope = msgspec.structs.replace(envelope, data=_cleaned(envelope.data))
        body = _encoder.encode(envelope)
    # No field is longer than its event, so a short event needs no look at its fields.
    return body if len(body) <= FIELD_LIMIT and len(body) <= limit else _cut(envelope, limit)


def _cut(envelope: Envelope[Any], limit: int) -> bytes:
    longest = FIELD_LIMIT
    while True:
        body = _encoder.encode(msgspec.structs.replace(envelope, data=_shortened(envelope.data, longest)))
        if len(body) <= limit or longest <= _SHORTEST:
            return body
        longest //= 2


def _shortened(data: RunData, longest: int) -> RunData:
    cut: dict[str, Any] = {}
    lengths: dict[str, int] = {}
    for name in data.__struct_fields__:
        value = getattr(data, name)
        if name in _KEPT or value is None:
            continue
        encoded = _encoder.encode(value)
        if len(encoded) > longest:
            lengths[name] = len(encoded)
            text = value if isinstance(value, str) else encoded.decode()
            cut[name] = {} if name == "labels" else _head(text, longest)
    if not lengths:
        return data
    return msgspec.structs.replace(data, truncated=True, full_lengths=lengths, **cut)


def _head(text: str, longest: int) -> str:
    # Characters take 1 to 6 bytes as JSON, so the length is found by trying.
    text = text[:longest]
    while (size := len(_encoder.encode(text))) > longest:
        text = text[: max(0, len(text) * longest // size - 1)]
    return text


def _cleaned(data: RunData) -> RunData:
    values = {name: getattr(data, name) for name in data.__struct_fields__}
    return msgspec.structs.replace(data, **{name: _safe(value, frozenset()) for name, value in values.items()})


def _safe(value: Any, above: frozenset[int]) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return to_text(value)
    if id(value) in above or len(above) > 50:
        return "…"
    inside = above | {id(value)}
    try:
        if isinstance(value, dict):
            return {to_text(key): _safe(item, inside) for key, item in list(value.items())}
        if isinstance(value, list | tuple | set | frozenset):
            return [_safe(item, inside) for item in list(value)]
        return msgspec.Raw(_encoder.encode(value))
    except Exception:
        return _described(value)


def _message(item: Any) -> Message | None:
    if not isinstance(item, dict):
        item = {name: getattr(item, name, None) for name in ("role", "content", "name")}
    role, content, name = item.get("role"), item.get("content"), item.get("name")
    if not isinstance(role, str):
        return None
    if content is None:  # a call of a tool, for instance: all that it says is its content
        content = {key: value for key, value in item.items() if key not in ("role", "content", "name")} or None
    return Message(role=role, content=content, name=name if isinstance(name, str) else None)
