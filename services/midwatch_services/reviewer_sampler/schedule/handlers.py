"""What a schedule does with runs as they begin, with alerts and halts, and with the end of a day."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import structlog
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError, ProgrammingError

from midwatch.contracts import codec, subjects
from midwatch.contracts.codec import Refused
from midwatch.contracts.control import BesidesRule
from midwatch.contracts.governance import AlertRaised
from midwatch.runtime import faults
from midwatch.runtime.card_book import CardBook
from midwatch.runtime.database import Database, NoDatabase
from midwatch.runtime.delivery import Received
from midwatch.runtime.outbox import Outbox

from ..decide import FirstSeen, Run, name_of
from ..policy import GRACE, REMEMBERED
from ..recent import Recent
from . import besides, decide, messages, policy, reading, store
from .besides import WATCHED, Asked
from .decide import State
from .policy import LOOK_BACK, Besides
from .triggers import Trigger, trigger_of

log = structlog.get_logger("midwatch.reviewer_sampler")


class Heard(NamedTuple):
    """An alert or a halt that kept the contract, with the agent of its subject."""

    agent: str
    data: Any


def heard(subject: str, body: bytes) -> Heard:
    """The alert or halt, its agent checked against the subject's. Raises Refused."""
    data, agent = codec.decode(subject, body).data, subject.split(".", 3)[2]
    if isinstance(data, AlertRaised) and data.agent != agent:
        raise Refused("wrong_agent", f"the subject says agent {agent!r}, the body says {data.agent!r}")
    return Heard(agent, data)


class Changes:
    """States that change within a transaction, and each change that is to be said."""

    def __init__(self, states: dict[str, State]) -> None:
        self.states = states
        self.changed: dict[str, State] = {}
        self.said: list[tuple[str, State]] = []

    def put(self, agent: str, state: State) -> State:
        """The agent stands here now."""
        before = self.states.get(agent)
        if before != state:
            self.states[agent] = self.changed[agent] = state
        if before is None or before.number != state.number:
            self.said.append((agent, state))
        return state


