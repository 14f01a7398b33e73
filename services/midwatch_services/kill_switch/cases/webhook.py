"""Tells a help desk of cases over HTTP, from a table of its own, so that a help desk that is down holds up nobody."""

import asyncio
import contextlib
import http.client
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec
import sqlalchemy as sa
import structlog
from msgspec import Meta
from nats.js import JetStreamContext
from sqlalchemy.engine import Connection

from midwatch.contracts import codec, subjects
from midwatch.contracts.governance import CaseAccepted, CaseClosed, CaseOpened
from midwatch.errors import MidwatchError, Temporary
from midwatch.runtime import faults
from midwatch.runtime import webhook_signing as signing
from midwatch.runtime.database import Database
from midwatch.runtime.dead_letters import bury
from midwatch.runtime.http_post import post
from midwatch.runtime.outbox import Outbox, Outgoing
from midwatch.runtime.settings import Settings

from .. import tables
from ..policy import POLICY, Policy
from . import case_store, hands

TICK = 0.25  # seconds between two looks at what is due
PARALLEL = 8  # cases told at once

Event = Literal["opened", "closed"]
log = structlog.get_logger("midwatch.kill_switch")
_table = tables.WebhookCall.__table__


class BadWebhook(MidwatchError):
    """MIDWATCH_CASES_WEBHOOK is no address: write https://HOST/PATH (or http://), without user and password."""


class NoSecret(MidwatchError):
    """MIDWATCH_CASES_WEBHOOK is set and MIDWATCH_CASES_WEBHOOK_SECRET is not: set it to what the help desk checks
    signatures with. Until then the help desk is told nothing; cases wait, and `midwatch queue` shows them."""


class Target(NamedTuple):
    """Where the help desk hears of cases, and the key of its signatures; without a key nothing is sent yet."""

    url: str
    key: bytes | None


class Call(NamedTuple):
    """One thing to tell. `since`: when it was to be told first."""

    case_id: str
    event: Event
    agent: str
    body: bytes
    since: datetime
    attempts: int

    @property
    def id(self) -> str:
        """The same at every attempt, so that the help desk knows a repeat."""
        return f"{self.case_id}-{self.event}"


class _Answer(msgspec.Struct):
    accepted_by: Annotated[str, Meta(min_length=1, max_length=256)]
    reference: Annotated[str, Meta(max_length=256)] = ""


def target(settings: Settings, key: bytes | None) -> Target | None:
    """The help desk in the settings. What is wrong with them is logged: a switch must work whatever they say."""
    if not settings.cases_webhook:
        return None
    parts = urlsplit(settings.cases_webhook)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        log.error("webhook_off", why=str(BadWebhook()))
        return None
    if key is None and not settings.cases_webhook_secret:
        log.error("webhook_waits", why=str(NoSecret()))
    elif parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        log.warning("webhook_is_not_encrypted", host=parts.hostname)
    return Target(settings.cases_webhook, key)


def key_in(settings: Settings) -> bytes | None:
    """The key that signs in both directions, if there is one; that it cannot be used is logged."""
    if not settings.cases_webhook_secret:
        return None
    try:
        return signing.key_of(settings.cases_webhook_secret.get_secret_value())
    except signing.BadSecret as error:
        log.error("webhook_waits", why=f"MIDWATCH_CASES_WEBHOOK_SECRET: {error}")
        return None


