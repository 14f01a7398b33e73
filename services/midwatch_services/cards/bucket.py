"""Scope cards in the bucket: read, and written by compare-and-set."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import msgspec
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg
from nats.js.errors import APIError, NotFoundError

from midwatch.contracts import control, subjects
from midwatch.contracts.control import Card
from midwatch.errors import MidwatchError, Temporary
from midwatch.runtime.broker import connection
from midwatch.runtime.switchboard import is_deleted

from .meaning import meaning, meaning_hash

_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_WRONG_LAST = 10071
_NO_STREAM = 10059
_ATTEMPTS = 10
BY_APPLY = "midwatch apply"


class NoBucket(MidwatchError):
    """There is no bucket {bucket} on this server: run `midwatch topology apply`."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What `apply` did with one card. `switch` is what the agent's key says: only `running` lets it run."""

    agent: str
    action: Literal["created", "updated", "unchanged"]
    hash: str
    revision: int
    switch: Literal["running", "halted", "removed", "unreadable"]
    switch_written: bool
    switch_by: str = ""
    switch_reason: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """A card as it stands in the bucket. `card` is None where it was removed or cannot be read."""

    card: Card | None
    revision: int


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[JetStreamContext]:
    """JetStream for one command. Raises Temporary where nothing answers at `url`."""
    async with connection(url) as client:
        try:
            yield client.jetstream(timeout=3)
        except APIError as error:
            raise Temporary(f"NATS refuses: {error.description or error}") from error
        except (NatsError, TimeoutError) as error:
            raise Temporary(f"NATS does not answer ({error or 'timeout'}): see that you may do this there") from error


async def stored(js: JetStreamContext, agent: str) -> Stored:
    """The agent's card in the bucket; revision 0 where there never was one. Raises NoBucket."""
    message = await _last(js, subjects.AGENTS, agent)
    if message is None:
        return Stored(None, 0)
    card = None
    if not is_deleted(message.headers):
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            card = msgspec.json.decode(message.data or b"", type=Card)
    return Stored(card, message.seq or 0)


async def reversible_agents(js: JetStreamContext) -> list[str]:
    """The agents whose cards redact something that can be got back. Raises NoBucket."""
    try:
        info = await js.stream_info(
            subjects.key_stream(subjects.AGENTS), subjects_filter=subjects.key_subject(subjects.AGENTS, ">")
        )
    except NotFoundError:
        raise NoBucket(bucket=subjects.AGENTS) from None
    agents = sorted(subject.rsplit(".", 1)[1] for subject in info.state.subjects or ())
    cards = [(await stored(js, agent)).card for agent in agents]
    return [card.agent for card in cards if card and any(rule.reversible for rule in card.log.redact)]


async def apply(js: JetStreamContext, card: Card, *, by: str, now: datetime) -> Applied:
    """Stores the card unless its meaning stands there already, and arms an agent that was never armed.

    A switch that was ever written, halted, deleted or purged, is left as it is. Raises NoBucket, and Temporary where
    others keep writing the same card.
    """
    action, revision = await _store(js, card, by, now)
    record = control.SwitchRecord(state="running", by=BY_APPLY, at=now)
    key = subjects.agent_key(card.agent)
    if await _write(js, subjects.SWITCH, key, control.encode(record), after=0) is not None:
        return Applied(card.agent, action, card.hash, revision, "running", True, BY_APPLY)
    message = await _last(js, subjects.SWITCH, key)
    if message is None or is_deleted(message.headers):
        return Applied(card.agent, action, card.hash, revision, "removed", False)
    found = control.decode_record(message.data or b"")
    if found is None:
        return Applied(card.agent, action, card.hash, revision, "unreadable", False)
    return Applied(card.agent, action, card.hash, revision, found.state, False, found.by, found.reason)


async def _store(
    js: JetStreamContext, card: Card, by: str, now: datetime
) -> tuple[Literal["created", "updated", "unchanged"], int]:
    value = msgspec.json.encode({**meaning(card), "hash": card.hash, "applied_by": by, "applied_at": now})
    for _ in range(_ATTEMPTS):
        before = await stored(js, card.agent)
        if before.card and before.card.hash == card.hash == meaning_hash(before.card):
            return "unchanged", before.revision
        revision = await _write(js, subjects.AGENTS, card.agent, value, after=before.revision)
        if revision is not None:
            return "updated" if before.revision else "created", revision
    raise Temporary(f"the card of {card.agent} was written by others {_ATTEMPTS} times meanwhile: apply it again")


async def _write(js: JetStreamContext, bucket: str, key: str, value: bytes, *, after: int) -> int | None:
    """The new revision, or None where the key's last is another than `after`."""
    try:
        ack = await js.publish(subjects.key_subject(bucket, key), value, headers={_EXPECTED: str(after)})
    except APIError as error:
        if error.err_code == _WRONG_LAST:
            return None
        raise
    return ack.seq


async def _last(js: JetStreamContext, bucket: str, key: str) -> RawStreamMsg | None:
    # From the leader: a replica may answer with what was true before.
    try:
        return await js.get_last_msg(subjects.key_stream(bucket), subjects.key_subject(bucket, key))
    except NotFoundError as error:
        if error.err_code == _NO_STREAM:
            raise NoBucket(bucket=bucket) from None
        return None
