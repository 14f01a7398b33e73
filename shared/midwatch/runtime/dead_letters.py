"""Messages that a service could not process, kept whole with the reason on `midwatch.dead.<service>`."""

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from midwatch.contracts import control, subjects
from midwatch.contracts.control import DeadLetter
from midwatch.contracts.envelope import utc_now
from midwatch.errors import Temporary

T = TypeVar("T")

TIME_LIMIT = 5.0  # seconds for one acknowledgement
_KEPT = 4 * 1024 * 1024  # bytes of a body; base64 adds a third, and the letter must pass the server's max_payload
_TOGETHER = 500  # dead letters in one atomic batch
_TOGETHER_BYTES = 2 * 1024 * 1024  # of the messages in them
_CUT = "bytes are kept)"


class _Answer(msgspec.Struct):
    """What the server says to the last message of a batch. `error`: that it took none of them."""

    error: Any = None
    count: int = 0


class Packed(NamedTuple):
    """A dead letter as it goes onto the wire."""

    subject: str
    headers: dict[str, str]
    body: bytes


def pack(
    service: str,
    *,
    id: str,
    reason: str,
    error: str,
    subject: str,
    body: bytes,
    attempts: int = 1,
    stream: str = "",
    stream_seq: int = 0,
    headers: Mapping[str, str] | None = None,
) -> Packed:
    """The dead letter of a message; the same `id` again is the same letter."""
    if len(body) > _KEPT:
        error = f"{error} (the first {_KEPT} of {len(body)} {_CUT}"
    letter = DeadLetter(
        service=service, reason=reason, error=error, attempts=attempts, subject=subject, stream=stream,
        stream_seq=stream_seq, at=utc_now(), headers=dict(headers or {}), data=body[:_KEPT],
    )  # fmt: skip
    return Packed(subjects.dead(service), {subjects.MSG_ID: f"dead-{id}"}, control.encode(letter))


async def bury(js: JetStreamContext, service: str, *, subject: str, **letter: Any) -> None:
    """Publishes the dead letter that `pack` makes and waits until it is stored.

    Raises Temporary where the server does not acknowledge it.
    """
    packed = pack(service, subject=subject, **letter)
    try:
        await js.publish(packed.subject, packed.body, timeout=TIME_LIMIT, headers=packed.headers)
    except (NatsError, TimeoutError) as failure:
        raise Temporary(f"the dead letter of {subject} was not acknowledged: {failure}") from failure


async def bury_together(nc: Client, letters: Sequence[Packed]) -> bool:
    """Publishes the letters in one atomic batch, at most 1,000, and waits until they are stored. False where the server
    does not say so: one of them is known already, or it was away. Each alone may then be published again."""
    batch = {"Nats-Batch-Id": uuid.uuid4().hex}
    *first, last = letters
    try:
        for place, one in enumerate(first, 1):
            await nc.publish(one.subject, one.body, headers={**one.headers, **batch, "Nats-Batch-Sequence": str(place)})
        commit = {**last.headers, **batch, "Nats-Batch-Sequence": str(len(letters)), "Nats-Batch-Commit": "1"}
        message = await nc.request(last.subject, last.body, timeout=TIME_LIMIT, headers=commit)
        answer = msgspec.json.decode(message.data, type=_Answer)
    except (NatsError, TimeoutError, msgspec.MsgspecError):
        return False
    return answer.error is None and answer.count == len(letters)


def groups(messages: Sequence[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """The messages in groups whose letters fit into one batch; a large one is alone."""
    some: list[T] = []
    total = 0
    for one in messages:
        total += size(one)
        if some and (total > _TOGETHER_BYTES or len(some) == _TOGETHER):
            yield some
            some, total = [], size(one)
        some.append(one)
    if some:
        yield some


def is_cut(letter: DeadLetter) -> bool:
    """Whether only the beginning of the body was kept."""
    return len(letter.data) == _KEPT and letter.error.endswith(_CUT)
