"""Answers reviewers who ask for a run to judge: at most as many people hold one as it wants judges.

The database says who holds what, in one transaction a batch that no other process of the service shares; an answer
leaves once that is saved. A claim whose time is over holds nothing any more, by the time at which somebody asks.
"""

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
from msgspec.structs import replace
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError
from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch.contracts.claims import REQUEST_LIMIT, Hold, Take, Taken
from midwatch.errors import Temporary
from midwatch.runtime import answering, faults
from midwatch.runtime.card_book import CardBook
from midwatch.runtime.database import Database

from .. import store as draws
from . import decide, store
from .store import Held, new_key

BATCH = 64  # requests in one transaction
WAITING = 5_000  # requests that wait for one; more are told to ask again
READ_WITHIN = 1.0  # seconds for which a request waits until the judgements made before it are read
LOOK = 0.01  # seconds between two looks at that

_decoders: dict[str, msgspec.json.Decoder[Take] | msgspec.json.Decoder[Hold]] = {
    "take": msgspec.json.Decoder(Take),
    "extend": msgspec.json.Decoder(Hold),
    "release": msgspec.json.Decoder(Hold),
}
_CLAIM = re.compile(rb'"claim"\s*:\s*"([A-Za-z0-9_-]{1,64})"')
_encode = msgspec.json.Encoder().encode


Request = answering.Request[Take | Hold, Taken]


class Claims:
    """Gives runs to people and takes them back."""

    def __init__(
        self, database: Database, js: JetStreamContext, cards: CardBook, now: Callable[[], datetime],
        *, keep: timedelta, new_key: Callable[[], bytes] = new_key,
    ) -> None:  # fmt: skip
        """`keep`: for how long a claim that is over is remembered."""
        self._database, self._js, self._cards, self._now, self._new_key = database, js, cards, now, new_key
        self._keep = keep
        self.answering = answering.Answering(
            subjects.claim("*", "*"), subjects.REVIEWER_SAMPLER, batch=BATCH, waiting=WAITING, read=read,
            judge=self._judge_saved, refuse=_refusal, encode=_encode,
        )  # fmt: skip

    async def _judge_saved(self, batch: list[Request]) -> list[Taken]:
        answers: list[Taken] = []

        def work(conn: Connection) -> None:
            answers.extend(self._judge(conn, request) for request in batch)

        if any(isinstance(request.ask, Take) for request in batch):
            await self._hear_judgements()
        await self._database.write(work)
        faults.reach("reviewer_sampler.claimed")
        return answers

    async def _hear_judgements(self) -> None:
        """Whoever has judged a run and asks for the next one is not given the same again."""
        loop = asyncio.get_running_loop()
        until = loop.time() + READ_WITHIN
        try:
            last = await self._last_judgement()
            while True:
                # Not by what is pending: the server counts that a moment after it has acknowledged a message.
                info = await self._js.consumer_info(subjects.GOVERNANCE, subjects.REVIEWER_SAMPLER_VERDICTS)
                if (info.ack_floor.stream_seq if info.ack_floor else 0) >= last:
                    return
                if loop.time() > until:
                    break
                await asyncio.sleep(LOOK)
        except (NatsError, TimeoutError) as error:
            raise Temporary(f"NATS does not say which judgements are read: {error or 'timeout'}") from error
        if info.num_pending:  # one that cannot be handled now holds up nobody
            raise Temporary(f"{info.num_pending} judgements made before are not read yet: ask again")

    async def _last_judgement(self) -> int:
        """Its sequence in the stream."""
        try:
            return (await self._js.get_last_msg(subjects.GOVERNANCE, subjects.review("*", "judged"))).seq or 0
        except NotFoundError:
            return 0

    def _judge(self, conn: Connection, request: Request) -> Taken:
        ask, now = request.ask, self._now()
        if isinstance(ask, Take):
            return self._take(conn, ask, _only(request.agent) or ask.agent, now)
        if isinstance(ask, Hold):
            return self._hold(conn, request, ask, now)
        return ask

    def _take(self, conn: Connection, ask: Take, agent: str | None, now: datetime) -> Taken:
        at, run_id = now.timestamp(), ask.run_id.replace("\0", "\ufffd") if ask.run_id else None
        skip = [one for one in ask.skip if one != run_id]
        known = store.claim(conn, ask.claim)
        if known is not None and (known.by != ask.by or known.over or known.until <= at):
            return Taken(claim=ask.claim, reason=_why_not(known, ask.by))
        held = known or store.held_by(conn, ask.by, at, agent=agent, run_id=run_id, skip=skip)
        if held is None:
            item = store.next_for(conn, ask.by, at, agent=agent, run_id=run_id, skip=skip)
            if item is None:
                return Taken(claim=ask.claim, reason=self._nothing(conn, ask.by, agent, run_id))
            rule = self._cards.get(item.run.agent).review
            if item.state == "waiting" and not item.second:
                key = draws.key_of(conn, item.day, self._new_key())[0].key
                if decide.wants_second(decide.draw_second(key, item.run), rule):
                    store.want_second(conn, item.run)
            held = store.take(conn, ask.claim, item.run, ask.by, at, at + rule.claim)
        left = store.left_for(conn, ask.by, at, agent=agent, skip=skip)
        return self._given(conn, held, now, left)

    def _given(self, conn: Connection, held: Held, now: datetime, left: int = 0) -> Taken:
        rule, item = self._cards.get(held.run.agent).review, store.item(conn, held.run)
        minutes = rule.minutes_a_day - store.minutes_read(conn, held.run.agent, now) if rule.minutes_a_day else None
        return Taken(
            claim=held.claim, agent=held.run.agent, run_id=held.run.run_id, mode=item.mode if item else "live",
            ticket=item.ticket if item else None, until=datetime.fromtimestamp(held.until, UTC),
            seconds_left=round(max(0.0, held.until - now.timestamp()), 3), reasons=list(rule.reasons), left=left,
            minutes_left=None if minutes is None else round(max(0.0, minutes), 1),
        )  # fmt: skip

    def _nothing(self, conn: Connection, by: str, agent: str | None, run_id: str | None) -> str:
        if run_id is None:
            return f"nothing waits for {by}" + (f" of {agent}" if agent else "")
        return store.why_not(conn, by, agent, run_id)

    def _hold(self, conn: Connection, request: Request, ask: Hold, now: datetime) -> Taken:
        held, at = store.claim(conn, ask.claim), now.timestamp()
        if held is None or _only(request.agent) not in (None, held.run.agent):
            return Taken(claim=ask.claim, reason="there is no such claim: take the run")
        if held.by != ask.by or held.over or held.until <= at:
            return Taken(claim=ask.claim, reason=_why_not(held, ask.by))
        if request.verb == "release":
            store.release(conn, ask.claim, at)
            return Taken(claim=ask.claim, reason="released")
        until = max(held.until, at + self._cards.get(held.run.agent).review.claim)
        store.extend(conn, ask.claim, until)
        return self._given(conn, held._replace(until=until), now)

    async def prune(self) -> None:
        """Forgets claims that were over long ago."""
        before = self._now() - self._keep
        await self._database.write(lambda conn: store.prune(conn, before))


