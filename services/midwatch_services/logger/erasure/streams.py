"""Deletes from the streams what speaks of erased runs, message by message, overwritten on the server's disk."""

import asyncio
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from midwatch.contracts import subjects
from midwatch.contracts.control import DeadLetter
from midwatch.errors import Temporary
from midwatch.runtime.stream_read import Stored, read_range

from .match import Scope

TIME_LIMIT = 5.0  # seconds for one answer
_WINDOW = 64  # deletions under way at once
_NO_MESSAGE = (10037, 10057)


class _Error(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _Deleted(msgspec.Struct):
    error: _Error | None = None


@dataclass
class Swept:
    """What one look through the streams came to. `upto`, `governance`: the last sequence of each; `mentions`: sequences
    of MIDWATCH_GOVERNANCE that name the customer and are about something else."""

    upto: int = 0
    governance: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    mentions: list[int] = field(default_factory=list)
    seen: set[tuple[str, int]] = field(default_factory=set)  # messages that were deleted

    @property
    def found(self) -> bool:
        """Whether anything was there of which a service may have heard."""
        return any(self.counts.get(stream) for stream in (subjects.RUNS, subjects.GOVERNANCE))


class Sweeper:
    """Reads without a consumer, so that nobody's place in a stream changes. Every method raises Temporary where the
    server does not answer or does not let us delete."""

    def __init__(self, nc: Client, js: JetStreamContext, *, delete: bool = True) -> None:
        """Without `delete` it only counts."""
        self._nc, self._js, self._deletes = nc, js, delete

    async def last(self, stream: str) -> int:
        """The sequence of the stream's last message."""
        try:
            return (await self._js.stream_info(stream)).state.last_seq
        except (NatsError, TimeoutError) as error:
            raise Temporary(f"{stream} does not answer: {error or type(error).__name__}") from error

    async def sweep(self, scope: Scope, after_runs: int = 0, after_governance: int = 0) -> Swept:
        """Deletes every message about the runs, from these sequences on; dead letters all."""
        upto, governance = await self.last(subjects.RUNS), await self.last(subjects.GOVERNANCE)
        swept = Swept(upto, governance)
        for agent in scope.agents:
            every = subjects.run(agent, "*")
            found = self._range(subjects.RUNS, every, after_runs + 1, upto)
            seqs = [one.seq async for one in found if scope.has_run_event(agent, one.body)]
            swept.seen.update((subjects.RUNS, seq) for seq in seqs)
            self._count(swept, subjects.RUNS, await self.delete(subjects.RUNS, seqs))
        seqs = []
        async for one in self._range(subjects.GOVERNANCE, ">", after_governance + 1, governance):
            if scope.has_decision(one.subject, one.body):
                seqs.append(one.seq)
            elif not one.subject.startswith("midwatch.erasure.") and scope.mentions(one.body):
                swept.mentions.append(one.seq)
        swept.seen.update((subjects.GOVERNANCE, seq) for seq in seqs)
        self._count(swept, subjects.GOVERNANCE, await self.delete(subjects.GOVERNANCE, seqs))
        await self._letters(scope, swept)
        return swept

    async def _letters(self, scope: Scope, swept: Swept) -> None:
        """Dead letters, and what died, where the stream of it is one of ours and has it still."""
        seqs: list[int] = []
        originals: dict[str, list[int]] = {subjects.RUNS: [], subjects.GOVERNANCE: []}
        async for one in self._range(subjects.DEAD, ">", 1, await self.last(subjects.DEAD)):
            letter = _letter(one.body)
            if not scope.has_letter(letter, one.body):
                continue
            seqs.append(one.seq)
            if letter is None or (letter.stream, letter.stream_seq) in swept.seen:
                continue
            if letter.stream in originals and await self._is(letter):
                originals[letter.stream].append(letter.stream_seq)
        for stream, some in originals.items():
            self._count(swept, stream, await self.delete(stream, sorted(set(some))))
        self._count(swept, subjects.DEAD, await self.delete(subjects.DEAD, seqs))

    async def _is(self, letter: DeadLetter) -> bool:
        """Whether what died is at its place still; in a stream that was made anew another message is."""
        try:
            found = await self._js.get_msg(letter.stream, seq=letter.stream_seq, direct=True)
        except NotFoundError:
            return False
        except (NatsError, TimeoutError) as error:
            raise Temporary(f"{letter.stream} does not answer: {error or type(error).__name__}") from error
        return found.subject == letter.subject and (found.data or b"").startswith(letter.data)

    async def forget(self, erasure: str) -> int:
        """Deletes what was said of the erasure itself that names the customer, a run or a ticket."""
        seqs: list[int] = []
        wanted = f'"{erasure}"'.encode()
        for event in ("requested", "resolved"):
            last = await self.last(subjects.GOVERNANCE)
            found = self._range(subjects.GOVERNANCE, subjects.erasure(event), 1, last)
            seqs += [one.seq async for one in found if wanted in one.body]
        return await self.delete(subjects.GOVERNANCE, seqs)

    async def delete(self, stream: str, seqs: Collection[int]) -> int:
        """Deletes the messages and returns how many were there."""
        if not self._deletes:
            return len(set(seqs))
        window = asyncio.Semaphore(_WINDOW)

        async def one(seq: int) -> bool:
            async with window:
                return await self._delete(stream, seq)

        return sum(await asyncio.gather(*(one(seq) for seq in seqs)))

    async def _delete(self, stream: str, seq: int) -> bool:
        request = msgspec.json.encode({"seq": seq, "no_erase": False})
        try:
            answer = await self._nc.request(f"$JS.API.STREAM.MSG.DELETE.{stream}", request, timeout=TIME_LIMIT)
        except (NatsError, TimeoutError) as error:
            why = f"{error or type(error).__name__}: may this user do so?"
            raise Temporary(f"{stream} {seq} was not deleted ({why})") from error
        error_of = msgspec.json.decode(answer.data, type=_Deleted).error
        if error_of is not None and error_of.err_code not in _NO_MESSAGE:
            raise Temporary(f"{stream} {seq} was not deleted: {error_of.description} ({error_of.err_code})")
        return error_of is None

    async def _range(self, stream: str, subject: str, start: int, to: int) -> AsyncIterator[Stored]:
        if start > to:
            return
        try:
            async for batch in read_range(self._nc, stream, subject, start, to=to):
                for one in batch:
                    yield one
        except NatsError as error:
            raise Temporary(f"{stream} cannot be read: {error or type(error).__name__}") from error

    @staticmethod
    def _count(swept: Swept, place: str, count: int) -> None:
        swept.counts[place] = swept.counts.get(place, 0) + count


def _letter(raw: bytes) -> DeadLetter | None:
    try:
        return msgspec.json.decode(raw, type=DeadLetter)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
