"""What the pager does with alerts, with people's word, and with the passing of time."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import structlog
from msgspec.structs import replace
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from sqlalchemy.engine import Connection

from midwatch.contracts import codec, subjects
from midwatch.contracts.codec import Refused
from midwatch.contracts.governance import AlertAcknowledged, AlertRaised, AlertResolved
from midwatch.contracts.reviews import DigestWritten, ReviewSummed
from midwatch.runtime import faults, telemetry
from midwatch.runtime.card_book import CardBook
from midwatch.runtime.database import Database
from midwatch.runtime.delivery import Received
from midwatch.runtime.outbox import Outbox, Outgoing

from . import messages, queue, store, words
from .decide import Decision, Plan, Refresh, Tell, Withdraw, acknowledged, judge, raised, resolved
from .file import PagerBook
from .health import Health
from .policy import (
    CHANNEL_DEAD,
    DIGEST_OLDEST,
    KEEP,
    NOTE_OLDEST,
    OLDEST,
    Channel,
    readers_of,
    route_of,
    writers_of,
)
from .state import Acknowledged, Event, Group, Raised, Resolved, Written

_CLOCKS = timedelta(days=1)  # between two clocks, and for an event that was raised while NATS was away
SOURCE = f"/services/{subjects.PAGER}"
log = structlog.get_logger("midwatch.pager")


class Spoken(NamedTuple):
    """An alert event that kept the contract. Its identity is (`agent`, `id`)."""

    agent: str
    id: str
    event: Event | Written


def decode(subject: str, body: bytes) -> Spoken:
    """The alert event, its agent checked against the subject's. Raises Refused."""
    envelope = codec.decode(subject, body)
    agent = subject.split(".", 3)[2]
    data = envelope.data
    if isinstance(data, AlertRaised | DigestWritten | ReviewSummed) and data.agent != agent:
        raise Refused("wrong_agent", f"the subject says agent {agent!r}, the body says {data.agent!r}")
    if isinstance(data, DigestWritten | ReviewSummed):
        return Spoken(agent, envelope.id, Written(data=data))
    return Spoken(agent, envelope.id, _event(data, envelope.time))


def _event(data: AlertRaised | AlertAcknowledged | AlertResolved, at: datetime) -> Event:
    alert_id = words.key(data.alert_id)
    if isinstance(data, AlertAcknowledged):
        return Acknowledged(alert_id=alert_id, by=words.one_line(data.by), at=at)
    if isinstance(data, AlertResolved):
        return Resolved(alert_id=alert_id, reason=words.one_line(data.reason, words.TITLE_LIMIT), at=at)
    spared = data.dedupe_key.removeprefix(f"{CHANNEL_DEAD}/") if data.rule == CHANNEL_DEAD else ""
    data = replace(
        data, alert_id=alert_id, dedupe_key=words.key(data.dedupe_key), rule=words.one_line(data.rule),
        title=words.one_line(data.title, words.TITLE_LIMIT), action_taken=words.one_line(data.action_taken),
        run_id=words.one_line(data.run_id or "") or None, evidence=words.one_line(data.evidence or "", 500) or None,
    )  # fmt: skip
    return Raised(data=data, at=at, waited=timedelta(0), spared=words.one_line(spared))


def _placed(received: Received[Spoken], now: datetime) -> Event | Written:
    """The event with how long it waited. A time that cannot be is the server's."""
    event, stored_at = received.event.event, received.stored_at
    if isinstance(event, Written):
        return replace(event, waited=now - stored_at)
    if abs(event.at - stored_at) > _CLOCKS:
        event = replace(event, at=stored_at)
    if not isinstance(event, Raised):
        return event
    waited = now - stored_at
    if waited >= OLDEST:
        log.warning("alert_too_old", alert=event.data.alert_id, stored_at=stored_at.isoformat(), told=False)
    return replace(event, waited=waited)


