"""The names of the rules, and their sentences: plain, with the figure in them, and none of an agent's own text."""

from .. import say
from ..state import Subject
from .memory import Most

NO_NEW_STATE = "loop_no_new_state"
WRITES, CYCLE, TEXT, HAND_OFFS = "loop_writes", "loop_cycle", "loop_text", "loop_hand_offs"
VELOCITY, STALLED = "velocity", "stalled"


def title(rule: str, owner: Subject, most: Most, ticket: str | None) -> str:
    """How far a run has gone by a rule that counts."""
    who, where = _run(owner), f"events {most.first} to {most.last}"
    if rule == NO_NEW_STATE:
        return say.looping(owner, most.tool, most.count)
    if rule == WRITES:
        return (
            f"{who} has made the same write {most.count} times, with success each time ({say.name(most.tool)}, {where})"
        )
    if rule == CYCLE:
        return (
            f"{who} has gone {most.count} times in a row through the same {most.length} tool calls "
            f"(the last: {say.name(most.tool)}, {where})"
        )
    if rule == TEXT:
        return f"{who} has said the same {most.count} times ({where})"
    if ticket is None:
        return f"{who} has handed its case off {most.count} times ({where})"
    return (
        f"Ticket {say.name(ticket)} of {owner.agent} has been handed off {most.count} times, "
        f"the last time by run {say.name(owner.name)} (event {most.last})"
    )


def fast(owner: Subject, used: str, times: float, usual: str) -> str:
    """How much more a run uses in a minute than is usual."""
    return f"{_run(owner)} uses {used} a minute, {times:,.0f} times the {usual} that its agent's runs reach at most"


def stalled(owner: Subject, seconds: float) -> str:
    """For how long nothing was heard of a run."""
    for length, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * length:
            return f"{_run(owner)} has shown no event for {seconds / length:,.0f} {unit} and has not finished"
    return f"{_run(owner)} has shown no event for {seconds:,.0f} seconds and has not finished"


def _run(owner: Subject) -> str:
    return f"Run {say.name(owner.name)} of {owner.agent}"
