"""What kill-switch does about drills: runs those that are due, keeps what they found, and says which are overdue."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import structlog
from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch.contracts.control import Card
from midwatch.contracts.envelope import Envelope
from midwatch.contracts.governance import SwitchDrilled
from midwatch.runtime import faults
from midwatch.runtime.card_book import CardBook
from midwatch.runtime.database import Database
from midwatch.runtime.delivery import Received
from midwatch.runtime.outbox import Outbox
from midwatch.runtime.settings import Settings

from .. import armed, decide
from ..alarms import Alarms, open_alarms
from ..handlers import KillSwitch
from ..policy import Policy
from . import drill, drill_check, drill_plan, drill_store
from .drill_plan import RULE, Last, Now
from .drill_store import Drill, DrillHalt

BY = f"{subjects.KILL_SWITCH} (scheduled)"
_AGAIN = timedelta(minutes=10)  # after a pre-flight that refused
_BACK = timedelta(days=1)  # halts that are looked through for drills which never reported

log = structlog.get_logger("midwatch.drills")


class Drills:
    """The schedule and the results. The tables are the truth."""

    def __init__(
        self, switch: KillSwitch, cards: CardBook, database: Database, outbox: Outbox, settings: Settings,
        now: Callable[[], datetime], policy: Policy,
    ) -> None:  # fmt: skip
        self._switch, self._cards, self._database, self._outbox = switch, cards, database, outbox
        self._settings, self._now, self._policy = settings, now, policy
        self._alarms = Alarms(outbox)
        self._not_before: dict[str, datetime] = {}  # agents that a pre-flight refused

    # Results

    async def on_spoken(self, batch: Sequence[Received[Envelope[Any]]]) -> None:
        """Keeps each result, and resolves the alert of an agent whose drill has passed."""
        results = [received.event.data for received in batch if isinstance(received.event.data, SwitchDrilled)]
        if not results:
            return
        now, cards = self._now(), {card.agent: card for card in self._cards.all()}

        def save(conn: Connection) -> None:
            for result in results:
                known = drill_store.find(conn, result.drill_id)
                if drill_plan.is_newer(known.result if known else None, result):
                    drill_store.save_result(conn, result)
                if result.passed and (since := drill_store.since(conn).get(result.agent)) is not None:
                    self._alert(conn, cards.get(result.agent), result.agent, since, now, is_open=True)

        await self._database.write(save)

    async def follow(self) -> None:
        """Notes drills by their halts, and says of those that died without a word that they have failed."""
        now = self._now()

        def read(conn: Connection) -> tuple[dict[str, DrillHalt], list[Drill], list[Drill]]:
            by_drill = {}
            for halt in drill_store.halts(conn, now - _BACK):
                if name := drill_plan.name_in(halt.record):
                    by_drill[name] = halt
            unknown = [
                Drill(drill_id, halt.agent, who, False, halt.requested_at)
                for (drill_id, who), halt in by_drill.items()
                if drill_store.find(conn, drill_id) is None
            ]
            return {name[0]: halt for name, halt in by_drill.items()}, unknown, drill_store.running(conn)

        halts, unknown, running = await self._database.read(read)
        dead = [
            (one, why)
            for one in [*unknown, *running]
            if (why := drill_plan.unreported(one.started_at, _ends(halts.get(one.drill_id)), now))
        ]
        if unknown or dead:
            await self._database.write(lambda conn: self._save(conn, unknown, dead, halts))
            await self._outbox.drain()

    def _save(
        self, conn: Connection, unknown: list[Drill], dead: list[tuple[Drill, str]], halts: dict[str, DrillHalt]
    ) -> None:
        for one in unknown:
            drill_store.add(conn, one)
        for one, why in dead:
            known = drill_store.find(conn, one.drill_id)
            if known is None or known.result is not None:
                continue  # it has reported meanwhile
            halt = halts.get(one.drill_id)
            result = SwitchDrilled(
                drill_id=one.drill_id, agent=one.agent, by=one.by, started_at=one.started_at, passed=False,
                failures=[why], scheduled=one.scheduled, restored=halt is not None and halt.closed_at is not None,
            )  # fmt: skip
            drill_store.save_result(conn, result)
            self._outbox.add(conn, drill.message(result, "unreported"))

    # The schedule

    async def run_due(self) -> None:
        """Runs one drill that is due, if there is one: never two at once."""
        if not self._settings.drills:
            return
        now = self._now()
        for card in self._cards.all():
            if self._not_before.get(card.agent, now) > now:
                continue
            last, since, blocked = await self._database.read(partial(_known, agent=card.agent))
            if since is not None and drill_plan.choose(card, self._around(card, last, since, blocked)) == "run":
                await self._run(card.agent, last)
                return

    def _around(self, card: Card, last: Last | None, since: datetime, blocked: bool) -> Now:
        now, revisions = self._now(), self._switch.revisions
        instances = [one for one in self._switch.instances.of(card.agent) if not decide.is_over(one, now)]
        keys = (subjects.FLEET_KEY, subjects.agent_key(card.agent))
        return Now(
            now=now,
            since=since,
            last=last,
            armed=any(not armed.why_not(one, (now - one.seen_at).total_seconds(), revisions) for one in instances),
            running=all(key in revisions and (key, None) not in self._switch.halts for key in keys),
            busy=any(one.running for one in instances),
            blocked=blocked,
        )

    async def _run(self, agent: str, last: Last | None) -> None:
        async with drill.lasting_connection(self._settings.url) as nc:
            js = nc.jetstream()
            try:
                ready = await drill_check.check(nc, js, agent, without_instances=False)
            except drill_check.NotReady as error:
                log.warning("drill_refused", agent=agent, why=str(error))
                self._not_before[agent] = self._now() + _AGAIN
                return
            order = drill.Order(
                ready, BY, self._settings.drill_url, drill.new_id(self._now()), scheduled=True,
                shape=self._policy.drill,
            )  # fmt: skip
            claim = Drill(order.drill_id, agent, order.by, True, self._now())
            if not await self._database.write(lambda conn: drill_store.claim(conn, claim, last)):
                return
            faults.reach("kill_switch.drill_claimed")
            one = drill.Drill(
                nc, js, order, lambda what: log.info("drill", agent=agent, drill=order.drill_id, now=what)
            )
            try:
                await one.perform()
            except drill_check.NotReady as error:
                log.warning("drill_refused", agent=agent, why=str(error))
                self._not_before[agent] = self._now() + _AGAIN
            finally:
                if not one.halted:
                    await drill.uninterrupted(self._database.write(lambda conn: drill_store.drop(conn, order.drill_id)))

    async def look_for_overdue(self) -> None:
        """Follows which agents have cards, and raises or takes back the alerts of overdue drills."""
        now, cards = self._now(), {card.agent: card for card in self._cards.all()}

        def work(conn: Connection) -> None:
            since = drill_store.since(conn)
            new = [(agent, min(card.applied_at or now, now)) for agent, card in cards.items() if agent not in since]
            drill_store.add_agents(conn, new)
            drill_store.drop_agents(conn, [agent for agent in since if agent not in cards])
            drill_store.forget(conn, now - self._policy.keep)
            raised = {alarm.agent for alarm in open_alarms(conn, RULE)}
            for agent, at in (since | dict(new)).items():
                self._alert(conn, cards.get(agent), agent, at, now, is_open=agent in raised)

        await self._database.write(work)
        await self._outbox.drain()

    def _alert(
        self, conn: Connection, card: Card | None, agent: str, since: datetime, now: datetime, *, is_open: bool
    ) -> None:
        if card is None or card.switch.drill == "never":
            if is_open:
                self._alarms.resolve(conn, _dedupe_key(agent), reason="its card asks for no drill", now=now)
            return
        last = drill_store.last(conn, agent)
        why = drill_plan.overdue(card, last, since, now)
        if is_open and not why and (last is None or last.passed):  # one that has just failed leaves it open
            reason = "a drill has passed" if last else "it is not due any more"
            self._alarms.resolve(conn, _dedupe_key(agent), reason=reason, now=now)
        if why and not is_open:
            self._alarms.raise_(
                conn, dedupe_key=_dedupe_key(agent), rule=RULE, severity="ticket", title=why, agent=agent, now=now,
                evidence=f"midwatch drill {agent} --history",
            )  # fmt: skip


def _known(conn: Connection, agent: str) -> tuple[Last | None, datetime | None, bool]:
    since = drill_store.since(conn).get(agent)
    return drill_store.last(conn, agent), since, bool(drill_store.running(conn))


def _dedupe_key(agent: str) -> str:
    return f"{RULE}/{agent}"


def _ends(halt: DrillHalt | None) -> tuple[datetime | None, datetime | None] | None:
    return None if halt is None else (halt.closed_at, halt.record.expires_at)
