"""Reading and writing messages: one decoder an event, picked by the subject, so that a body is parsed once."""

from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from .envelope import Envelope, event_type, new_id, utc_now
from .governance import GOVERNANCE_EVENTS
from .runs import EVENT_LIMIT, RUN_EVENTS, RunData

_encoder = msgspec.json.Encoder()
_NOUNS: dict[str, dict[str, type[Any]]] = {"run": dict(RUN_EVENTS)}
for (_noun, _event), _data in GOVERNANCE_EVENTS.items():
    _NOUNS.setdefault(_noun, {})[_event] = _data
_DECODERS = {
    (noun, event): (event_type(noun, event), msgspec.json.Decoder(Envelope[data]))  # type: ignore[valid-type]
    for noun, events in _NOUNS.items()
    for event, data in events.items()
}


class Refused(Exception):
    """A message breaks the contract. `reason` is the short code that its dead letter carries."""

    def __init__(self, reason: str, error: str) -> None:
        super().__init__(error)
        self.reason = reason


class RunEvent(NamedTuple):
    """A run event that kept the contract. Its identity is (`agent`, `id`)."""

    agent: str
    event: str
    id: str
    time: datetime
    source: str
    data: RunData


def encode(envelope: Envelope[Any]) -> bytes:
    """An envelope as the body of a message."""
    return _encoder.encode(envelope)


def envelope(
    noun: str, event: str, data: Any, *, source: str, id: str | None = None, time: datetime | None = None,
    subject: str | None = None,
) -> Envelope[Any]:  # fmt: skip
    """An envelope around `data`, with a new id and the time now unless they are given."""
    return Envelope(
        id=id or new_id(), source=source, type=event_type(noun, event), subject=subject, time=time or utc_now(),
        data=data,
    )  # fmt: skip


def decode(subject: str, body: bytes) -> Envelope[Any]:
    """The envelope in `body`, read as the event that `subject` names.

    Raises Refused, with what is wrong in words, for a body that breaks the contract.
    """
    if len(body) > EVENT_LIMIT:
        raise Refused(
            "oversized",
            f"the message has {len(body)} bytes, the limit is {EVENT_LIMIT}: cut long fields as the SDK does",
        )
    tokens = subject.split(".")
    if len(tokens) != 4:
        raise Refused(
            "bad_subject", f"{subject!r} has {len(tokens)} tokens, not 4: an agent's name has no dots ([a-z0-9_-])"
        )
    known = _DECODERS.get((tokens[1], tokens[3]))
    if known is None:
        raise Refused("bad_subject", f"{subject!r} names no event of this contract (v1)")
    expected, decoder = known
    try:
        envelope = decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _why(expected, body, error) from None
    if envelope.type != expected:
        raise _wrong_type(expected, envelope.type)
    return envelope


def decode_run(subject: str, body: bytes) -> RunEvent:
    """The run event in `body`, its agent checked against the subject's. Raises Refused."""
    envelope = decode(subject, body)
    data = envelope.data
    agent = subject.split(".", 3)[2]
    if data.agent != agent:
        raise Refused("wrong_agent", f"the subject says agent {agent!r}, the body says {data.agent!r}")
    source = envelope.source
    if source.startswith("/agents/") and source.split("/", 3)[2] != agent:
        raise Refused("wrong_agent", f"the subject says agent {agent!r}, the source says {source!r}")
    return RunEvent(agent, subject.rsplit(".", 1)[1], envelope.id, envelope.time, source, data)


def _wrong_type(expected: str, found: str) -> Refused:
    if found.rsplit(".", 1)[0] == expected.rsplit(".", 1)[0]:
        return Refused("unknown_version", f"type {found!r} is of another version: this release reads {expected!r}")
    return Refused("malformed", f"type {found!r} does not go with its subject, which wants {expected!r}")


class _Peek(msgspec.Struct):
    type: str = ""


def _why(expected: str, body: bytes, error: Exception) -> Refused:
    # A body of another version may well fail the shape of this one: say the version, not the shape.
    try:
        found = msgspec.json.decode(body, type=_Peek).type
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Refused("malformed", f"the body is no CloudEvent in JSON: {error}")
    if found and found != expected:
        return _wrong_type(expected, found)
    return Refused("malformed", f"the body breaks the contract: {error}")
