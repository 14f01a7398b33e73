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
    """`card` is None where it was removed or cannot be read, as `wrong` says: `removed`, `unreadable`. `by` is who
    applied it, empty where it does not say."""

    revision: int
    at: datetime
    by: str
    card: Card | None
    wrong: str = ""


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
            if is_deleted(message.headers):
                found.append(Version(message.seq, message.time, "", None, "removed"))
            else:
                by, card = _read(agent, message.data or b"")
                found.append(Version(message.seq, message.time, by, card, "" if card else "unreadable"))
            seq = message.seq + 1
        return found[::-1]

    return await reading.ask(work, keep=("card", agent), seconds=2, stale=10)


def _read(agent: str, data: bytes) -> tuple[str, Card | None]:
    try:
        card = msgspec.json.decode(data, type=Card)
        return msgspec.json.decode(data, type=_Signed).applied_by, card if card.agent == agent else None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "", None
