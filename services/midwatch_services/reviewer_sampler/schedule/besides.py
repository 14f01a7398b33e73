"""What about a run's event asks for a person, whether the run was drawn or not. Pure."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from midwatch.contracts.governance import AlertRaised
from midwatch.contracts.reviews import Besides as Cause
from midwatch.contracts.runs import HandedOff, Message, Said, Started, ToolCalled

from ..decide import Run
from .policy import Besides

WATCHED = frozenset({Started, Said, ToolCalled, HandedOff})  # events that can be a cause
_CUSTOMER = ("user", "customer")  # roles of a message
_ALERTS = ("page", "ticket")
_LONGEST_ID = 128  # characters of a run's id; an alert, which anyone may raise, can name what is none


class Found(NamedTuple):
    """A cause, with what it was in words."""

    cause: Cause
    what: str


class Asked(NamedTuple):
    """A run that is to be read for a cause. `version`: None where whoever says so does not know it."""

    run: Run
    found: Found
    ticket: str | None
    version: str | None


def cause_of(data: Any, rule: Besides) -> Found | None:
    """Why the event asks for a person."""
    kind = data.__class__
    if kind is ToolCalled:
        return Found("tool", data.tool) if data.tool in rule.tools else None
    if kind is HandedOff:
        # What a halt stops is no hand-off of the agent's: its case has the whole run.
        is_bare = data.key is None and not (data.summary or "").strip() and not data.context
        return Found("hand_off", f"to {data.to}, without a word") if is_bare and rule.hand_offs else None
    if kind is Said:
        texts = iter((data.text,)) if data.by == "customer" else iter(())
    else:
        texts = _asked(data)
    word = next((word for text in texts if (word := rule.complaint(text))), None)
    return Found("complaint", word) if word else None


def alerted(alert: AlertRaised, rule: Besides) -> Found | None:
    """Why an alert asks for its run to be read."""
    if alert.mode != "live" or alert.severity not in _ALERTS or not rule.alerts:
        return None
    is_run = alert.run_id is not None and 0 < len(alert.run_id) <= _LONGEST_ID
    return Found("alert", alert.rule) if is_run else None


def _asked(data: Started) -> Iterator[str]:
    """The customer's words in what a run began with."""
    if isinstance(data.input, str):
        yield data.input
        return
    for message in data.input:
        if message.role in _CUSTOMER:
            yield from _texts(message)


def _texts(message: Message) -> Iterator[str]:
    if isinstance(message.content, str):
        yield message.content
    elif isinstance(message.content, list):
        parts = (part.get("text") for part in message.content if isinstance(part, dict))
        yield from (text for text in parts if isinstance(text, str))
