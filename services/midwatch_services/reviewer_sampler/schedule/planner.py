"""What the hours of a day do to the queue: on which day there is time for each run, and who waits too long."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy.engine import Connection

from midwatch.runtime import faults
from midwatch.runtime.card_book import CardBook
from midwatch.runtime.database import Database
from midwatch.runtime.outbox import Outbox

from . import ageing, decide, messages, policy, store
from .ageing import Decision, Open
from .plan import Item, cap, plan, seconds_each
from .policy import MEDIAN_OF, Policy


class Planner:
    """Plans the queue anew when something changed, and raises the alert on what waits too long."""

    def __init__(self, database: Database, outbox: Outbox, cards: CardBook, now: Callable[[], datetime]) -> None:
        self._database, self._outbox, self._cards, self._now = database, outbox, cards, now
        self._planned: Any = None  # what the last plan was made from
        self._waits: dict[str, list[float]] = {}  # since when each run waits, by agent, as of the last plan

    async def look(self) -> None:
        """Plans, where it may have changed; then says what has come of age since, and what has ended."""
        now = self._now()
        await self._plan(now)
        await self._watch(now)
        await self._outbox.drain()

    async def _plan(self, now: datetime) -> None:
        rules = sorted((card.agent, card.review.minutes_a_day) for card in self._cards.all())
        seen = (await self._database.read(store.fingerprint), decide.day_of(now.timestamp()), rules)
        if seen != self._planned:
            self._waits = await self._database.write(lambda conn: self._move(conn, now))
            self._planned = seen
            faults.reach("reviewer_sampler.planned")

    def _move(self, conn: Connection, now: datetime) -> dict[str, list[float]]:
        today, waiting = decide.day_of(now.timestamp()), store.waiting(conn)
        for agent, items in waiting.items():
            days = due_days(conn, agent, self._policy(agent), items, today)
            moved = {item.run_id: days[item.run_id] for item in items if item.due_day != days[item.run_id]}
            store.move(conn, agent, moved)
        return {agent: [item.at for item in items] for agent, items in waiting.items()}

    async def _watch(self, now: datetime) -> None:
        standing = await self._database.read(store.standing)
        found: list[tuple[str, Open | None, Decision | None]] = []
        for agent in sorted(self._waits.keys() | standing.keys()):
            before, waits = standing.get(agent), self._waits.get(agent, [])
            after, decision = ageing.follow(agent, before, waits, self._policy(agent).age, now)
            if after != before:
                found.append((agent, after, decision))

        def work(conn: Connection) -> None:
            for agent, after, decision in found:
                store.save_standing(conn, agent, after)
                if decision is not None:
                    self._outbox.add(conn, messages.ageing(decision, now))

        if found:
            await self._database.write(work)
            faults.reach("reviewer_sampler.aged")

    def _policy(self, agent: str) -> Policy:
        return policy.of(self._cards.get(agent).review)


def due_days(conn: Connection, agent: str, rule: Policy, items: list[Item], today: str) -> dict[str, str]:
    """The day on which there is time for each of the agent's runs that wait."""
    each = seconds_each(store.seconds(conn, agent, MEDIAN_OF))
    done = store.judged_since(conn, agent, decide.end_of(decide.before(today, 1)))
    return plan(items, today, cap(rule.minutes, each), done)
