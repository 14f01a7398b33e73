"""What stood in the buckets while a run went on: card, route, switch; from the history that NATS keeps of each key."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from midwatch.contracts import control, subjects
from midwatch.contracts.control import Card
from midwatch.runtime.switchboard import is_deleted


class Standing(Struct, frozen=True, kw_only=True):
    """A value of a key: since when, at which revision (epoch), None where it was deleted or cannot be read."""

    key: str
    revision: int
    since: datetime
    value: Any


class InForce(Struct, frozen=True, kw_only=True):
    """What held as the run began, and what changed before it ended. `unknown`: what is not kept any more."""

    card: Card | None = None
    cards: list[Standing] = []
    switch: list[Standing] = []
    route: list[Standing] = []
    unknown: list[str] = []


async def read(js: JetStreamContext, agent: str, run_id: str, start: datetime, end: datetime) -> InForce:
    """What was in force for the run. Raises NatsError and TimeoutError where NATS does not answer."""
    unknown: list[str] = []

    async def during(bucket: str, key: str, what: str, decode: Callable[[bytes], Any]) -> list[Standing]:
        history = await _history(js, bucket, key, decode)
        found = held(history, start, end)
        if history and not (found and found[0].since <= start):
            first = f"{history[0].since:%Y-%m-%d %H:%M:%S} UTC"
            unknown.append(f"What {what} said as the run began: the oldest that is kept is of {first}")
        return found

    cards = await during(subjects.AGENTS, agent, "the scope card", _card)
    route = await during(subjects.ROUTES, agent, "the route", _plain)
    fleet, own, tools, runs = subjects.switch_keys(agent)
    readers = {fleet: control.decode_record, own: control.decode_record, tools: control.decode_map}
    switch: list[Standing] = []
    for key, decode in (*readers.items(), (runs, _of_run(run_id))):
        found = await during(subjects.SWITCH, key, f"the switch ({key})", decode)
        switch += [one for one in found if key != runs or one.value != {}]
    card = next((one.value for one in cards if isinstance(one.value, Card)), None)
    return InForce(card=card, cards=cards, switch=switch, route=route, unknown=unknown)


def held(history: Sequence[Standing], start: datetime, end: datetime) -> list[Standing]:
    """Of a key's values in order: the one that stood at `start`, and those that were written by `end`."""
    before = [one for one in history if one.since <= start]
    return before[-1:] + [one for one in history if start < one.since <= end]


async def _history(js: JetStreamContext, bucket: str, key: str, decode: Callable[[bytes], Any]) -> list[Standing]:
    found: list[Standing] = []
    seq = 1
    while True:
        try:
            message = await js.get_msg(
                subjects.key_stream(bucket), seq, subject=subjects.key_subject(bucket, key), direct=True, next=True
            )
        except NotFoundError:
            return found
        value = None if is_deleted(message.headers) else decode(message.data or b"")
        assert message.seq is not None and message.time is not None
        found.append(Standing(key=key, revision=message.seq, since=message.time, value=value))
        seq = message.seq + 1


def _card(data: bytes) -> Card | None:
    try:
        return msgspec.json.decode(data, type=Card)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _plain(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _of_run(run_id: str) -> Callable[[bytes], Any]:
    """Of the map of runs only what it says of this one: others are none of the reader's business."""

    def decode(data: bytes) -> Any:
        found = control.decode_map(data)
        if found is None:
            return None
        return {name: record for name, record in found.items() if name == run_id}

    return decode