class Webhook:
    """Tells of each case in order, of several at once, and again until the help desk has it."""

    def __init__(
        self, target: Target | None, js: JetStreamContext, database: Database, outbox: Outbox,
        now: Callable[[], datetime], policy: Policy = POLICY,
    ) -> None:  # fmt: skip
        self._target, self._js, self._database, self._outbox, self._now = target, js, database, outbox, now
        self._policy = policy
        self._filled = True  # calls of an earlier process may wait
        self._due: datetime | None = None  # when the next one is, of those that wait
        self._under_way: dict[str, asyncio.Task[None]] = {}  # by case
        self._room = asyncio.Event()  # one of them is over

    def hear(self, conn: Connection, event: str, case: CaseOpened) -> None:
        """Has the help desk told, in the caller's transaction, of a case for people that was `opened` or `closed`; of
        the end only where it was told of the beginning. Drills are not told."""
        if event == "opened" and self._target is not None and case.mode != "drill":
            self._add(conn, case, "opened", case)
        elif event == "closed" and conn.execute(sa.select(_table.c.case_id).where(_is(case.case_id, "opened"))).first():
            steps = [step for step in case_store.history(conn, case.case_id) if step["what"] == "closed"]
            by, note = (steps[-1]["who"], steps[-1]["note"]) if steps else ("", "")
            self._add(conn, case, "closed", CaseClosed(case_id=case.case_id, by=by, note=note))

    def _add(self, conn: Connection, case: CaseOpened, event: Event, data: Any) -> None:
        if conn.execute(sa.select(_table.c.case_id).where(_is(case.case_id, event))).first():
            return
        now = self._now()
        body = msgspec.json.encode({"type": f"case.{event}", "timestamp": now, "data": data})
        at = tables.micros(now)
        values = {"case_id": case.case_id, "event": event, "agent": case.agent, "body": body, "since": at}
        conn.execute(_table.insert().values(values | {"due_at": at, "attempts": 0}))
        self._filled = True

    @property
    def is_on(self) -> bool:
        """Whether there is somebody to tell."""
        return self._target is not None and self._target.key is not None

    async def run(self) -> None:
        """Tells what is due, for the service's life."""
        try:
            while True:
                for task in [task for task in self._under_way.values() if task.done()]:
                    task.result()
                self._under_way = {of: task for of, task in self._under_way.items() if not task.done()}
                if self._filled or (self._due is not None and self._due <= self._now()):
                    await self._begin()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK):  # Python 3.11's wait_for may swallow a cancellation
                        await self._room.wait()
                self._room.clear()
        finally:
            for task in self._under_way.values():
                task.cancel()

    async def _begin(self) -> None:
        room = PARALLEL - len(self._under_way)
        if not room:
            return

        def pick(conn: Connection) -> tuple[list[Call], datetime | None]:
            # On the writer's thread no other transaction is half done: a call added later sets the flag again.
            self._filled = False
            return _due(conn, self._now(), self._under_way.keys(), room)

        try:
            calls, self._due = await self._database.write(pick)
        except Temporary as error:
            self._filled = True
            log.warning("webhook_not_read", error=str(error))
            return
        for call in calls:
            task = asyncio.create_task(self._tell(call), name=f"webhook {call.id}")
            task.add_done_callback(lambda _: self._room.set())
            self._under_way[call.case_id] = task

    async def _tell(self, call: Call) -> None:
        try:
            try:
                answer = await self._post(call)
            except (OSError, http.client.HTTPException, TimeoutError, ValueError) as error:
                await self._failed(call, str(error) or type(error).__name__)
            else:
                faults.reach("webhook.answered")
                await self._told(call, _accepted(answer) if call.event == "opened" else None)
        except Temporary as error:
            log.warning("webhook_not_saved", case=call.case_id, error=str(error))
            await asyncio.sleep(1)  # it is due still, and must not be told four times a second
        self._filled = True

    async def _post(self, call: Call) -> bytes:
        if self._target is None or self._target.key is None:
            raise NoSecret
        headers = signing.headers(self._target.key, call.id, call.body, self._now())
        within = self._policy.webhook_within.total_seconds()
        return await post(self._target.url, call.body, headers, within)

    async def _told(self, call: Call, answer: _Answer | None) -> None:
        def save(conn: Connection) -> None:
            if call.event == "closed":
                conn.execute(_table.delete().where(_table.c.case_id == call.case_id))
            else:
                done = {"sent_at": tables.micros(self._now()), "body": b""}
                conn.execute(_table.update().where(_is(call.case_id, call.event)).values(done))
            if answer is not None:
                self._outbox.add(conn, _taken(call, answer, self._now()))

        await self._database.write(save)
        if answer is not None:
            await self._outbox.drain()

    async def _failed(self, call: Call, error: str) -> None:
        now, policy, attempts = self._now(), self._policy, call.attempts + 1
        if now - call.since >= policy.webhook_for:
            subject = subjects.case(call.agent, call.event)
            await bury(
                self._js, subjects.KILL_SWITCH, id=call.id, reason="failed", error=f"the help desk: {error}",
                subject=subject, body=call.body, attempts=attempts,
            )  # fmt: skip
            await self._database.write(lambda conn: conn.execute(_table.delete().where(_is(call.case_id, call.event))))
            log.error("webhook_given_up", case=call.case_id, says=call.event, attempts=attempts, error=error)
            return
        delay = min(policy.webhook_first * 2 ** min(call.attempts, 20), policy.webhook_longest)
        log.warning(
            "webhook_failed", case=call.case_id, says=call.event, attempts=attempts, error=error,
            again_in_seconds=delay.total_seconds(),
        )  # fmt: skip
        values = {"attempts": attempts, "due_at": tables.micros(now + delay)}
        await self._database.write(
            lambda conn: conn.execute(_table.update().where(_is(call.case_id, call.event)).values(values))
        )


def _is(case_id: str, event: Event) -> sa.ColumnElement[bool]:
    return sa.and_(_table.c.case_id == case_id, _table.c.event == event)


def _due(conn: Connection, now: datetime, without: Collection[str], limit: int) -> tuple[list[Call], datetime | None]:
    """What is to be told now, and when the next of the others is. The end of a case waits for its beginning."""
    other, at = _table.alias(), tables.micros(now)
    begins = sa.exists().where(
        other.c.case_id == _table.c.case_id, other.c.event == "opened", other.c.sent_at.is_(None)
    )
    waits = sa.and_(_table.c.sent_at.is_(None), _table.c.case_id.not_in(without))
    first = sa.and_(waits, sa.or_(_table.c.event == "opened", ~begins))
    rows = conn.execute(sa.select(_table).where(first, _table.c.due_at <= at).order_by(_table.c.due_at).limit(limit))
    later = conn.execute(sa.select(sa.func.min(_table.c.due_at)).where(first, _table.c.due_at > at)).scalar()
    calls = [
        Call(row.case_id, row.event, row.agent, row.body, tables.from_micros(row.since), row.attempts) for row in rows
    ]
    return calls, None if later is None else tables.from_micros(later)


def _taken(call: Call, answer: _Answer, now: datetime) -> Outgoing:
    """The help desk's word that it has the case."""
    data = CaseAccepted(case_id=call.case_id, by=answer.accepted_by, reference=answer.reference)
    id = f"{call.id}-accepted"
    body = codec.encode(codec.envelope("case", "accepted", data, source=hands.HELP_DESK, id=id, time=now))
    return Outgoing(id, subjects.case(call.agent, "accepted"), body)


def _accepted(answer: bytes) -> _Answer | None:
    """What the help desk said, if that is that it takes the case."""
    try:
        return msgspec.json.decode(answer, type=_Answer)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
