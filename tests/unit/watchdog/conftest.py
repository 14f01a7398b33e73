"""A run played through `decide` by hand."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from midwatch.contracts.runs import Mode
from midwatch.runtime.pricing import Cost
from midwatch_services.cost_watchdog.alerts import Decision, HaltRun, RaiseAlert, ResolveAlert
from midwatch_services.cost_watchdog.decide import Clock, Observed, decide, tick, ticket_of
from midwatch_services.cost_watchdog.policy import GAP, Limit, Policy
from midwatch_services.cost_watchdog.rules.memory import NOTHING_USUAL, Facts
from midwatch_services.cost_watchdog.state import RunState, Subject, TicketState

START = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
LIMITS = Policy(run=Limit(Decimal("1.00")), ticket=Limit(Decimal("2.00")), alert_at=3, halt_at=5)

TOLD = ("ticket", "page")


class Play:
    """Runs and tickets of one agent, judged event by event; every decision is kept."""

    def __init__(self, limits: Policy = LIMITS, mode: Mode = "live", agent: str = "refund-desk") -> None:
        self.limits, self.mode, self.agent = limits, mode, agent
        self.now = START
        self.runs: dict[str, RunState] = {}
        self.tickets: dict[str, TicketState] = {}
        self.usual = NOTHING_USUAL
        self.decisions: list[Decision] = []
        self._events = 0

    def subject(self, run_id: str) -> Subject:
        return Subject(self.mode, self.agent, run_id)

    def event(self, run_id: str = "run-1", **fields: Any) -> list[Decision]:
        """One event of a run; its seq is the next one unless given."""
        run = self.runs.get(run_id, RunState())
        self._events += 1
        fields.setdefault("event_id", f"e{self._events}")
        fields.setdefault("seq", run.next_seq)
        event = Observed(self.subject(run_id), **fields)
        named = ticket_of(run, event)
        ticket = self.tickets.get(named, TicketState()) if named else None
        return self._take(run_id, decide(run, ticket, event, self.limits, self._clock(), self.usual))

    def spend(
        self, amount: str | None, run_id: str = "run-1", basis: Any = "reported", **fields: Any
    ) -> list[Decision]:
        """A call of a model that cost so many dollars; None is a call without a price."""
        cost = Cost(None, "unpriced") if amount is None else Cost(Decimal(amount), basis)
        return self.event(run_id, cost=cost, **fields)

    def call(self, pair: int, run_id: str = "run-1", **fields: Any) -> list[Decision]:
        """A tool call; equal numbers are the same call with the same result."""
        return self.event(run_id, tool="lookup_order", pair=pair, **fields)

    def calls(self, pairs: Iterable[int], run_id: str = "run-1") -> list[Decision]:
        return [decision for pair in pairs for decision in self.call(pair, run_id)]

    def finish(self, run_id: str = "run-1", **fields: Any) -> list[Decision]:
        return self.event(run_id, finished="resolved", **fields)

    def does(self, call: int, run_id: str = "run-1", tool: str = "lookup_order", **facts: Any) -> list[Decision]:
        """A tool call without regard to its result; equal numbers are the same call."""
        facts = {"ok": True} | facts
        return self.event(run_id, tool=tool, facts=Facts(call=call, **facts))

    def writes(self, call: int, run_id: str = "run-1", **facts: Any) -> list[Decision]:
        """A write that succeeds, unless it is said to fail."""
        return self.does(call, run_id, "issue_refund", write=True, **facts)

    def says(self, text: int, run_id: str = "run-1") -> list[Decision]:
        """The agent says something; equal numbers are the same text."""
        return self.event(run_id, facts=Facts(text=text))

    def hands_off(self, run_id: str = "run-1", **fields: Any) -> list[Decision]:
        return self.event(run_id, facts=Facts(hand_off=True), **fields)

    def uses(
        self, tokens: float = 0, dollars: float = 0, at: float = 0, run_id: str = "run-1", **fields: Any
    ) -> list[Decision]:
        """A call of a model, `at` seconds after the start by the agent's clock."""
        facts = Facts(at=START.timestamp() + at, tokens=tokens, dollars=dollars)
        return self.event(run_id, facts=facts, **fields)

    def tick(self, seconds: float = 0, run_id: str = "run-1", *, silence: bool = False) -> list[Decision]:
        """Time passes, and the run is judged without an event. `silence`: that none came means something."""
        self.now += timedelta(seconds=seconds)
        run = self.runs[run_id]
        ticket = self.tickets[run.ticket] if run.ticket else None
        return self._take(
            run_id, tick(run, ticket, self.subject(run_id), self.limits, self._clock(silence), self.usual)
        )

    def _clock(self, silence: bool = False) -> Clock:
        return Clock(self.now, self.now - GAP, silence)

    def _take(self, run_id: str, outcome: Any) -> list[Decision]:
        self.runs[run_id], self.usual = outcome.run, outcome.usual
        if outcome.ticket is not None:
            self.tickets[outcome.run.ticket] = outcome.ticket
        self.decisions += outcome.decisions
        return outcome.decisions

    def halted(self) -> list[tuple[str, str]]:
        """Every halt decided so far, as (run, rule)."""
        return [(one.run_id, one.rule) for one in self.decisions if isinstance(one, HaltRun)]

    def raised(self, *levels: str) -> list[RaiseAlert]:
        """The alerts that tell people, or those of the severities named."""
        return [one for one in self.decisions if isinstance(one, RaiseAlert) and one.severity in (levels or TOLD)]

    def resolved(self) -> list[ResolveAlert]:
        return [one for one in self.decisions if isinstance(one, ResolveAlert)]

    def open(self) -> set[str]:
        """Dedupe keys of the alerts that are open."""
        gone = {one.alert_id for one in self.resolved()}
        return {one.dedupe_key for one in self.raised("info", *TOLD) if one.alert_id not in gone}


@pytest.fixture
def play() -> Play:
    return Play()


@pytest.fixture(scope="session")
def played() -> Callable[..., Play]:
    return Play