class Scheduler:
    """Says at which rate runs are drawn, and which are read besides."""

    def __init__(
        self, database: Database, outbox: Outbox, cards: CardBook, now: Callable[[], datetime], log_url: str
    ) -> None:
        """`log_url`: where the logger's database is, which is only read."""
        self._database, self._outbox, self._cards, self._now = database, outbox, cards, now
        self._log_url = log_url
        self._rules: dict[str, tuple[BesidesRule, Besides]] = {}  # by agent; of the card that was met last
        self._added: Recent[tuple[Run, str]] = Recent(REMEMBERED)
        self._said = ""  # why costs are not looked at

    # As runs begin and go on: within the sampler's own transaction

    def rates(self, conn: Connection, firsts: Sequence[FirstSeen], now: datetime) -> list[float]:
        """The rate of each run. A replay has the card's; it moves nothing."""
        if not firsts:
            return []
        changes = Changes(store.states(conn, {first.run.agent for first in firsts}))
        found = [self._rate(changes, first) for first in firsts]
        self._save(conn, changes, now)
        return found

    def _rate(self, changes: Changes, first: FirstSeen) -> float:
        agent, rule = first.run.agent, self._cards.get(first.run.agent).review
        if first.run.track == "replay":
            return rule.rate
        state = changes.states.get(agent)
        if state is not None:
            state = changes.put(agent, decide.follow_card(state, policy.of(rule)))
        if first.mode == "live":
            if state is None:
                state = changes.put(agent, decide.began(policy.of(rule), first.version, first.stored_at))
            state = changes.put(agent, decide.met_version(state, first.version, first.stored_at))
        return rule.rate if state is None else state.rate

    def asks(self, received: Received, run: Run) -> Asked | None:
        """Whether an event asks for its live run to be read, and the same was not met a moment ago."""
        data = received.event.data
        if data.__class__ not in WATCHED or data.mode != "live":
            return None
        found = besides.cause_of(data, self._rule(run.agent))
        if found is None or (run, found.cause) in self._added:
            return None
        return Asked(run, found, data.ticket, data.version)

    def _rule(self, agent: str) -> Besides:
        rule = self._cards.get(agent).review.besides
        known = self._rules.get(agent)
        if known is None or known[0] is not rule:
            known = self._rules[agent] = rule, policy.besides(rule)
        return known[1]

    def add(self, conn: Connection, asked: Iterable[Asked], now: datetime) -> None:
        """Puts the runs into the queue; says each cause once."""
        for one in store.add(conn, asked, now):
            self._outbox.add(conn, messages.added(one, now))

    def remember(self, asked: Iterable[Asked]) -> None:
        """What is saved need not be looked up again."""
        for one in asked:
            self._added.add((one.run, one.found.cause))

    # Alerts and halts

    async def on_governance(self, batch: Sequence[Received[Heard]]) -> None:
        """Alerts and halts: each brings the first rate back at most once, and its run into the queue. A reader that is
        new hears of all that ever was: what is long past is not read for it."""
        now = self._now()
        oldest, triggers, asked = now - timedelta(days=LOOK_BACK), [], []
        for received in batch:
            agent, data = received.event
            if trigger := trigger_of(agent, data):
                triggers.append((trigger, received.stored_at.timestamp()))
            if not isinstance(data, AlertRaised) or received.stored_at < oldest:
                continue
            if found := besides.alerted(data, self._rule(agent)):
                asked.append(Asked(name_of(agent, data.run_id or "", "live"), found, data.ticket, None))
        if not triggers and not asked:
            return

        def work(conn: Connection) -> None:
            self._snap(conn, triggers, now)
            self.add(conn, asked, now)

        await self._database.write(work)
        self.remember(asked)
        faults.reach("reviewer_sampler.heard")

    def _snap(self, conn: Connection, triggers: Sequence[tuple[Trigger, float]], now: datetime) -> None:
        changes = Changes(store.states(conn) if triggers else {})
        for trigger, at in triggers:
            for agent in [*changes.states] if trigger.agent is None else [trigger.agent]:
                if agent in changes.states:
                    state = decide.snapped(changes.states[agent], trigger.cause, trigger.what, at)
                    changes.put(agent, state)
        self._save(conn, changes, now)

    # The end of a day

    async def look(self) -> None:
        """Judges the days that are over, in order, and follows cards that changed. Most looks find nothing."""
        now = self._now()
        today = decide.day_of((now - GRACE).timestamp())
        states = await self._database.read(store.states)
        if any(self._is_due(agent, state, today) for agent, state in states.items()):
            await self._database.write(lambda conn: self._judge(conn, today, now))
            faults.reach("reviewer_sampler.judged")
        await self._outbox.drain()

    def _is_due(self, agent: str, state: State, today: str) -> bool:
        return next(decide.due(state, today), None) is not None or self._followed(agent, state) != state

    def _followed(self, agent: str, state: State) -> State:
        return decide.follow_card(state, policy.of(self._cards.get(agent).review))

    def _judge(self, conn: Connection, today: str, now: datetime) -> None:
        changes = Changes(store.states(conn))
        for agent, state in [*changes.states.items()]:
            state = changes.put(agent, self._followed(agent, state))
            for day in [*decide.due(state, today)]:
                end = decide.end_of(day)
                everything = store.counts(conn, agent, state.zero, end)
                recent = store.counts(conn, agent, max(state.zero, decide.recent_from(day)), end)
                state = changes.put(agent, decide.evaluate(state, day, everything, recent))
        self._save(conn, changes, now)

    def _save(self, conn: Connection, changes: Changes, now: datetime) -> None:
        store.save(conn, changes.changed)
        for agent, state in changes.said:
            self._outbox.add(conn, messages.rated(agent, state, now))

    # What runs cost

    async def look_at_costs(self) -> None:
        """Adds the runs that cost more than their card lets pass unread, as the run log has them."""
        limits = {card.agent: self._rule(card.agent).cost for card in self._cards.all()}
        wanted = {agent: cost for agent, cost in limits.items() if cost is not None}
        asked = [one for one in await self._costly(wanted) if (one.run, one.found.cause) not in self._added]
        if not asked:
            return
        now = self._now()
        await self._database.write(lambda conn: self.add(conn, asked, now))
        self.remember(asked)
        await self._outbox.drain()

    async def _costly(self, wanted: Mapping[str, Any]) -> list[Asked]:
        if not wanted:
            return []
        since = (self._now() - timedelta(days=LOOK_BACK)).isoformat()
        try:
            run_log = Database(self._log_url, name=subjects.LOGGER, must_exist=True)
        except NoDatabase as error:
            return self._unread(str(error))
        try:
            return await run_log.read(
                lambda conn: [one for agent, cost in wanted.items() for one in reading.costly(conn, agent, cost, since)]
            )
        except (OperationalError, ProgrammingError):
            return self._unread(f"the logger has made no tables in {run_log.where} yet")
        finally:
            await asyncio.to_thread(run_log.close)

    def _unread(self, why: str) -> list[Asked]:
        """Says once why no run is added for its cost."""
        if why != self._said:
            log.warning("costs_not_read", why=why)
        self._said = why
        return []
