"""The sentences of alerts: plain, with the figure in them, safe to show anywhere."""

from decimal import Decimal

from midwatch.contracts import subjects
from midwatch.contracts.money import dollars as dollars

from .state import Spent, Subject

_NAME_LIMIT = 60  # characters


def spent(owner: Subject, spent: Spent, limit: Decimal, *, ticket: bool) -> str:
    """How much of its budget a run or a ticket has spent, and how sure that is."""
    who = f"Ticket {name(owner.name)}" if ticket else f"Run {name(owner.name)}"
    return _spent(f"{who} of {owner.agent}", spent, f"its {dollars(limit)} budget")


def used(owner: Subject, count: int, most: int, unit: str, spent: Spent) -> str:
    """How many tokens or steps a run has used that has no known price."""
    run = f"Run {name(owner.name)} of {owner.agent} has used {count:,} of its {most:,} {unit}"
    return f"{run} ({_unpriced(spent.unpriced)})"


def period(agent: str, when: str, spent: Spent, limit: Decimal) -> str:
    """How much of its budget for an hour or day an agent, or the fleet, has spent."""
    who = "The fleet" if agent == subjects.FLEET else f"Agent {agent}"
    return _spent(who, spent, f"its {dollars(limit)} budget for {when}")


def _spent(who: str, spent: Spent, budget: str) -> str:
    about = {"unpriced": "at least ", "estimated": "about "}.get(spent.basis or "", "")
    text = f"{who} has spent {about}{dollars(spent.amount)} of {budget}"
    if spent.unpriced:
        text += f" ({_unpriced(spent.unpriced)})"
    return text


def _unpriced(calls: int) -> str:
    return f"{calls} {'call has' if calls == 1 else 'calls have'} no known price"


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
