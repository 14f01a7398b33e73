"""What answers the agent's tools while a case is replayed: the calls of the run that it was made from. Pure."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from midwatch.errors import MidwatchError
from midwatch.fields import to_json

from .case import NO_RESULT, Case, Kind, Missing, Recorded
from .outcome import Answered

MISSING = "no such answer in the recording"
_SHOWN = 200  # characters of a call in a message


class NoAnswer(MidwatchError):
    """the recording holds no answer to {call}"""


class Answer(NamedTuple):
    """What a tool gives the agent under test: a result, or the error with which it fails."""

    result: Any
    error: str | None
    answered: Answered


class Desk:
    """Answers the calls of one attempt. The same call made again gets the recorded answers in their order, the last of
    them from then on."""

    def __init__(self, case: Case, missing: Missing | None = None) -> None:
        """`missing`: what answers a call that the recording does not hold, in place of the case's own word."""
        self._missing = missing or case.missing
        self._kinds = case.kinds
        self._of_tool: dict[str, list[tuple[Recorded, Any]]] = {}
        self._same: dict[tuple[str, bytes], list[Recorded]] = {}
        self._used: dict[tuple[str, bytes], int] = {}
        for one in case.recorded:
            arguments = normal(one.arguments)
            self._of_tool.setdefault(one.tool, []).append((one, arguments))
            self._same.setdefault((one.tool, _key(arguments)), []).append(one)

    def kind(self, tool: str) -> Kind:
        """What kind of tool it is, as far as the case says."""
        known = self._of_tool.get(tool)
        return self._kinds.get(tool) or (known[0][0].kind if known else "other")

    def answer(self, tool: str, arguments: Any) -> Answer:
        """What the call gives. A call that was not recorded with these arguments gets what the recorded call with the
        most equal ones got (the earliest of several), marked `nearest`. Raises NoAnswer where that is not wanted."""
        arguments = normal(arguments)
        key = (tool, _key(arguments))
        if same := self._same.get(key):
            number = self._used.get(key, 0)
            self._used[key] = number + 1
            found = same[min(number, len(same) - 1)]
            if found.error != NO_RESULT:
                return Answer(found.result, found.error, "recorded")
            if self._missing == "nearest":
                return Answer(None, NO_RESULT, "missing")
        if self._missing == "fail":
            raise NoAnswer(call=call_text(tool, arguments))
        others = [one for one in self._of_tool.get(tool, ()) if one[0].error != NO_RESULT]
        if not others:
            return Answer(None, MISSING, "missing")
        nearest, _ = max(others, key=lambda other: _equal(other[1], arguments))  # the first of the largest
        return Answer(nearest.result, nearest.error, "nearest")


def normal(value: Any) -> Any:
    """Arguments as JSON has them, however they came: 2.0 is 2, and the JSON text of an object is the object."""
    plain = msgspec.json.decode(to_json(value))
    if isinstance(plain, str) and plain.lstrip().startswith("{"):
        try:
            plain = msgspec.json.decode(plain)
        except msgspec.MsgspecError:
            return plain
    return _whole(plain)


def call_text(tool: str, arguments: Any) -> str:
    """A call as people write it, cut where it is long: `lookup_order(order_id='A-9')`."""
    pairs = arguments.items() if isinstance(arguments, Mapping) else (("", arguments),)
    inside = ", ".join(f"{name}={value!r}" if name else repr(value) for name, value in pairs)
    return f"{tool}({inside[:_SHOWN]}{'…' if len(inside) > _SHOWN else ''})"


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _whole(item) for name, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value


def _key(arguments: Any) -> bytes:
    return msgspec.json.encode(arguments, order="deterministic")


def _equal(one: Any, other: Any) -> int:
    """How many arguments are equal."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return 0
    return sum(1 for name, value in one.items() if name in other and _key(other[name]) == _key(value))
