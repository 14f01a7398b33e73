"""What an agent may cost in a UTC hour and day, and the fleet in a day. Pure.

The sum of a period is kept as a ticket's is, under a name that no agent can have.
"""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal, NamedTuple

from msgspec.structs import replace

from midwatch.contracts import subjects
from midwatch.contracts.control import AtLimit
from midwatch.contracts.governance import BUDGET_FLEET_DAY
from midwatch.runtime.pricing import Cost

from . import say
from .alerts import Book, Cause, Decision, Halts
from .budgets import met, of_money
from .policy import LIVE_LIMIT, Limit, Policy
from .state import NOTHING, Spent, Subject, TicketState

_HALTS: dict[AtLimit, Halts | None] = {
    "alert": None, "halt_run": "run", "fall_back": "agent", "halt_agent": "agent",
}  # fmt: skip


class Period(NamedTuple):
    """An hour or a day of an agent, or of the fleet."""

    agent: str
    kind: Literal["hour", "day"]
    name: str  # 2026-11-26, or 2026-11-26T13

    @property
    def subject(self) -> Subject:
        """Under what its costs are summed."""
        name = self.name if self.agent == subjects.FLEET else "/".join(self)
        return Subject("live", subjects.FLEET, name)

    @property
    def rule(self) -> str:
        return BUDGET_FLEET_DAY if self.agent == subjects.FLEET else f"budget_{self.kind}"

    @property
    def begins(self) -> datetime:
        return datetime.fromisoformat(self.name).replace(tzinfo=UTC)

    @property
    def ends(self) -> datetime:
        """When the next one begins."""
        return self.begins + (timedelta(hours=1) if self.kind == "hour" else timedelta(days=1))

    @property
    def when(self) -> str:
        """The period in words."""
        return self.name if self.kind == "day" else f"{self.begins:%Y-%m-%d %H:00}-{self.ends:%H:00} UTC"


def at(agent: str, now: datetime) -> list[Period]:
    """The periods on which a cost of the agent counts."""
    return _at(agent, now.year, now.month, now.day, now.hour)


@lru_cache(maxsize=1024)
def _at(agent: str, year: int, month: int, day: int, hour: int) -> list[Period]:
    name = f"{year:04}-{month:02}-{day:02}"
    return [Period(subjects.FLEET, "day", name), Period(agent, "day", name), Period(agent, "hour", f"{name}T{hour:02}")]


def of(subject: Subject) -> Period:
    """The period whose costs are summed under `subject`."""
    if "/" not in subject.name:
        return Period(subjects.FLEET, "day", subject.name)
    agent, kind, name = subject.name.split("/")
    return Period(agent, "hour" if kind == "hour" else "day", name)


class Spending:
    """What the events of a batch spent. First by agent and hour, of which there are few."""

    def __init__(self) -> None:
        self._hours: dict[tuple[str, datetime], tuple[list[Spent], list[str]]] = {}

    def add(self, run: Subject, cost: Cost, stored_at: datetime) -> None:
        """One event's cost, of which the server's time is `stored_at`."""
        hour = (run.agent, stored_at.replace(minute=0, second=0, microsecond=0))
        sums, spenders = self._hours.setdefault(hour, ([NOTHING], []))
        sums[0] = sums[0].plus(cost)
        spenders.append(run.name)

    def by_period(self) -> dict[Period, tuple[Spent, list[str]]]:
        """The sums of hours and days, and the runs that spent on each."""
        found: dict[Period, tuple[Spent, list[str]]] = {}
        for (agent, hour), (sums, spenders) in self._hours.items():
            for period in at(agent, hour):
                spent, others = found.get(period, (NOTHING, []))
                found[period] = (spent.joined(sums[0]), others + spenders)
        return found


def limit_of(period: Period, policy: Policy) -> Limit | None:
    """An agent's budget for an hour or day, None where it has none."""
    return policy.hour if period.kind == "hour" else policy.day


def judge(
    state: TicketState, period: Period, limit: Limit | None, now: datetime, spenders: Collection[str] = ()
) -> tuple[TicketState, list[Decision]]:
    """The period after `spenders` (runs) have spent something on it, or with the passing of time. One that is over is
    only summed: nobody can act on it any more."""
    name = period.name if period.agent == subjects.FLEET else f"{period.kind} {period.name}"
    book = Book(Subject("live", period.agent, name), state.alerts, state.raised)
    live = state.live
    if now >= period.ends:
        book.close(f"the {period.kind} is over")
    elif limit is None:
        who = "the fleet" if period.agent == subjects.FLEET else "the agent"
        book.close(f"{who} has no budget for {'an hour' if period.kind == 'hour' else 'a day'} any more")
    else:
        live = _judge(book, state, period, limit, spenders)
    if book.alerts is state.alerts and live is state.live:
        return state, []
    decisions: list[Decision] = [*book.halts.values(), *book.said]
    return replace(state, alerts=book.alerts, raised=book.raised, live=live), decisions


def _judge(book: Book, state: TicketState, period: Period, limit: Limit, spenders: Collection[str]) -> dict[str, bool]:
    spent, amount, action = state.spent, limit.amount, limit.action
    money = of_money(spent, amount, lambda: say.period(period.agent, period.when, spent, amount))
    condition = met(book, period.rule, money, _HALTS[action])
    if condition is None:
        return state.live
    raised = book.met(condition, Cause(Subject("live", period.agent, ""), None), again=bool(spenders), reopens=True)
    if condition.halts == "agent" and raised:
        book.halt_agent(condition, period.ends if action == "fall_back" else None)
    new = [run for run in spenders if run not in state.live] if condition.halts == "run" else []
    for run in new:
        book.halt(run, condition)
    return {**state.live, **dict.fromkeys(new[: LIVE_LIMIT - len(state.live)], True)} if new else state.live
