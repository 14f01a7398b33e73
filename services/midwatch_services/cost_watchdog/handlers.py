"""What cost-watchdog does with run events, with a changed card, and with the passing of time."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial

import msgspec
import structlog
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch.contracts.erasure import ErasureResolved
from midwatch.contracts.runs import ToolCalled
from midwatch.errors import Permanent, Temporary
from midwatch.runtime import faults, telemetry
from midwatch.runtime.card_book import CardBook
from midwatch.runtime.database import Database
from midwatch.runtime.delivery import Received
from midwatch.runtime.erasure import Counts
from midwatch.runtime.outbox import Outbox, Outgoing
from midwatch.runtime.switchboard import NoSwitch, Scope, Switchboard

from . import differs, erasing, periods, policy, store
from .alerts import Decision, HaltAgent, HaltRun
from .allowances.handlers import Allowances
from .decide import Clock, Observed, Outcome, decide, forget, tick, ticket_of
from .differs import Compared
from .messages import HALT, HaltOrder, outgoing
from .observe import observe
from .periods import Period, Spending
from .policy import Limit, Policy
from .state import Spent, Subject

log = structlog.get_logger("midwatch.cost_watchdog")
Said = list[tuple[Decision, str | None]]  # with the traceparent of the event that led to it


class Watchdog:
    """Judges events as they come, each batch in one transaction with what follows from it."""

    def __init__(
        self, database: Database, js: JetStreamContext, cards: CardBook, now: Callable[[], datetime], keep: timedelta,
        fleet_budget: Decimal | None = None, fleet_refuses: bool = False,
    ) -> None:  # fmt: skip
        """`keep`: for how long the stream may bring an event again. `fleet_budget`: US dollars a UTC day;
        `fleet_refuses`: what would pass it is not set aside."""
        self._database, self._cards, self._now, self._keep = database, cards, now, keep
        self._board = Switchboard(js)
        self.outbox = Outbox(database, store.PREFIX, js, sinks={HALT: self._halt})
        self._store = store.Store()
        self._one = asyncio.Lock()  # a transaction and what memory learns of it are one step
        self._policies: dict[str, Policy | None] = {}  # under which the runs in flight were judged last
        self._fleet = None if fleet_budget is None else Limit(fleet_budget, "alert")
        self._hour: str | None = None  # the hour in which periods were judged last
        self.allowances = Allowances(self._store, self._write, cards, now, fleet_budget if fleet_refuses else None)
        self._awake_since = now()
        self.caught_up: Callable[[], bool] = lambda: True  # whether all that was stored has been read
        self._caught_up_since: datetime | None = None
        self._loop = asyncio.get_running_loop()
        self._halting: list[asyncio.Task[None]] = []  # halts of the transaction under way
        self._obeyed: set[str] = set()  # those of them that the switch holds already, by msg_id
        self._differing = Counter[str]()  # calls of the transaction under way whose cost differs, by agent

    async def load(self) -> None:
        """Says what a former process decided, and takes note of whose runs are in flight."""
        await self.outbox.drain()
        self._policies = dict.fromkeys(await self._database.read(store.agents_in_flight))
        self._awake_since = self._now()

    async def on_events(self, batch: list[Received]) -> None:
        """Judges the events that were not judged before. Halts do not wait for the commit: if that fails, the events
        come again and find them there. The outbox holds them all the same, and writes the switch where that failed
        here."""
        await self._write(lambda conn: self._judge_batch(conn, batch))
        for agent, count in self._differing.items():
            telemetry.COST_DIFFERS.labels(subjects.COST_WATCHDOG, agent).inc(count)
        faults.reach("cost_watchdog.saved")

    async def on_tick(self) -> None:
        """Closes the gaps that have been open for too long, reports runs that have stalled, and judges runs anew whose
        agent's card has changed."""
        if (closes := self._clock().closes) is not None:
            while due := await self._database.read(partial(store.waiting, before=closes.timestamp())):
                await self._tick(due)
        if self._hears():
            while due := await self._database.read(partial(store.stalled, now=self._now().timestamp())):
                await self._tick(due, silence=True)
        changed = [agent for agent, last in self._policies.items() if last != self._policy(agent)]
        for agent in changed:
            await self._judge_agent(agent)
        if changed or f"{self._now():%Y-%m-%dT%H}" != self._hour:
            await self._judge_periods()
        await self.allowances.on_tick()
        await self.outbox.drain()

    async def prune(self) -> None:
        """Forgets runs, tickets and identities of which no more is expected."""
        now = self._now()
        applied_before = int((now - self._keep).timestamp())

        def work(conn: Connection) -> None:
            self._store.begin(conn)
            said, silent = self._lapse(conn, now), store.silent(conn, now)
            self._store.runs.load(conn, silent)
            for run in silent:
                said += [(decision, None) for decision in forget(self._store.runs.get(run), run)]
            self._save(conn, said, now)
            store.prune(conn, now)
            self.outbox.forget(conn, applied_before)
            self._store.forget()

        await self._write(work)
        await self.outbox.drain()

    async def write(self, work: Callable[[Connection], None]) -> None:
        """Runs a transaction of the erasure between two of the watchdog's own."""
        await self._write(work)

    def erase(self, conn: Connection, part: ErasureResolved) -> Counts:
        """Forgets runs that are erased, within `write`."""
        self._store.begin(conn)
        counts, decisions = erasing.erase(conn, part, self._store)
        self._save(conn, [(decision, None) for decision in decisions], self._now())
        self._store.forget()
        return counts

    def _clock(self, *, silence: bool = False) -> Clock:
        """The time. After a start no gap closes at once: the event that it waits for may have been stored meanwhile."""
        now = self._now()
        return Clock(now, now - policy.GAP if now - self._awake_since >= policy.GAP else None, silence)

    def _hears(self) -> bool:
        """Whether the silence of a run means anything: not after a start, nor where events wait to be read."""
        now = self._now()
        if not self.caught_up():
            self._caught_up_since = None
        elif self._caught_up_since is None:
            self._caught_up_since = now
        since = self._caught_up_since
        return since is not None and now - max(since, self._awake_since) >= policy.GAP

    def _policy(self, agent: str) -> Policy:
        return policy.of(self._cards.get(agent))

    async def _write(self, work: Callable[[Connection], object]) -> None:
        async with self._one:
            self._halting, self._obeyed = [], set()
            try:
                await self._database.write(work)
            except BaseException:
                self._store.forget()
                raise
            finally:
                await asyncio.gather(*self._halting)
            self._store.committed()

    def _begin(self, orders: list[Outgoing]) -> None:
        self._halting.append(self._loop.create_task(self._halt_now(orders)))

    async def _halt_now(self, orders: list[Outgoing]) -> None:
        with contextlib.suppress(Temporary, NatsError, TimeoutError):
            for order in orders:
                await self._write_switch(order)
                self._obeyed.add(order.msg_id)

    # A rebuild.

    async def is_new(self) -> bool:
        """Whether the database was never written."""
        return await self._database.read(store.is_new)

    async def rebuilding(self) -> int | None:
        """The sequence at which a rebuild under way goes on."""
        return await self._database.read(store.rebuilding)

    async def judge_again(self, batch: list[Received]) -> None:
        """Judges events that an earlier life had acknowledged, by the server's time of each batch; nothing is said."""
        now = batch[-1].stored_at

        def work(conn: Connection) -> None:
            self._judge(conn, batch, Clock(now, now - policy.GAP))
            self._store.save(conn, now)
            store.note_rebuild(conn, batch[-1].stream_seq + 1)

        await self._write(work)
        faults.reach("cost_watchdog.judged_again")

    async def rebuilt(self) -> None:
        """The rebuild has ended."""
        await self._database.write(lambda conn: store.note_rebuild(conn, None))

    def _judge_batch(self, conn: Connection, batch: list[Received]) -> None:
        clock = self._clock()
        self._save(conn, self._judge(conn, batch, clock), clock.now)

    def _judge(self, conn: Connection, batch: list[Received], clock: Clock) -> Said:
        self._store.begin(conn)
        fresh = self.outbox.fresh(conn, [(received.event.agent, received.event.id) for received in batch])
        events: list[tuple[Observed, str | None]] = []
        calls: list[tuple[Compared, str | None]] = []
        spent = Spending()
        for received in batch:
            identity = (received.event.agent, received.event.id)
            if identity in fresh:
                fresh.discard(identity)  # of two in one batch the first counts
                is_tool = isinstance(received.event.data, ToolCalled)
                event = observe(received.event, self._cards.get(received.event.agent).tools if is_tool else {})
                self.allowances.settle(conn, event, received.event.data)
                events.append((event, (received.headers or {}).get("traceparent")))
                if (call := differs.compared(received.event, event)) is not None:
                    calls.append((call, events[-1][1]))
                if event.cost is not None and event.run.mode == "live":
                    spent.add(event.run, event.cost, received.stored_at)
        self._load(conn, {event.run for event, _ in events}, (event for event, _ in events))
        policies = {agent: self._policy(agent) for agent in {event.run.agent for event, _ in events}}
        said = Said()
        for event, traceparent in events:
            outcome = self._decide(event, policies[event.run.agent], clock)
            said += [(decision, traceparent) for decision in outcome.decisions]
        said += self._compare(conn, calls)
        said += self._spend(conn, spent.by_period(), policies, clock.now)
        for agent, judged_by in policies.items():
            self._policies.setdefault(agent, judged_by)
        return said

    def _compare(self, conn: Connection, calls: Sequence[tuple[Compared, str | None]]) -> Said:
        """Holds what was reported against what the prices say."""
        self._differing, said = Counter(call.model.agent for call, _ in calls if call.differs), Said()
        self._store.models.load(conn, {call.model for call, _ in calls})
        for call, traceparent in calls:
            state, decisions = differs.judge(self._store.models.get(call.model), call)
            self._store.models.put(call.model, state)
            said += [(decision, traceparent) for decision in decisions]
        return said

    def _lapse(self, conn: Connection, now: datetime) -> Said:
        """Drops models that nobody calls any more."""
        silent = store.silent_models(conn, now)
        self._store.models.load(conn, silent)
        said: Said = [
            (decision, None) for model in silent for decision in differs.lapse(self._store.models.get(model), model)
        ]
        store.drop_models(conn, silent)
        return said

    def _spend(
        self, conn: Connection, spent: Mapping[Period, tuple[Spent, list[str]]], policies: Mapping[str, Policy],
        now: datetime,
    ) -> Said:  # fmt: skip
        """Adds to the sums of hours and days."""
        self._store.tickets.load(conn, {period.subject for period in spent})
        said = Said()
        for period, (amount, spenders) in spent.items():
            state = self._store.tickets.get(period.subject)
            state = msgspec.structs.replace(state, spent=state.spent.joined(amount))
            limit = self._fleet if period.agent == subjects.FLEET else periods.limit_of(period, policies[period.agent])
            state, decisions = periods.judge(state, period, limit, now, spenders)
            said += [(decision, None) for decision in decisions]
            self._store.tickets.put(period.subject, state)
        return said

    async def _judge_periods(self) -> None:
        """Ends the alerts of hours and days that are over, and judges the others by the budgets as they are set now."""
        now = self._now()

        def work(conn: Connection) -> None:
            self._store.begin(conn)
            kept = store.periods(conn)
            known = [subject for subject, state in kept if state.alerts or periods.of(subject).ends > now]
            self._store.tickets.load(conn, known)
            said = Said()
            for subject in known:
                period = periods.of(subject)
                whole = period.agent == subjects.FLEET
                limit = self._fleet if whole else periods.limit_of(period, self._policy(period.agent))
                after, decisions = periods.judge(self._store.tickets.get(subject), period, limit, now)
                self._store.tickets.put(subject, after)
                said += [(decision, None) for decision in decisions]
            self._save(conn, said, now)

        await self._write(work)
        self._hour = f"{now:%Y-%m-%dT%H}"

    def _load(self, conn: Connection, runs: Collection[Subject], events: Iterable[Observed] = ()) -> None:
        """Reads the states that a transaction needs, all runs and then all tickets at once."""
        self._store.runs.load(conn, runs)
        self._store.usual.load(conn, {_agent(run) for run in runs})
        named = {_ticket(run, self._store.runs.get(run).ticket) for run in runs}
        named |= {_ticket(event.run, event.ticket) for event in events}
        self._store.tickets.load(conn, {ticket for ticket in named if ticket is not None})

    def _decide(self, event: Observed, limits: Policy, clock: Clock) -> Outcome:
        run = self._store.runs.get(event.run)
        ticket = _ticket(event.run, ticket_of(run, event))
        known, usual = self._store.tickets.get(ticket) if ticket else None, self._store.usual.get(_agent(event.run))
        outcome = decide(run, known, event, limits, clock, usual)
        self._put(event.run, ticket, outcome)
        return outcome

    def _put(self, run: Subject, ticket: Subject | None, outcome: Outcome) -> None:
        self._store.runs.put(run, outcome.run)
        self._store.usual.put(_agent(run), outcome.usual)
        if ticket is not None and outcome.ticket is not None:
            self._store.tickets.put(ticket, outcome.ticket)

    def _save(self, conn: Connection, said: Said, now: datetime) -> None:
        # Halts leave first: an alert can wait for them, a run that goes too far cannot.
        said = sorted(said, key=lambda one: not isinstance(one[0], HaltRun | HaltAgent))
        rows = [outgoing(decision, now, traceparent) for decision, traceparent in said]
        if orders := [row for row in rows if row.kind == HALT]:
            self._loop.call_soon_threadsafe(self._begin, orders)
        self._store.save(conn, now)
        for row in rows:
            self.outbox.add(conn, row)

    async def _judge_agent(self, agent: str) -> None:
        limits, after = self._policy(agent), ""
        while runs := await self._database.read(partial(store.in_flight, agent=agent, after=after)):
            await self._tick(runs)
            after = str(runs[-1])
        self._policies[agent] = limits

    async def _tick(self, runs: list[Subject], *, silence: bool = False) -> None:
        """Judges runs without an event. `silence`: what was not heard of them means something."""
        clock = self._clock(silence=silence)

        def work(conn: Connection) -> None:
            self._store.begin(conn)
            self._load(conn, runs)
            said = Said()
            for run in runs:
                state = self._store.runs.get(run)
                ticket = _ticket(run, state.ticket)
                known = self._store.tickets.get(ticket) if ticket else None
                usual = self._store.usual.get(_agent(run))
                outcome = tick(state, known, run, self._policy(run.agent), clock, usual)
                self._put(run, ticket, outcome)
                said += [(decision, None) for decision in outcome.decisions]
            self._save(conn, said, clock.now)

        await self._write(work)
        faults.reach("cost_watchdog.ticked")

    async def _halt(self, row: Outgoing) -> None:
        """The sink of halts."""
        if row.msg_id not in self._obeyed:
            await self._write_switch(row)

    async def _write_switch(self, row: Outgoing) -> None:
        """What is halted already stays as it is."""
        order = msgspec.json.decode(row.body, type=HaltOrder)
        scope = Scope(order.agent, run_id=order.run_id or None)
        try:
            written = await self._board.halt(
                scope, reason=order.reason, by=order.by, at=order.at, expires_at=order.expires_at
            )
        except NoSwitch as error:
            raise Temporary(str(error)) from error
        except Permanent:
            # The map of its runs is full, of thousands that were halted: no single run can be stopped any more.
            reason = f"{order.reason}; no more runs can be halted one by one"
            written = await self._board.halt_agent(order.agent, reason=reason, by=order.by, at=order.at)
        if written.changed:
            log.warning("halted", key=written.key, run_id=order.run_id, by=order.by, reason=written.record.reason)
        faults.reach("cost_watchdog.halted")


def _ticket(run: Subject, ticket: str | None) -> Subject | None:
    return None if ticket is None else Subject(run.mode, run.agent, ticket)


def _agent(run: Subject) -> Subject:
    """Under what the usual of a run's agent is kept."""
    return Subject(run.mode, run.agent, "")
