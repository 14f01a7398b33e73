"""What a run and a ticket of an agent may cost, and how long a run may go in circles: the card's word."""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from functools import cached_property

from midwatch.contracts.control import Card, LoopRule
from midwatch.runtime.pricing import CEILING

NEAR = Decimal("0.8")  # share of a budget at which people are told
GAP = timedelta(seconds=5)  # how long a missing event of a run is waited for
WAITING_LIMIT = 1000  # events of one run that wait for a missing one; more close the gap at once
MEMORY = 2048  # calls of one run in a generation; of two generations every call is remembered
TOOL_LIMIT = 60  # characters of a tool's name
LIVE_LIMIT = 1000  # runs of one ticket that are halted together; further ones are halted at their next event

KEEP_FINISHED = timedelta(hours=24)  # after its last event; events later than that begin to count anew
KEEP_SILENT = timedelta(days=7)  # a run that never finished
KEEP_TICKET = timedelta(days=30)
KEEP_USUAL = timedelta(days=90)  # what is usual for an agent of which no run finished

_RULES = LoopRule()


@dataclass(frozen=True)
class Policy:
    """Budgets in US dollars; lengths of a streak of tool calls without new state."""

    run: Decimal
    ticket: Decimal
    alert_at: int
    halt_at: int
    loops: LoopRule = _RULES  # the further rules
    writes: frozenset[str] = frozenset()  # tools that write, by the card, as events name them

    @cached_property
    def run_near(self) -> Decimal:
        """What a run may spend before people are told."""
        return self.run * NEAR

    @cached_property
    def ticket_near(self) -> Decimal:
        """What a ticket may spend before people are told."""
        return self.ticket * NEAR


def of(card: Card) -> Policy:
    """The limits on an agent's card."""
    budget, loops = card.budget, card.loops
    run, ticket = min(Decimal(budget.run), CEILING), min(Decimal(budget.ticket), CEILING)
    writes = frozenset(name[:TOOL_LIMIT] for name, tool in card.tools.items() if tool.kind == "write")
    return Policy(run, ticket, loops.alert_at, loops.halt_at, loops, writes)