def _why_not(held: Held, by: str) -> str:
    if held.by != by:
        return "this claim is another person's: use an id of your own"
    return "this claim is over: the run was judged, released, or its time has passed"


def _only(agent: str) -> str | None:
    """The one agent that a subject names; None where it is any."""
    return None if agent == subjects.FLEET else agent


def read(subject: str, body: bytes, reply: str) -> Request:
    """A request, or what to answer where it breaks the contract."""
    agent, verb = subject.split(".")[2:4]
    only = _only(agent)

    def wrong(error: str, reason: str) -> Request:
        found = _CLAIM.search(body[:REQUEST_LIMIT])
        return Request(verb, agent, Taken(claim=found[1].decode() if found else "", error=error, reason=reason), reply)

    if verb not in _decoders or (only is not None and not subjects.is_agent_name(only)):
        return wrong("malformed", f"{subject} is no subject of a claim: those are take, extend and release")
    if len(body) > REQUEST_LIMIT:
        return wrong("oversized", f"the request has {len(body)} bytes, the limit is {REQUEST_LIMIT}")
    try:
        ask = _decoders[verb].decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return wrong("malformed", f"the request breaks the contract: {error}")
    if not reply:
        return wrong("malformed", "nobody waits for the answer")
    if isinstance(ask, Take) and only is not None and ask.agent not in (None, only):
        return wrong("malformed", f"the subject says agent {only!r}, the request says {ask.agent!r}")
    if isinstance(ask, Take) and not ask.by.strip():
        return wrong("malformed", "say who asks in `by`")
    return Request(verb, agent, replace(ask, by=ask.by.strip()), reply)


def _refusal(request: Request, reason: str) -> Taken:
    return Taken(claim=request.ask.claim, error="unavailable", reason=reason)
