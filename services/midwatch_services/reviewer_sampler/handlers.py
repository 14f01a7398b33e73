"""What the sampler does with run events, and with the end of a day."""

import secrets
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from sqlalchemy.engine import Connection

from midwatch.contracts import codec, subjects
from midwatch.contracts.reviews import ReviewKeyCommitted, ReviewKeyRevealed, ReviewSampled
from midwatch.errors import Temporary
from midwatch.runtime import faults
from midwatch.runtime.card_book import CardBook
from midwatch.runtime.database import Database
from midwatch.runtime.delivery import Received
from midwatch.runtime.outbox import Outbox, Outgoing

from . import store
from .decide import DayKey, Drawn, FirstSeen, Run, decide_all, name_of
from .policy import GRACE, KEEP_BEYOND, REMEMBERED
from .recent import Recent
from .schedule.besides import Asked
from .schedule.handlers import Scheduler
from .schedule.policy import LONGEST_VERSION

SOURCE = "/services/reviewer-sampler"
TIME_LIMIT = 5.0  # seconds for one acknowledgement


def _new_key() -> bytes:
    return secrets.token_bytes(32)


class Sampler:
    """Draws each run once, at the first event that is seen of it."""

    def __init__(
        self, database: Database, nc: Client, js: JetStreamContext, cards: CardBook, now: Callable[[], datetime],
        *, keep: timedelta, new_key: Callable[[], bytes] = _new_key, log_url: str = "",
    ) -> None:  # fmt: skip
        """`keep`: for how long the stream may bring an event again. `log_url`: where the logger's database is."""
        self._database, self._nc, self._js, self._cards, self._now = database, nc, js, cards, now
        self._keep, self._new_key = keep + KEEP_BEYOND, new_key
        self._keys: dict[str, DayKey] = {}  # by day; their hashes are published
        self._decided: Recent[Run] = Recent(REMEMBERED)
        self.outbox = Outbox(database, store.PREFIX, js)
        self.scheduler = Scheduler(database, self.outbox, cards, now, log_url)

    async def load(self) -> None:
        """Says what an earlier process decided."""
        await self.outbox.drain()

    async def on_events(self, batch: list[Received]) -> None:
        """Decides the runs of which nothing was seen before, and queues those that ask for it. Most batches hold
        neither."""
        firsts, asked = self._met(batch)
        if not firsts and not asked:
            return
        keys = {day: await self._key(day) for day in {first.day for first in firsts}}
        now = self._now()

        def work(conn: Connection) -> None:
            rates = self.scheduler.rates(conn, firsts, now)
            for drawn in store.save(conn, decide_all(firsts, rates, keys), now):
                self.outbox.add(conn, sampled(drawn, now))
            self.scheduler.add(conn, asked, now)

        await self._database.write(work)
        faults.reach("reviewer_sampler.saved")
        for first in firsts:
            self._decided.add(first.run)
        self.scheduler.remember(asked)

    def _met(self, batch: Iterable[Received]) -> tuple[list[FirstSeen], list[Asked]]:
        firsts: dict[Run, FirstSeen] = {}
        asked: list[Asked] = []
        for received in batch:
            data = received.event.data
            run = name_of(received.event.agent, data.run_id, data.mode)
            if one := self.scheduler.asks(received, run):
                asked.append(one)
            if run not in self._decided and run not in firsts:
                firsts[run] = _first(received, run)
        return list(firsts.values()), asked

    async def _key(self, day: str) -> DayKey:
        """The key of `day`. Its hash is on the bus before anything is drawn with it."""
        if day in self._keys:
            return self._keys[day]
        fresh = self._new_key()
        key, is_committed = await self._database.write(lambda conn: store.key_of(conn, day, fresh))
        faults.reach("reviewer_sampler.key_saved")
        if not is_committed:
            await self._publish("committed", ReviewKeyCommitted(day=day, key_hash=key.hash), f"{day}-{key.hash}")
            faults.reach("reviewer_sampler.key_published")
            await self._database.write(lambda conn: store.mark_committed(conn, day))
        self._keys[day] = key
        return key

    async def reveal(self) -> None:
        """Publishes the keys of the days that are over, by this machine's clock and by the server's.

        A run belongs to the day on which the server stored its first event, so no run can be added to a day that is
        over: one that is only read later was named while its key was secret, and is still drawn with it.
        """
        today = (min(self._now(), await self._server_time()) - GRACE).astimezone(UTC).date().isoformat()
        for key in await self._database.read(lambda conn: store.to_reveal(conn, today)):
            data = ReviewKeyRevealed(day=key.day, key=key.key.hex(), key_hash=key.hash)
            await self._publish("revealed", data, f"{key.day}-{key.hash}")
            faults.reach("reviewer_sampler.key_revealed")
            await self._mark_revealed(key.day)

    async def _mark_revealed(self, day: str) -> None:
        await self._database.write(lambda conn: store.mark_revealed(conn, day))

    async def prune(self) -> None:
        """Forgets runs whose events the stream no longer has."""
        before = self._now() - self._keep
        await self._database.write(lambda conn: store.prune(conn, before))

    async def _server_time(self) -> datetime:
        try:
            answer = await self._nc.request(f"$JS.API.STREAM.INFO.{subjects.RUNS}", b"", timeout=TIME_LIMIT)
            return msgspec.json.decode(answer.data, type=_Stamped).ts
        except (NatsError, TimeoutError, msgspec.MsgspecError) as error:
            raise Temporary(f"the server does not say its time: {error or 'timeout'}") from error

    async def _publish(self, event: str, data: ReviewKeyCommitted | ReviewKeyRevealed, identity: str) -> None:
        """Publishes and waits for the acknowledgement. Raises Temporary without one."""
        msg_id = f"review-{event}-{identity}"
        envelope = codec.envelope("review", event, data, source=SOURCE, id=msg_id, time=self._now())
        headers = {subjects.MSG_ID: msg_id, subjects.CONTENT_TYPE: subjects.CLOUDEVENTS_JSON}
        subject = subjects.review(subjects.FLEET, event)
        try:
            await self._js.publish(subject, codec.encode(envelope), timeout=TIME_LIMIT, headers=headers)
        except (NatsError, TimeoutError) as error:
            raise Temporary(f"{subject} was not acknowledged: {error or 'timeout'}") from error


def _first(received: Received, run: Run) -> FirstSeen:
    data, stored_at = received.event.data, received.stored_at
    return FirstSeen(
        run, data.mode, data.ticket, stored_at.astimezone(UTC).date().isoformat(), stored_at.timestamp(),
        (received.headers or {}).get(subjects.TRACEPARENT), data.version[:LONGEST_VERSION],
    )  # fmt: skip


class _Stamped(msgspec.Struct):
    ts: datetime


def sampled(drawn: Drawn, now: datetime) -> Outgoing:
    """The message that a run was drawn; its id follows from the run's name."""
    first = drawn.first
    msg_id = f"sampled-{sha256(chr(0).join(first.run).encode()).hexdigest()}"
    data = ReviewSampled(
        run_id=first.run.run_id, agent=first.run.agent, rate=drawn.rate, draw=drawn.draw, day=first.day,
        key_hash=drawn.key_hash, ticket=first.ticket, mode=first.mode,
    )  # fmt: skip
    envelope = codec.envelope(
        "review", "sampled", data, source=SOURCE, id=msg_id, time=now, subject=first.run.run_id
    )  # fmt: skip
    subject = subjects.review(first.run.agent, "sampled")
    return Outgoing(msg_id, subject, codec.encode(envelope), traceparent=first.traceparent)
