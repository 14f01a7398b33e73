"""What a run and a ticket of an agent may cost, and how long a run may go in circles: the card's word."""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import NamedTuple

from midwatch.contracts.control import AtLimit, BudgetRule, Card, LoopRule
from midwatch.runtime.pricing import CEILING

HALF, NEAR = Decimal("0.5"), Decimal("0.8")  # shares of a budget at which people are told
GAP = timedelta(seconds=5)  # how long a missing event of a run is waited for
WAITING_LIMIT = 1000  # events of one run that wait for a missing one; more close the gap at once
MEMORY = 2048  # calls of one run in a generation; of two generations every call is remembered
TOOL_LIMIT = 60  # characters of a tool's name
LIVE_LIMIT = 1000  # runs of one ticket that are halted together; further ones are halted at their next event

KEEP_FINISHED = timedelta(hours=24)  # after its last event; events later than that begin to count anew
KEEP_SILENT = timedelta(days=7)  # a run that never finished
KEEP_TICKET = timedelta(days=30)
KEEP_USUAL = timedelta(days=90)  # what is usual for an agent of which no run finished
KEEP_HOUR = timedelta(days=2)

_BUDGET, _RULES = BudgetRule(), LoopRule()


class Limit(NamedTuple):
    """A budget in US dollars, and what happens when it is spent."""

    amount: Decimal
    action: AtLimit = "halt_run"


@dataclass(frozen=True)
class Policy:
    """Budgets of a run, a ticket, the agent's hour and day; what bounds a run whose price is not known; lengths of a
    streak of tool calls without new state."""

    run: Limit
    ticket: Limit
    alert_at: int
    halt_at: int
    hour: Limit | None = None
    day: Limit | None = None
    run_tokens: int = _BUDGET.run_tokens
    run_steps: int = _BUDGET.run_steps
    loops: LoopRule = _RULES  # the further rules
    writes: frozenset[str] = frozenset()  # tools that write, by the card, as events name them


def of(card: Card) -> Policy:
    """The limits on an agent's card."""
    budget, loops, at_limit = card.budget, card.loops, card.budget.at_limit
    return Policy(
        _limit(budget.run, at_limit.run), _limit(budget.ticket, at_limit.ticket), loops.alert_at, loops.halt_at,
        hour=_limit(budget.hour, at_limit.hour) if budget.hour else None,
        day=_limit(budget.day, at_limit.day) if budget.day else None,
        run_tokens=budget.run_tokens, run_steps=budget.run_steps, loops=loops,
        writes=frozenset(name[:TOOL_LIMIT] for name, tool in card.tools.items() if tool.kind == "write"),
    )  # fmt: skip


def _limit(amount: str, action: AtLimit) -> Limit:
    return Limit(min(Decimal(amount), CEILING), action)
