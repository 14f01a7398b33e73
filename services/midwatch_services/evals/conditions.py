"""Conditions (CEL) and paths (JSONPath) over the arguments of a call, compiled once. Pure."""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import cel
import jsonpath
from jsonpath import JSONPathError

from .values import same

_UNDEFINED = re.compile(r"Undefined variable or function: '([^']+)'")
_CUT = 120  # characters of an error


class Unanswered(Exception):
    """The condition could not be answered for these arguments; the message says why."""


@lru_cache(maxsize=4096)
def condition(text: str) -> Callable[[dict[str, Any]], Any]:
    """What tells the condition's value for variables. Raises ValueError where it is no CEL."""
    try:
        execute: Callable[[dict[str, Any]], Any] = cel.compile(text).execute
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        found = re.search(r"<input>:\d+:(\d+): (?:Syntax error: )?(.*?)(?: expecting .*)?$", first)
        why = f"at column {found[1]}: {found[2][:_CUT]}" if found else first[:_CUT]
        why = "it is nested too deep" if "Recursion limit" in first else why
        raise ValueError(f"is no condition (CEL), {why}") from None
    return execute


@lru_cache(maxsize=4096)
def path(text: str) -> Callable[[Any], list[Any]]:
    """What finds the values at a JSONPath. Raises ValueError where it is none."""
    try:
        find: Callable[[Any], list[Any]] = jsonpath.compile(text).findall
    except (JSONPathError, ValueError, IndexError, RecursionError) as error:
        raise ValueError(f"is no JSONPath: {str(error).splitlines()[0]}") from None
    return find


def holds(text: str, arguments: Any) -> bool:
    """Whether the condition holds for the arguments, each by its name and all as `arguments`. Raises Unanswered."""
    named = arguments if isinstance(arguments, dict) else {}
    try:
        found = condition(text)({"arguments": named, **named})
    except Exception as error:
        raise Unanswered(_why(error)) from None
    if not isinstance(found, bool):
        raise Unanswered(f"it gives {found!r}, not true or false")
    return found


def _why(error: Exception) -> str:
    text = str(error)
    if isinstance(error, KeyError):
        return f"`{error.args[0]}` is none of the call's arguments"
    if missing := _UNDEFINED.search(text):
        return f"`{missing[1]}` is none of the call's arguments"
    return text.split(". ")[0].splitlines()[0][:_CUT] if text else type(error).__name__


def values_at(arguments: Any, name: str) -> list[Any]:
    """The argument of that name, or what a JSONPath (`$…`) finds: nothing where there is none."""
    if name.startswith("$"):
        try:
            return path(name)(arguments)
        except (JSONPathError, TypeError, ValueError, RecursionError):
            return []
    return [arguments[name]] if isinstance(arguments, dict) and name in arguments else []


def has(arguments: Any, name: str, wanted: Any) -> bool:
    """Whether the argument of that name, or one of what a JSONPath finds, is `wanted`."""
    return any(same(found, wanted) for found in values_at(arguments, name))
