"""Halts an agent where its card says so, or says that it would have; and stops counting what came before a resume."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

import msgspec
import structlog
from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch.contracts.control import TripMode, TripRule
from midwatch.contracts.envelope import Envelope, Time
from midwatch.contracts.governance import AlertRaised
from midwatch.contracts.runs import Finished
from midwatch.errors import Temporary
from midwatch.runtime import faults
from midwatch.runtime.card_book import CardBook
from midwatch.runtime.database import Database
from midwatch.runtime.delivery import Received
from midwatch.runtime.outbox import Outbox, Outgoing
from midwatch.runtime.switchboard import NoSwitch, Scope, Switchboard

from ..alarms import Alarm, Alarms, open_alarms
from ..drills import drill_plan
from ..handlers import KillSwitch
from ..policy import Policy
from ..words import one_line
from . import trip_store, trips
from .trip_store import Outcome
from .trips import RULE, WINDOW, Figures, Outcomes, Trip

HALT = "trip"  # kind of the outbox rows whose sink halts
LOOK = 1.0  # seconds between two looks at the figures
_REASON_LIMIT = 300  # characters; an alert of another service is part of it

log = structlog.get_logger("midwatch.kill_switch")


class Order(msgspec.Struct, frozen=True):
    """A halt on its way to the switch. `agent` None is the fleet; `at`: when its cause was met."""

    agent: str | None
    reason: str
    by: str
    at: Time


async def obey(board: Switchboard, row: Outgoing) -> None:
    """The sink of halts. What is halted already stays as it is, and a resume that is newer than the cause stands."""
    order = msgspec.json.decode(row.body, type=Order)
    scope = Scope(order.agent)
    try:
        entry = await board.read(scope.key)
        record = entry.record()
        newer = entry.written_at is not None and entry.written_at >= order.at
        if record and record.state == "running" and newer and not drill_plan.is_restore(record):
            return
        written = await board.halt(scope, reason=order.reason, by=order.by)
    except NoSwitch as error:
        raise Temporary(str(error)) from error
    if written.changed:
        log.warning("halted", key=written.key, by=order.by, reason=order.reason)
    faults.reach("kill_switch.tripped")


class Tripping:
    """Judges cards' conditions. The tables are the truth; the counts in memory follow their commits."""

    def __init__(
        self, database: Database, outbox: Outbox, switch: KillSwitch, cards: CardBook, now: Callable[[], datetime],
        policy: Policy, fleet: TripMode,
    ) -> None:  # fmt: skip
        self._database, self._outbox, self._switch, self._cards, self._now = database, outbox, switch, cards, now
        self._policy, self._fleet = policy, fleet
        self._alarms = Alarms(outbox)
        self._outcomes = Outcomes()

    async def load(self) -> None:
        """Counts the last hour's runs."""
        after = self._now() - WINDOW
        by_agent: dict[str, list[trips.Ended]] = {}
        for one in await self._database.read(lambda conn: trip_store.ended(conn, after)):
            by_agent.setdefault(one.agent, []).append(one)
        for agent, some in by_agent.items():
            self._outcomes.begin(agent, after, some)

    async def on_runs(self, batch: Sequence[Received]) -> None:
        """Counts live runs that finished, each once."""
        ended = [
            Outcome(event.agent, event.data.run_id, received.stored_at, event.data.resolution == "failed")
            for received in batch
            if isinstance((event := received.event).data, Finished) and event.data.mode == "live"
        ]
        if ended:
            new = await self._database.write(lambda conn: trip_store.add_outcomes(conn, ended))
            faults.reach("kill_switch.outcomes_saved")
            for one in new:
                self._outcomes.note(one.agent, one.at, failed=one.failed)

    async def on_spoken(self, batch: Sequence[Received[Envelope[Any]]]) -> None:
        """Takes the alerts that cards name."""
        found = []
        now = self._now()
        for received in batch:
            agent = received.subject.split(".")[2]
            at = trips.raised_at(received.event.time, received.stored_at)
            if isinstance(received.event.data, AlertRaised) and at > now - WINDOW:
                trip = trips.of_alert(self._rule(agent), agent, received.event.data, at)
                found += [(agent, trip)] if trip else []
        if found:
            resumed = await self._database.read(lambda conn: trip_store.resumes(conn, now - WINDOW))
            await self._say([(agent, trip) for agent, trip in found if trip.at > _since(resumed, agent, now)], [])

    async def look(self) -> None:
        """Judges the figures of every agent, and ends the alerts whose time is over."""
        now = self._now()

        def read(conn: Connection) -> tuple[dict[str, dict[str, datetime]], dict[str, datetime], list[Alarm]]:
            after = now - WINDOW
            return trip_store.halted_runs(conn, after), trip_store.resumes(conn, after), open_alarms(conn, RULE)

        halted, resumed, alarms = await self._database.read(read)
        await self._count_anew(resumed, now)
        known = {alarm.dedupe_key for alarm in alarms}
        found = []
        for agent in {*halted, *self._outcomes.agents()}:
            since = _since(resumed, agent, now)
            times = [at for at in halted.get(agent, {}).values() if at > since]
            figures = self._outcomes.figures(agent, now)
            figures = replace(figures, halted=len(times), halted_at=max(times, default=None))
            found += [
                (agent, trip)
                for trip in self._trips(agent, figures)
                # Counted by the minute, figures reach too far back; and past a resume that is not counted from yet.
                if trip.at > since and self._key(agent, trip) not in known
            ]
        over = [(alarm, why) for alarm in alarms if (why := self._why_over(alarm, resumed, now))]
        if found or over:
            await self._say(found, over)
            await self._outbox.drain()
        faults.reach("kill_switch.trips_judged")

    def _trips(self, agent: str, figures: Figures) -> list[Trip]:
        rule = self._rule(agent)
        found = trips.of_figures(rule, figures)
        return found[:1] if rule.mode == "act" else found  # one halt is enough

    async def _count_anew(self, resumed: dict[str, datetime], now: datetime) -> None:
        for agent in self._outcomes.agents():
            since, counted = _resumed(resumed, agent), self._outcomes.since(agent)
            if since and (counted is None or since > counted):
                # By the writer, which finishes in order: what `on_runs` saved before is counted before.
                ended = await self._database.write(partial(trip_store.ended, after=since, agent=agent))
                self._outcomes.begin(agent, since, ended)
        self._outcomes.forget(now - WINDOW)

    async def _say(self, found: Iterable[tuple[str, Trip]], over: Iterable[tuple[Alarm, str]]) -> None:
        now = self._now()

        def save(conn: Connection) -> None:
            for alarm, why in over:
                self._alarms.resolve(conn, alarm.dedupe_key, reason=why, now=now)
            for agent, trip in found:
                if not self._is_halted(agent):
                    self._trip(conn, agent, trip)

        await self._database.write(save)
        faults.reach("kill_switch.trip_saved")

    def _trip(self, conn: Connection, agent: str, trip: Trip) -> None:
        mode = self._mode(agent)
        what = "fleet" if agent == subjects.FLEET else "agent"
        raised = self._alarms.raise_(
            conn, dedupe_key=self._key(agent, trip), rule=RULE, severity="page" if mode == "act" else "ticket",
            title=trips.title(agent, trip, mode), agent=agent, now=trip.at, value=trip.value, limit=trip.limit,
            action_taken=f"{'halted' if mode == 'act' else 'would_halt'}_{what}",
        )  # fmt: skip
        if raised and mode == "act":
            by = f"{subjects.KILL_SWITCH}/{trip.name}"
            why = one_line(trip.why, _REASON_LIMIT)
            order = Order(None if agent == subjects.FLEET else agent, why, by, trip.at)
            id = f"{self._key(agent, trip)}/{trip.at.isoformat()}"
            self._outbox.add(conn, Outgoing(id, subjects.SWITCH, msgspec.json.encode(order), HALT))

    def _why_over(self, alarm: Alarm, resumed: dict[str, datetime], now: datetime) -> str:
        if (_resumed(resumed, alarm.agent) or alarm.raised_at) > alarm.raised_at:
            return "it was resumed"
        old = now - alarm.raised_at > WINDOW
        return "it is not halted, and the hour is over" if old and not self._is_halted(alarm.agent) else ""

    def _is_halted(self, agent: str) -> bool:
        """By a halt that holds; a drill's is lifted whatever happens meanwhile."""
        keys = {subjects.FLEET_KEY} | ({subjects.agent_key(agent)} if agent != subjects.FLEET else set())
        halts = (self._switch.halts.get((key, None)) for key in keys)
        return any(halt is not None and not halt.record.drill for halt in halts)

    def _rule(self, agent: str) -> TripRule:
        return self._cards.get(agent).switch.trips

    def _mode(self, agent: str) -> TripMode:
        return self._fleet if agent == subjects.FLEET else self._rule(agent).mode

    def _key(self, agent: str, trip: Trip) -> str:
        return f"{RULE}/{agent}/{trip.cause}/{self._mode(agent)}"

    async def prune(self) -> None:
        """Forgets runs of which no more is expected."""
        before = self._now() - self._policy.forget_after
        await self._database.write(lambda conn: trip_store.forget_outcomes(conn, before))


def _resumed(resumed: dict[str, datetime], agent: str) -> datetime | None:
    """When the agent, or the fleet with it, was last resumed."""
    keys = (subjects.FLEET_KEY, subjects.agent_key(agent))
    return max((resumed[key] for key in keys if key in resumed), default=None)


def _since(resumed: dict[str, datetime], agent: str, now: datetime) -> datetime:
    """From when on figures count: an hour ago at the earliest."""
    return _resumed(resumed, agent) or now - WINDOW
