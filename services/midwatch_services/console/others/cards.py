"""An agent's card as the bucket keeps it, with the versions before."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from nats.js.errors import NotFoundError

from midwatch.contracts import subjects
from midwatch.contracts.control import Card
from midwatch.runtime.switchboard import is_deleted
from midwatch_services.console.reading import Found, Reading

MOST = 64  # versions that the bucket keeps


@dataclass(frozen=True, slots=True)
class Version:
    """`card` is None where it was removed or cannot be read. `by` is who applied it, empty where it does not say."""

    revision: int
    at: datetime
    by: str
    card: Card | None


class _Signed(msgspec.Struct):
    applied_by: str = ""


async def versions(reading: Reading, js: Any, agent: str) -> Found[list[Version]]:
    """The newest first."""

    async def work() -> list[Version]:
        stream, subject = subjects.key_stream(subjects.AGENTS), subjects.key_subject(subjects.AGENTS, agent)
        found: list[Version] = []
        seq = 1
        while len(found) < MOST:
            try:
                message = await js.get_msg(stream, seq, subject=subject, direct=True, next=True)
            except NotFoundError:
                break
            data = b"" if is_deleted(message.headers) else message.data or b""
            found.append(Version(message.seq, message.time, *_read(data)))
            seq = message.seq + 1
        return found[::-1]

    return await reading.ask(work, keep=("card", agent), seconds=2, stale=10)


def _read(data: bytes) -> tuple[str, Card | None]:
    try:
        return msgspec.json.decode(data, type=_Signed).applied_by, msgspec.json.decode(data, type=Card)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "", None
