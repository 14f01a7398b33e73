"""What all live runs together may cost in a UTC day. Pure.

A day's sum is kept as a ticket's is, under a name that no agent can have; of its alerts one is open for each limit.
"""

from datetime import datetime
from decimal import Decimal

from msgspec.structs import replace

from midwatch.contracts import subjects
from midwatch.contracts.governance import BUDGET_FLEET_DAY
from midwatch.contracts.money import to_money

from . import say
from .alerts import Book, Cause, Condition, Decision
from .policy import NEAR
from .state import Subject, TicketState

_CAUSE = Cause(Subject("live", subjects.FLEET, ""), None)


def day_of(at: datetime) -> Subject:
    """Under what the costs of the UTC day of `at` are summed."""
    return Subject("live", subjects.FLEET, at.date().isoformat())


def judge(
    state: TicketState, day: Subject, limit: Decimal | None, *, today: bool, costed: bool
) -> tuple[TicketState, list[Decision]]:
    """The day after something was spent on it (`costed`), or with the passing of time."""
    book = Book(day, state.alerts, state.raised)
    if not today:
        book.close("the day is over")
    elif limit is None:
        book.close("the fleet has no budget for a day any more")
    else:
        _judge_today(book, state, limit, costed=costed)
    if book.alerts is state.alerts:
        return state, book.said
    return replace(state, alerts=book.alerts, raised=book.raised), book.said


def _judge_today(book: Book, state: TicketState, limit: Decimal, *, costed: bool) -> None:
    amount = state.spent.amount
    over, near = amount >= limit, amount >= limit * NEAR
    reason = f"the budget is now {say.dollars(limit)}"
    if not over:
        book.end(f"{BUDGET_FLEET_DAY}.halt", reason)
    if not near:
        book.end(f"{BUDGET_FLEET_DAY}.warn", reason)
        return
    condition = Condition(
        BUDGET_FLEET_DAY, "halt" if over else "warn", say.fleet(book.owner.name, state.spent, limit),
        to_money(amount), to_money(limit), False, state.spent.basis, "page" if over else "ticket",
    )  # fmt: skip
    book.met(condition, _CAUSE, again=costed, reopens=True)
