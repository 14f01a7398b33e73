"""The sentences of alerts: plain, with the figure in them, safe to show anywhere."""

from decimal import Decimal

from midwatch.contracts.money import dollars as dollars

from .state import Spent, Subject

_NAME_LIMIT = 60  # characters


def spent(owner: Subject, spent: Spent, limit: Decimal, *, ticket: bool) -> str:
    """How much of its budget a run or a ticket has spent, and how sure that is."""
    who = f"Ticket {name(owner.name)}" if ticket else f"Run {name(owner.name)}"
    return _spent(f"{who} of {owner.agent}", spent, f"its {dollars(limit)} budget")


def fleet(day: str, spent: Spent, limit: Decimal) -> str:
    """How much of a day's budget all agents have spent."""
    return _spent("The fleet", spent, f"its {dollars(limit)} budget for {day}")


def _spent(who: str, spent: Spent, budget: str) -> str:
    about = {"unpriced": "at least ", "estimated": "about "}.get(spent.basis or "", "")
    text = f"{who} has spent {about}{dollars(spent.amount)} of {budget}"
    if spent.unpriced:
        text += f" ({spent.unpriced} {'call has' if spent.unpriced == 1 else 'calls have'} no known price)"
    return text


def looping(owner: Subject, tool: str, streak: int) -> str:
    """How long a run has gone in circles."""
    return (
        f"Run {name(owner.name)} of {owner.agent} has made {streak} tool calls in a row that brought nothing new "
        f"(the last: {name(tool)})"
    )


def name(text: str) -> str:
    """What an agent calls something, without what could disturb a terminal or a pager, and not too long."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= _NAME_LIMIT else f"{text[:_NAME_LIMIT]}…"
