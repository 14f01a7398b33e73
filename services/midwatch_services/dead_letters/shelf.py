"""The stream of dead letters: read, published again, deleted."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError, NoRespondersError, StaleConnectionError, UnexpectedEOF
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError, ServiceUnavailableError

from midwatch.contracts import subjects
from midwatch.contracts.control import DeadLetter
from midwatch.errors import MidwatchError, Temporary
from midwatch.runtime import faults
from midwatch.runtime.broker import connection
from midwatch.runtime.dead_letters import is_cut
from midwatch.runtime.stream_read import read_range
from midwatch.runtime.topology import NoJetStream

from .decide import UNREADABLE, Letter, Original, headers_again

T = TypeVar("T")
Fate = Literal["retried", "duplicate", "refused", "failed"]

TIME_LIMIT = 5.0  # seconds for one answer
_ERROR = 2_000  # characters of an error that are kept of each letter; `show` has all
_DELETE = f"$JS.API.STREAM.MSG.DELETE.{subjects.DEAD}"
_NO_MESSAGE = 10057


class _Error(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _Deleted(msgspec.Struct):
    error: _Error | None = None


class NotAllowed(MidwatchError):
    """The NATS server refuses this user: listing and showing dead letters takes the operator's rights, retrying and
    dropping them the admin's: set NATS_URL to the address of that user."""


class NoShelf(MidwatchError):
    """There is no stream MIDWATCH_DEAD: run `midwatch topology apply`."""


class NoLetter(MidwatchError):
    """There is no dead letter {number}: `midwatch dead list` names those that are there."""


@dataclass(frozen=True)
class Outcome:
    """What became of one original. `fate` retried: published, and its letters are deleted."""

    fate: Fate
    why: str = ""
    deleted: int = 0


@asynccontextmanager
async def open_shelf(url: str) -> AsyncIterator["Shelf"]:
    """The shelf, over a connection of its own. Raises Temporary where no server answers."""
    ended: asyncio.Future[MidwatchError] = asyncio.get_running_loop().create_future()

    async def told(error: Exception) -> None:
        # What a user may not do is not answered, nor what was asked before the connection went: it is said here alone.
        if ended.done():
            return
        if "permissions violation" in str(error).lower():
            ended.set_result(NotAllowed())
        elif isinstance(error, (UnexpectedEOF, StaleConnectionError, OSError)):
            ended.set_result(_silent(error))

    async with connection(url, told=told) as nc:
        yield Shelf(nc, ended)


