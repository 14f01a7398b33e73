"""What a sum means for its budget: at half and at four fifths of it people are told, at all of it something is done.
Pure."""

from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple

from midwatch.contracts.control import AtLimit
from midwatch.contracts.money import to_money
from midwatch.contracts.runs import CostBasis

from . import say
from .alerts import Book, Condition, Halts, Level, Severity
from .policy import HALF, NEAR, Limit, Policy
from .state import RunState, Spent

BUDGET_RUN, BUDGET_TICKET = "budget_run", "budget_ticket"
RUN_TOKENS, RUN_STEPS = "budget_run_tokens", "budget_run_steps"
_HALTS: dict[AtLimit, Halts | None] = {"alert": None, "halt_run": "run", "fall_back": "run", "halt_agent": "agent"}
_LEVELS: tuple[tuple[Level, Decimal, Severity], ...] = (
    ("halt", Decimal(1), "page"), ("warn", NEAR, "ticket"), ("half", HALF, "info"),
)  # fmt: skip


class Sum(NamedTuple):
    """What was used of a budget: the figures for people and for the wire, and the sentence that tells both."""

    amount: Decimal
    limit: Decimal
    value: str | int
    most: str | int
    basis: CostBasis | None
    title: Callable[[], str]
    raised_to: Callable[[], str]  # why the alerts of a budget that was raised end


def of_money(spent: Spent, limit: Decimal, title: Callable[[], str]) -> Sum:
    """A sum of costs."""
    return Sum(
        spent.amount, limit, to_money(spent.amount), to_money(limit), spent.basis, title,
        lambda: f"the budget is now {say.dollars(limit)}",
    )  # fmt: skip


def met(book: Book, rule: str, used: Sum, halts: Halts | None) -> Condition | None:
    """The highest level that the sum has reached; alerts of those that it has not, because the budget was raised, are
    resolved."""
    reached: Condition | None = None
    for level, share, severity in _LEVELS:
        if used.amount and used.amount >= used.limit * share:
            whole = level == "halt"
            reached = Condition(
                rule, level, used.title(), used.value, used.most, halts if whole else None, used.basis, severity
            )
            break
        if book.alerts:
            book.end(f"{rule}.{level}", used.raised_to())
    return reached


def halted_by(action: AtLimit) -> Halts | None:
    """What a spent budget of a run or ticket halts."""
    return _HALTS[action]


def near(run: RunState, policy: Policy) -> bool:
    """Whether anything of a run has to be judged at all."""
    if run.spent.amount >= policy.run.amount * HALF:
        return True
    return bool(run.spent.unpriced) and (run.tokens >= policy.run_tokens * HALF or run.steps >= policy.run_steps * HALF)


def of_run(book: Book, run: RunState, policy: Policy) -> list[Condition]:
    """What a run has used up: its dollars, and where a call of its has no known price its tokens and steps."""
    owner, limit = book.owner, policy.run.amount
    halts = halted_by(policy.run.action)
    money = of_money(run.spent, limit, lambda: say.spent(owner, run.spent, limit, ticket=False))
    found = [met(book, BUDGET_RUN, money, halts)]
    if run.spent.unpriced:
        for rule, used, most, unit in (
            (RUN_TOKENS, run.tokens, policy.run_tokens, "tokens"), (RUN_STEPS, run.steps, policy.run_steps, "steps"),
        ):  # fmt: skip
            found.append(met(book, rule, _counted(book, run.spent, used, most, unit), halts))
    return [condition for condition in found if condition is not None]


def _counted(book: Book, spent: Spent, used: int, most: int, unit: str) -> Sum:
    return Sum(
        Decimal(used), Decimal(most), used, most, spent.basis,
        lambda: say.used(book.owner, used, most, unit, spent),
        lambda: f"a run may now use {most:,} {unit}",
    )  # fmt: skip


def of_ticket(book: Book, spent: Spent, limit: Limit, *, moving: bool) -> Condition | None:
    """What the runs of a ticket have used up together. Where none of them moves, none is halted."""
    money = of_money(spent, limit.amount, lambda: say.spent(book.owner, spent, limit.amount, ticket=True))
    return met(book, BUDGET_TICKET, money, halted_by(limit.action) if moving else None)
