"""Sends what the queue holds: each channel on its own, so that one that hangs holds up no other."""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol

import structlog
from msgspec.structs import replace
from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch.errors import MidwatchError, Temporary
from midwatch.runtime import faults, telemetry
from midwatch.runtime.database import Database

from . import channels, health, queue, store
from .channels import Refused
from .file import PagerBook
from .policy import DIGEST_PATIENCE, FIRST_DELAY, LONGEST_DELAY, Channel, Policy
from .queue import Delivery

TICK = 0.25  # seconds between two looks at what is due
CLAIM = timedelta(seconds=5)  # beyond the time limit of an attempt, until another may make it

log = structlog.get_logger("midwatch.pager")


class Ward(Protocol):
    """Who is told, inside the transaction, that a channel has died or works again."""

    def died(self, conn: Connection, channel: Channel, error: str) -> str:
        """Returns the id of the alert that says so."""

    def revived(self, conn: Connection, channel: str, alert_id: str) -> None: ...


class Deliverer:
    """Sends and keeps count. `random` gives a number from 0 to 1."""

    def __init__(
        self, database: Database, book: PagerBook, ward: Ward, now: Callable[[], datetime],
        random: Callable[[], float], said: Callable[[], object] = lambda: None,
    ) -> None:  # fmt: skip
        """`said`: called when an alert of a channel is in the outbox."""
        self._database, self._book, self._ward, self._now, self._random = database, book, ward, now, random
        self._said = said
        self._filled = True
        self._due: datetime | None = None
        self._under_way: dict[str, asyncio.Task[None]] = {}  # by channel
        self._room = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def wake(self) -> None:
        """There is something new to send."""
        self._filled = True
        self._room.set()

    async def load(self) -> None:
        """What a former process had begun is begun anew."""
        await self._database.write(lambda conn: queue.hurry(conn, self._now()))

    async def run(self) -> None:
        """Sends what is due, for the service's life."""
        try:
            while True:
                for task in [task for task in self._under_way.values() if task.done()]:
                    task.result()
                self._under_way = {of: task for of, task in self._under_way.items() if not task.done()}
                if self._filled or (self._due is not None and self._due <= self._now()):
                    await self._begin()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK):
                        await self._room.wait()
                self._room.clear()
        finally:
            for task in self._under_way.values():
                task.cancel()

    async def _begin(self) -> None:
        policy = self._book.policy
        if not policy.reaches_somebody:
            return
        self._filled = False
        busy, within = list(self._under_way), policy.send_within + CLAIM
        try:
            claimed, self._due = await self._database.write(lambda conn: queue.claim(conn, self._now(), busy, within))
        except Temporary as error:
            self._filled = True
            log.warning("queue_not_read", error=str(error))
            return
        faults.reach("pager.claimed")
        for one in claimed:
            task = asyncio.create_task(self._send(one, policy), name=f"page {one.channel}")
            task.add_done_callback(lambda _: self.wake())
            self._under_way[one.channel] = task

    async def _send(self, one: Delivery, policy: Policy) -> None:
        channel = policy.channels.get(one.channel)
        try:
            if channel is None:
                error = "the channel is not in pager.yaml any more"
                await self._database.write(lambda conn: queue.give_up(conn, one, error))
                return
            try:
                await channels.send(channel, one.message, self._now(), policy.send_within.total_seconds())
            except MidwatchError as error:
                await self._failed(one, channel, str(error), isinstance(error, Refused))
            else:
                faults.reach("pager.sent")
                await self._sent(one)
        except Temporary as error:
            log.warning("delivery_not_saved", channel=one.channel, error=str(error))  # its claim runs out

    async def _sent(self, one: Delivery) -> None:
        now = self._now()

        def save(conn: Connection) -> bool:
            queue.sent(conn, one, now)
            before = store.health(conn, one.channel)
            if not before.failures:
                return False
            store.save_health(conn, health.worked(before))
            queue.hurry(conn, now, [one.channel])  # it takes messages: what waits need not wait longer
            if before.alert_id is not None:
                self._ward.revived(conn, one.channel, before.alert_id)
            return before.dead_at is not None

        revived = await self._database.write(save)
        faults.reach("pager.saved")
        telemetry.DELIVERIES.labels(subjects.PAGER, one.channel, "sent").inc()
        log.info("told", channel=one.channel, what=one.message.what, alert=one.message.alert_id, id=one.id)
        if revived:
            log.info("channel_works_again", channel=one.channel)
            self._said()

    async def _failed(self, one: Delivery, channel: Channel, error: str, refused: bool) -> None:
        now, policy = self._now(), self._book.policy
        delay = LONGEST_DELAY if refused else min(FIRST_DELAY * 2 ** min(one.attempts - 1, 20), LONGEST_DELAY)
        delay *= 0.75 + self._random() / 2
        patience = max(policy.give_up_after, DIGEST_PATIENCE) if one.message.page else policy.give_up_after
        over = now + delay - one.since > patience

        def save(conn: Connection) -> bool:
            if over:
                queue.give_up(conn, one, error)
            else:
                queue.put_back(conn, one, error, now + delay)
            before = store.health(conn, one.channel)
            after = health.failed(before, error, now, refused=refused)
            died = before.dead_at is None and after.dead_at is not None
            store.save_health(conn, after)
            if died:
                alert_id = self._ward.died(conn, channel, error)
                store.save_health(conn, replace(after, alert_id=alert_id))
            return died

        died = await self._database.write(save)
        faults.reach("pager.saved")
        outcome = "given_up" if over else "refused" if refused else "failed"
        telemetry.DELIVERIES.labels(subjects.PAGER, one.channel, outcome).inc()
        log.warning(
            "not_told", channel=one.channel, what=one.message.what, alert=one.message.alert_id, attempts=one.attempts,
            error=error, again_in_seconds=None if over else round(delay.total_seconds(), 1),
        )  # fmt: skip
        if died:
            log.error("channel_is_dead", channel=one.channel, error=error)
            self._said()
