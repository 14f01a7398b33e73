"""Messages that a service could not process, kept whole with the reason on `midwatch.dead.<service>`."""

from collections.abc import Mapping

from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from midwatch.contracts import control, subjects
from midwatch.contracts.control import DeadLetter
from midwatch.contracts.envelope import utc_now
from midwatch.errors import Temporary

TIME_LIMIT = 5.0  # seconds for one acknowledgement
_KEPT = 4 * 1024 * 1024  # bytes of a body; base64 adds a third, and the letter must pass the server's max_payload
_CUT = "bytes are kept)"


async def bury(
    js: JetStreamContext,
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
) -> None:
    """Publishes the dead letter and waits until it is stored; the same `id` again changes nothing.

    Raises Temporary where the server does not acknowledge it.
    """
    if len(body) > _KEPT:
        error = f"{error} (the first {_KEPT} of {len(body)} {_CUT}"
    letter = DeadLetter(
        service=service, reason=reason, error=error, attempts=attempts, subject=subject, stream=stream,
        stream_seq=stream_seq, at=utc_now(), headers=dict(headers or {}), data=body[:_KEPT],
    )  # fmt: skip
    try:
        await js.publish(
            subjects.dead(service), control.encode(letter), timeout=TIME_LIMIT, headers={subjects.MSG_ID: f"dead-{id}"}
        )
    except (NatsError, TimeoutError) as failure:
        raise Temporary(f"the dead letter of {subject} was not acknowledged: {failure}") from failure


def is_cut(letter: DeadLetter) -> bool:
    """Whether only the beginning of the body was kept."""
    return len(letter.data) == _KEPT and letter.error.endswith(_CUT)
