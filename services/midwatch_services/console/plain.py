"""Data as people read it who do not read JSON: names and values, and nothing in a value that passes for another name.
Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import texts

_LINE = 100  # characters of data that stands in one line
_DEEPEST = 6  # levels that are told apart; what lies deeper stays as it was logged
_TAKEN_FOR_OTHER = frozenset(',;:"“”()–\n\r')  # where a text holds one of these, its ends are marked


def words(value: Any) -> str:
    """A text as it is. Data as names and values: on one line where it is short, else one to a line."""
    if isinstance(value, str):
        return value
    return _line(value) or "\n".join(_block(value, 0))


def opened(value: Any) -> Any:
    """The data of a text that is JSON, as many frameworks log what a tool was given; anything else as it is."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "["):
        return value
    try:
        return json.loads(value, object_pairs_hook=_only_once)
    except (ValueError, RecursionError):
        return value


def _only_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice")  # of which one would be hidden
    return found


def _line(value: Any) -> str:
    """The whole on one line; empty where that does not do."""
    parts = list[str]()
    if isinstance(value, Mapping) and value:
        for name, part in value.items():
            said = _few(part)
            if not said:
                return ""
            parts.append(f"{_name(name)}: {said}")
        line = ", ".join(parts)
    else:
        line = _few(value, inside=False)
    return line if len(line) <= _LINE else ""


def _few(value: Any, *, inside: bool = True) -> str:
    """One value, or a list of such; empty where it holds more. `inside` other data a list has its ends marked."""
    if not isinstance(value, (Mapping, list, tuple)):
        return _one(value)
    if not value:
        return texts.load()("base.nothing")
    if isinstance(value, Mapping) or any(isinstance(part, (Mapping, list, tuple)) for part in value):
        return ""
    listed = ", ".join(_one(part) for part in value)
    return f"({listed})" if inside else listed


def _block(value: Mapping[str, Any] | Sequence[Any], depth: int) -> Iterator[str]:
    """One name to a line; what does not fit there stands below it, further in."""
    indent = "  " * depth
    is_named = isinstance(value, Mapping)
    for name, part in value.items() if isinstance(value, Mapping) else enumerate(value):
        mark = f"{indent}{_name(name)}:" if is_named else f"{indent}–"
        few = _few(part, inside=False)
        if not few and not is_named:
            few = _line(part)
        if few and (len(few) <= _LINE or not isinstance(part, (list, tuple))):
            yield f"{mark} {_further_in(few, depth)}"
        elif depth == _DEEPEST:
            yield f"{mark} {json.dumps(part, ensure_ascii=False, default=str)}"
        else:
            yield mark
            line = _line(part)
            yield from [f"{indent}  {line}"] if line else _block(part, depth + 1)


def _further_in(text: str, depth: int) -> str:
    return text.replace("\r\n", "\n").replace("\n", f"\n{'  ' * (depth + 2)}")


def _name(name: object) -> str:
    return _marked(str(name).replace("_", " "))


def _one(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return texts.load()("base.nothing" if value is None else "base.yes" if value else "base.no")
    return _marked(value) if isinstance(value, str) else json.dumps(value, default=str)


def _marked(text: str) -> str:
    if text and text == text.strip() and _TAKEN_FOR_OTHER.isdisjoint(text):
        return text
    return f"“{text.replace('“', chr(34)).replace('”', chr(34))}”"
