"""What the watchdog remembers of a run and of a ticket. Frozen: a decision makes a new one."""

from decimal import Decimal
from typing import NamedTuple

from msgspec import Struct

from midwatch.contracts.runs import CostBasis, Mode
from midwatch.runtime.pricing import CEILING, Cost, worst

from .rules.memory import Facts, LoopState


class Subject(NamedTuple):
    """What is counted by itself: a run, or a ticket, of one agent in one mode."""

    mode: Mode
    agent: str
    name: str  # the run id, or the ticket

    def __str__(self) -> str:
        return "/".join(self)


class Open(Struct, frozen=True, array_like=True):
    """An alert that was raised. Once `closed` it only keeps the same condition from raising another."""

    alert_id: str
    repeats: int = 0
    closed: bool = False


class Waiting(Struct, frozen=True, array_like=True, order=True):
    """An event that came before one with a lower seq. `pair` is None unless it is a tool call."""

    seq: int
    event_id: str
    arrived: float  # Unix seconds
    tool: str = ""
    pair: int | None = None
    facts: Facts | None = None


class Spent(Struct, frozen=True, omit_defaults=True):
    """A sum of costs: US dollars of what has a price, and how many calls have none."""

    amount: Decimal = Decimal(0)
    basis: CostBasis | None = None  # that of the least sure cost; None before the first
    unpriced: int = 0

    def plus(self, cost: Cost) -> "Spent":
        """This sum with one call more."""
        basis = cost.basis if self.basis is None else worst(self.basis, cost.basis)
        if cost.amount is None:
            return Spent(self.amount, basis, self.unpriced + 1)
        return Spent(min(self.amount + cost.amount, CEILING), basis, self.unpriced)

    def joined(self, other: "Spent") -> "Spent":
        """Both sums in one."""
        basis = self.basis or other.basis
        if self.basis is not None and other.basis is not None:
            basis = worst(self.basis, other.basis)
        return Spent(min(self.amount + other.amount, CEILING), basis, self.unpriced + other.unpriced)


NOTHING = Spent()


class RunState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`steps`: calls of a model, `tokens`: what they took in and gave out. `seen` and `older` hold the digests of
    (call, result); `next_seq` is where the contiguous prefix ends."""

    ticket: str | None = None
    spent: Spent = Spent()
    tokens: int = 0
    steps: int = 0
    next_seq: int = 0
    waiting: tuple[Waiting, ...] = ()
    seen: frozenset[int] = frozenset()
    older: frozenset[int] = frozenset()
    streak: int = 0
    finished: bool = False
    raised: int = 0
    alerts: dict[str, Open] = {}
    loops: LoopState = LoopState()


class TicketState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of a ticket, or of an hour or day. `live`: runs that have not finished, and whether this budget has halted each;
    of an hour or day only those that it halted. `hand_offs`: of a ticket, by any of its runs."""

    spent: Spent = Spent()
    live: dict[str, bool] = {}
    raised: int = 0
    alerts: dict[str, Open] = {}
    hand_offs: int = 0