class Pager:
    """Judges what is said in one transaction with what is to be sent of it."""

    def __init__(
        self, js: JetStreamContext, database: Database, outbox: Outbox, cards: CardBook, book: PagerBook,
        now: Callable[[], datetime], keep: timedelta,
    ) -> None:  # fmt: skip
        """`keep`: for how long the stream may bring an event again."""
        self._js, self._database, self.outbox, self._cards, self._book = js, database, outbox, cards, book
        self._now, self._keep = now, keep
        self.wake: Callable[[], None] = lambda: None  # there is something to send
        self._remarked: set[str] = set()

    async def load(self) -> None:
        """Reads the file, and says what a former process decided."""
        await self.follow_file()
        await self.outbox.drain()

    async def on_alerts(self, batch: list[Received[Spoken]]) -> None:
        """Alerts raised, acknowledged and resolved, each counted once."""
        now = self._now()

        def work(conn: Connection) -> None:
            fresh = self.outbox.fresh(conn, [(one.event.agent, one.event.id) for one in batch])
            events = []
            for one in batch:
                identity = (one.event.agent, one.event.id)
                if identity in fresh:
                    fresh.discard(identity)  # of two in one batch the first counts
                    events.append(_placed(one, now))
            self._apply(conn, [one for one in events if not isinstance(one, Written)], now)
            self._send_digests(conn, [one for one in events if isinstance(one, Written)], now)

        await self._database.write(work)
        faults.reach("pager.decided")
        self.wake()

    def _send_digests(self, conn: Connection, digests: Sequence[Written], now: datetime) -> None:
        """To whom the file names; at whatever hour, since the digest has one of its own."""
        for one in digests:
            if isinstance(one.data, ReviewSummed) and one.waited < NOTE_OLDEST:
                queue.add(conn, messages.summed(one.data, now), writers_of(self._book.policy, one.data.agent), now)
            elif isinstance(one.data, DigestWritten) and one.waited < DIGEST_OLDEST:
                readers = readers_of(self._book.policy, one.data.agent)
                queue.add(conn, messages.digest(one.data, now), readers, now)

    def _apply(self, conn: Connection, events: Sequence[Event], now: datetime) -> None:
        book = store.Book(conn)
        book.load(events)
        dead = [one.channel for one in store.dead(conn)]
        decisions: list[tuple[Decision, str]] = []
        for event in events:
            known = book.known(event)
            if isinstance(event, Raised):
                outcome = raised(known, event, self._book.policy, now)
            elif isinstance(event, Acknowledged):
                outcome = acknowledged(known, event, now)
            else:
                outcome = resolved(known, event, now)
            book.put(outcome)
            decisions += [(decision, "") for decision in outcome.decisions]
        decisions += self._judge(book, book.changed(), dead, now)
        book.save()
        self._queue(conn, decisions, now)

    def _judge(
        self, book: store.Book, groups: Sequence[Group], dead: Sequence[str], now: datetime, *, read_on: bool = False
    ) -> list[tuple[Decision, str]]:
        found: list[tuple[Decision, str]] = []
        for group in groups:
            plan, remark = self._plan(group, dead)
            after, decisions = judge(group, plan, now, read_on=read_on)
            if after != group:
                book.put_group(after)
            found += [(decision, remark) for decision in decisions]
        return found

    def _plan(self, group: Group, dead: Sequence[str]) -> tuple[Plan, str]:
        policy = self._book.policy
        wanted = self._cards.get(group.agent).alerts
        route, remark = route_of(policy, wanted, group.severity, group.agent, group.rule)
        if remark and policy.reaches_somebody and remark not in self._remarked:
            self._remarked.add(remark)
            log.warning("card_names_no_route", why=remark, instead=route.name if route else "nobody")
        return Plan(policy, route, dead), remark

    def _queue(self, conn: Connection, decisions: Sequence[tuple[Decision, str]], now: datetime) -> None:
        for decision, remark in decisions:
            if isinstance(decision, Withdraw):
                queue.withdraw(conn, decision)
            elif isinstance(decision, Refresh):
                group = decision.group
                message = messages.firing(group, f"{group.group_id}-refresh", "refresh")
                queue.refresh(conn, message, [name for name in group.told if self._is_alertmanager(name)], now)
            else:
                queue.add(conn, messages.of(decision, remark), self._reached(conn, decision), now)

    def _reached(self, conn: Connection, tell: Tell) -> Sequence[str]:
        """The end is told to those alone who may have been told of the beginning."""
        if tell.what != "ended":
            return tell.channels
        reached = queue.reached(conn, tell.group.group_id)
        return [name for name in tell.channels if name in reached]

    def _is_alertmanager(self, name: str) -> bool:
        channel = self._book.policy.channels.get(name)
        return channel is not None and channel.kind == "alertmanager"

    # Time

    async def tick(self) -> None:
        """Escalates, updates, ends and refreshes what is due, and tells of what waited."""
        now = self._now()
        groups, dead = await self._database.read(lambda conn: (store.alive(conn), _names(store.dead(conn))))
        _measure(groups, now)
        held = any(group.held_until is not None and group.open for group in groups)
        read_on = held and await self._is_read_to_the_end()
        due = [
            group.group_id
            for group in groups
            if judge(group, self._plan(group, dead)[0], now, read_on=read_on) != (group, [])
        ]
        if not due:
            await self.outbox.drain()
            return

        def work(conn: Connection) -> None:
            book = store.Book(conn)
            found = [group for group in store.groups(conn, due) if group.ended_at is None]
            decisions = self._judge(book, found, _names(store.dead(conn)), now, read_on=read_on)
            book.save()
            self._queue(conn, decisions, now)

        await self._database.write(work)
        faults.reach("pager.ticked")
        self.wake()
        await self.outbox.drain()

    async def _is_read_to_the_end(self) -> bool:
        try:
            info = await self._js.consumer_info(subjects.GOVERNANCE, subjects.PAGER)
        except (NatsError, TimeoutError):
            return False
        return not info.num_pending and not info.num_ack_pending

    async def follow_file(self) -> None:
        """Takes a changed file. What waits for a channel that was mended is due at once, and one that is gone is not
        dead any more."""
        changed = await asyncio.to_thread(self._book.look)
        if changed is None:
            return
        now, policy = self._now(), self._book.policy

        def work(conn: Connection) -> None:
            queue.hurry(conn, now, changed)
            for one in store.dead(conn):
                if policy.reaches_somebody and one.channel not in policy.channels:
                    store.save_health(conn, Health(channel=one.channel))
                    if one.alert_id is not None:
                        self._resolve(conn, one.alert_id, "the channel is not in pager.yaml any more", now)

        await self._database.write(work)
        self.wake()

    async def prune(self) -> None:
        """Forgets what is long over."""
        now = self._now()

        def work(conn: Connection) -> None:
            store.prune(conn, now - KEEP)
            queue.prune(conn, now - KEEP)
            self.outbox.forget(conn, int((now - self._keep).timestamp()))

        await self._database.write(work)

    # Alerts of the pager's own, applied where they are decided: they must go out without NATS as well

    def died(self, conn: Connection, channel: Channel, error: str) -> str:
        """A channel takes no messages."""
        title = f"The channel {channel.name} takes no alerts: {error}"
        return self.raise_(conn, CHANNEL_DEAD, f"{CHANNEL_DEAD}/{channel.name}", title)

    def revived(self, conn: Connection, channel: str, alert_id: str) -> None:
        """A channel takes messages again."""
        self._resolve(conn, alert_id, f"the channel {channel} works again", self._now())

    def raise_(
        self, conn: Connection, rule: str, dedupe_key: str, title: str, value: float | None = None,
        limit: float | None = None,
    ) -> str:  # fmt: skip
        """Raises a page about Midwatch itself, in the caller's transaction, and returns its id."""
        now = self._now()
        alert_id = hashlib.sha256(f"{dedupe_key}\0{now.isoformat()}".encode()).hexdigest()[:32]
        data = AlertRaised(
            alert_id=alert_id, rule=rule, severity="page", title=words.one_line(title, words.TITLE_LIMIT),
            agent=subjects.FLEET, dedupe_key=dedupe_key, value=value, limit=limit,
        )  # fmt: skip
        self._say(conn, "raised", data, alert_id, now)
        return alert_id

    def resolve(self, conn: Connection, dedupe_key: str, reason: str) -> bool:
        """Resolves the page that is open under the key, if one is."""
        alert_id = store.open_under(conn, dedupe_key)
        if alert_id is not None:
            self._resolve(conn, alert_id, reason, self._now())
        return alert_id is not None

    def _resolve(self, conn: Connection, alert_id: str, reason: str, now: datetime) -> None:
        data = AlertResolved(alert_id=alert_id, reason=reason)
        self._say(conn, "resolved", data, f"{alert_id}-resolved", now)

    def _say(self, conn: Connection, event: str, data: Any, id: str, now: datetime) -> None:
        if not self.outbox.fresh(conn, [(subjects.FLEET, id)]):
            return
        body = codec.encode(codec.envelope("alert", event, data, source=SOURCE, id=id, time=now))
        self.outbox.add(conn, Outgoing(id, subjects.alert(subjects.FLEET, event), body))
        self._apply(conn, [_event(data, now)], now)


def _names(some: Sequence[Any]) -> list[str]:
    return [one.channel for one in some]


def _measure(groups: Sequence[Group], now: datetime) -> None:
    for severity in ("page", "ticket"):
        count = sum(group.open for group in groups if group.severity == severity)
        telemetry.OPEN_ALERTS.labels(subjects.PAGER, severity).set(count)
    waiting = [one.opened_at for one in groups if one.severity == "page" and one.open and not one.acknowledged_at]
    age = (now - min(waiting)).total_seconds() if waiting else 0
    telemetry.UNACKNOWLEDGED.labels(subjects.PAGER).set(max(0, age))
