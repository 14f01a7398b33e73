"""Calls and quotations in the words of a finding. Pure."""

from collections.abc import Sequence
from typing import Any

import msgspec

from .case import CallRule
from .conditions import values_at
from .outcome import Called

_QUOTE = 120  # characters
_VALUE = 80
_NAMED = 6  # arguments, or calls, that are named


def quoted(text: str, *, around: str = "") -> str:
    """The text on one line, cut where it is long; the part with `around` in it."""
    line = "".join(char if char.isprintable() else " " for char in " ".join(text.split()))
    if len(line) <= _QUOTE:
        return line
    at = max(0, line.casefold().find(around.casefold()) - _QUOTE // 3) if around else 0
    cut = line[at : at + _QUOTE].strip()
    return f"{'… ' if at else ''}{cut}{' …' if at + _QUOTE < len(line) else ''}"


def call_wanted(rule: CallRule) -> str:
    """`issue_refund with amount 20 where currency == "USD"`."""
    return rule.tool + _with(rule.arguments) + (f" where {quoted(rule.when)}" if rule.when else "")


def call_made(call: Called, only: Sequence[str] = ()) -> str:
    """`with amount 25`, and that it failed where it did. `only`: the arguments that matter, by name or JSONPath."""
    arguments = {name: value for name in only for value in values_at(call.arguments, name)[:1]} if only else {}
    absent = [name for name in only if name not in arguments]
    text = _with(arguments).strip() if only else _with(call.arguments).strip() or "without arguments"
    text = " and ".join(part for part in (text, f"without {', '.join(map(quoted, absent))}" if absent else "") if part)
    return text + (" and failed" if call.error is not None else "")


def calls_made(calls: Sequence[Called]) -> str:
    """The calls by their names, in order."""
    names = [call.tool for call in calls[:_NAMED]]
    return ", ".join(names) + (f" and {len(calls) - _NAMED} more" if len(calls) > _NAMED else "")


def _with(arguments: Any) -> str:
    if not isinstance(arguments, dict):
        return "" if arguments is None else f" with {_value(arguments)}"
    named = [f"{quoted(str(name))} {_value(one)}" for name, one in list(arguments.items())[:_NAMED]]
    if not named:
        return ""
    more = f", and {len(arguments) - _NAMED} more arguments" if len(arguments) > _NAMED else ""
    return " with " + ", ".join(named) + more


def _value(value: Any) -> str:
    if isinstance(value, str):
        text = quoted(value)
    else:
        text = msgspec.json.encode(value, order="sorted").decode()
    return text if len(text) <= _VALUE else f"{text[:_VALUE]}…"