class Shelf:
    """Reads and writes the dead letters. Every method raises NotAllowed, NoShelf or Temporary."""

    def __init__(self, nc: Client, ended: "asyncio.Future[MidwatchError]") -> None:
        self._nc = nc
        self._js = nc.jetstream(timeout=TIME_LIMIT)
        self._ended = ended

    async def letters(self) -> list[Letter]:
        """All that lie there, without their bodies."""
        await self._max_age(subjects.DEAD)

        async def work() -> list[Letter]:
            return [
                letter_of(stored.seq, stored.subject, stored.body, datetime.fromisoformat(stored.stored_at))
                async for batch in read_range(self._nc, subjects.DEAD, subjects.dead(">"), 1)
                for stored in batch
            ]

        return await self._unless_ended(work())

    async def remembered(self) -> timedelta:
        """For how long services know what they have applied: as long as the stream of runs keeps it."""
        seconds = await self._max_age(subjects.RUNS)
        return timedelta(seconds=seconds) if seconds else timedelta.max

    async def body(self, number: int) -> tuple[Letter, DeadLetter | None, bytes]:
        """One letter whole: as it is listed, as it was written (None where it cannot be read), and its bytes. Raises
        NoLetter."""
        try:
            message = await self._unless_ended(self._js.get_msg(subjects.DEAD, seq=number, direct=True))
        except NotFoundError:
            raise NoLetter(number=number) from None
        except NoRespondersError:
            raise NoShelf from None
        data, stored_at = message.data or b"", message.time or datetime.now(UTC)
        return letter_of(number, message.subject or "", data, stored_at), _decoded(data), data

    async def retry(self, original: Original) -> Outcome:
        """Publishes the original to its own subject, and deletes its letters once the server has it. Raises Temporary
        where it does not say so: then nothing is deleted, and to retry again is harmless."""
        letter = await self._first_left(original)
        if letter is None:
            return Outcome("failed", "its letters are gone: somebody has retried or dropped it meanwhile")
        headers = headers_again(letter.headers)
        try:
            ack = await self._unless_ended(
                self._js.publish(letter.subject, letter.data, timeout=TIME_LIMIT, headers=headers or None)
            )
        except NoStreamResponseError:
            return Outcome("failed", f"no stream takes {letter.subject}: run `midwatch topology apply`")
        except MaxPayloadError:
            return Outcome("failed", "it is larger than the server takes: raise its max_payload")
        except APIError as error:
            return Outcome("failed", f"the server says: {error.description or error} ({error.err_code})")
        if ack.duplicate:
            return Outcome("duplicate")
        faults.reach("dead.published")
        # What they held is in its stream again: to overwrite it on the disk would only take ten times as long.
        gone = await asyncio.gather(*(self._delete(number, erase=False) for number in original.numbers))
        return Outcome("retried", deleted=sum(gone))

    async def drop(self, number: int) -> bool:
        """Deletes a letter for good. False where it was gone already."""
        return await self._delete(number, erase=True)

    async def _delete(self, number: int, *, erase: bool) -> bool:
        request = msgspec.json.encode({"seq": number, "no_erase": not erase})
        try:
            answer = await self._unless_ended(self._nc.request(_DELETE, request, timeout=TIME_LIMIT))
        except NoRespondersError:
            raise NoJetStream from None
        error = msgspec.json.decode(answer.data, type=_Deleted).error
        if error is not None and error.err_code != _NO_MESSAGE:
            raise Temporary(f"letter {number} was not deleted: {error.description} ({error.err_code})")
        return error is None

    async def _first_left(self, original: Original) -> DeadLetter | None:
        for number in original.numbers:
            with suppress(NoLetter):
                return (await self.body(number))[1]
        return None

    async def _max_age(self, stream: str) -> float:
        """How long the stream keeps a message, in seconds; it also tells whether the stream is there."""
        try:
            return (await self._unless_ended(self._js.stream_info(stream))).config.max_age or 0.0
        except NotFoundError:
            raise NoShelf from None
        except (NoRespondersError, ServiceUnavailableError):
            raise NoJetStream from None

    async def _unless_ended(self, work: "Coroutine[Any, Any, T]") -> T:
        """What `work` returns, or the error by which the server or the connection ended it."""
        task = asyncio.ensure_future(work)
        waiting: list[asyncio.Future[Any]] = [task, self._ended]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise self._ended.result()
            return task.result()
        except APIError:
            raise
        except (NoStreamResponseError, NoRespondersError, MaxPayloadError):
            raise
        except (NatsError, OSError, TimeoutError) as error:
            raise _silent(error) from error
        finally:
            task.cancel()


def _silent(error: Exception) -> Temporary:
    return Temporary(f"NATS stopped answering ({str(error) or type(error).__name__}): see `midwatch doctor`")


def letter_of(number: int, subject: str, data: bytes, stored_at: datetime) -> Letter:
    """A message of the stream as a letter; one that is none says so."""
    letter = _decoded(data)
    if letter is None:
        error = "the letter itself cannot be read"
        return Letter(number, stored_at, subject.rpartition(".")[2], UNREADABLE, error, digest=_digest(data))
    at = letter.at if letter.at.tzinfo else letter.at.replace(tzinfo=UTC)
    return Letter(
        number, at, letter.service, letter.reason, letter.error[:_ERROR], letter.attempts, letter.subject,
        letter.stream, letter.stream_seq, _digest(letter.data), is_cut(letter),
    )  # fmt: skip


def _decoded(data: bytes) -> DeadLetter | None:
    try:
        return msgspec.json.decode(data, type=DeadLetter)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
