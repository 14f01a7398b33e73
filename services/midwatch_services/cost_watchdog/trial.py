"""What other limits would have halted of runs that are over, and what that would have saved. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from msgspec.structs import replace

from midwatch.contracts.codec import RunEvent
from midwatch.contracts.control import Card
from midwatch.contracts.subjects import FLEET

from . import periods, policy
from .alerts import Decision, HaltAgent, HaltRun, RaiseAlert
from .decide import Clock, Observed, decide, ticket_of
from .observe import observe
from .rules.memory import NOTHING_USUAL
from .state import RunState, Spent, Subject, TicketState


@dataclass
class Stopped:
    """A run that would have been halted: by which rule and why, and what it spent before and after that."""

    run_id: str
    rule: str
    why: str
    before: Spent
    after: Spent = field(default_factory=Spent)
    tokens_after: int = 0
    events_after: int = 0
    resolution: str | None = None


class Trial:
    """Judges an agent's logged events, in the order in which they were stored, as if `card` had been in force and every
    rule had acted. What a stopped run did afterwards counts as saved; so does a run that began while its agent would
    have been halted: until the hour or day was over, or for the rest of the day where only a person resumes it."""

    def __init__(self, card: Card) -> None:
        self.stopped: dict[str, Stopped] = {}
        self.runs = 0
        self.spent = Spent()
        self._agent, self._policy, self._tools = card.agent, policy.of(card), card.tools
        self._states: dict[str, RunState] = {}
        self._tickets: dict[str, TicketState] = {}
        self._usual = NOTHING_USUAL
        self._periods: dict[Subject, TicketState] = {}
        self._halted: tuple[datetime, HaltAgent] | None = None  # until when

    def feed(self, event: RunEvent, stored_at: datetime) -> None:
        """One event more."""
        seen = observe(event, self._tools)
        seen = replace(seen, run=Subject("live", self._agent, seen.run.name))
        if seen.cost is not None:
            self.spent = self.spent.plus(seen.cost)
        name = seen.run.name
        if name not in self._states and name not in self.stopped:
            self.runs += 1
            if self._halted is not None and stored_at < self._halted[0]:
                self._stop(name, self._halted[1])
        if (stopped := self.stopped.get(name)) is not None:
            _after(stopped, seen)
        else:
            self._judge(seen, stored_at)
        if seen.finished is not None:
            self._states.pop(name, None)

    def _judge(self, seen: Observed, now: datetime) -> None:
        run = self._states.get(seen.run.name, RunState())
        named = ticket_of(run, seen)
        ticket = self._tickets.get(named, TicketState()) if named else None
        outcome = decide(run, ticket, seen, self._policy, Clock(now, now - policy.GAP), self._usual)
        self._usual = outcome.usual
        self._states[seen.run.name] = outcome.run
        if named and outcome.ticket is not None:
            self._tickets[named] = outcome.ticket
        decisions = list(outcome.decisions)
        if seen.cost is not None:
            for period in periods.at(self._agent, now):
                if period.agent != FLEET:
                    decisions += self._spend(period, seen, now)
        for decision in decisions:
            self._obey(decision, seen.run.name, now)

    def _spend(self, period: periods.Period, seen: Observed, now: datetime) -> list[Decision]:
        assert seen.cost is not None
        state = self._periods.get(period.subject, TicketState())
        state = replace(state, spent=state.spent.plus(seen.cost))
        limit = periods.limit_of(period, self._policy)
        self._periods[period.subject], decisions = periods.judge(state, period, limit, now, [seen.run.name])
        return decisions

    def _obey(self, decision: Decision, run_id: str, now: datetime) -> None:
        if isinstance(decision, HaltRun):
            self._stop(decision.run_id, decision)
        elif isinstance(decision, RaiseAlert) and decision.action == "would_halt_run":
            self._stop(run_id, decision)
        elif isinstance(decision, HaltAgent):
            midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
            self._halted = (decision.expires_at or midnight, decision)
            for name in list(self._states):
                self._stop(name, decision)

    def _stop(self, run_id: str, by: HaltRun | HaltAgent | RaiseAlert) -> None:
        if run_id not in self.stopped:
            before = self._states.get(run_id, RunState()).spent
            why = by.title if isinstance(by, RaiseAlert) else by.reason
            self.stopped[run_id] = Stopped(run_id, by.rule, why, before)

    def by_rule(self) -> Iterator[tuple[str, list[Stopped]]]:
        """The runs that each rule would have halted first."""
        for rule in sorted({one.rule for one in self.stopped.values()}):
            yield rule, [one for one in self.stopped.values() if one.rule == rule]


def _after(stopped: Stopped, seen: Observed) -> None:
    stopped.events_after += 1
    if seen.cost is not None:
        stopped.after = stopped.after.plus(seen.cost)
    stopped.tokens_after += seen.tokens or 0
    if seen.finished is not None:
        stopped.resolution = seen.finished
