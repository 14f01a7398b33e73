"""Data as people read it who do not read JSON: names and values, and nothing in a value that passes for another name or
another kind of value. Pure."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import texts

_LINE = 100  # characters of data that stands in one line
_IN_A_LINE = 40  # names or values of it
_DEEPEST = 6  # levels that are told apart; what lies deeper stays as it was logged
_MANY = 1_000  # names of one mapping, from which on they stay as they are
_PLAIN = re.compile(r"[-+$€£]?\w[\w \-./@+#%&'’!?*$€£°]*(?<! )")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_WITHIN = re.compile(r"(?<=[^\W_])_(?=[^\W_])")  # an underline between two words of a name
_ENDS = (("“", "”"), ("«", "»"), ("‹", "›"))


class _Number(str):
    """A number as it was written: 1.10 is no 1.1 where it is a version."""


def words(value: Any, most: int | None = None) -> str:
    """A text as it is. Data as names and values: on one line where it is short, else one to a line, and no more lines
    than it takes for `most` characters."""
    if isinstance(value, str):
        return value
    try:
        return _line(value) or "\n".join(_within(_block(value, 0), most))
    except (RecursionError, ValueError):  # as deep or as long as only somebody who means it writes it
        return texts.load()("base.no_words")


def opened(value: Any) -> Any:
    """The data of a text that is JSON, as many frameworks log what a tool was given; anything else as it is."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "["):
        return value
    try:
        return json.loads(value, object_pairs_hook=_only_once, parse_int=_Number, parse_float=_Number)
    except (ValueError, RecursionError):
        return value


def _only_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice")  # of which one would be hidden
    return found


def _within(lines: Iterator[str], most: int | None) -> Iterator[str]:
    length = 0
    for line in lines:
        yield line
        length += len(line) + 1
        if most is not None and length > most:
            return


def _line(value: Any) -> str:
    """The whole on one line; empty where that does not do."""
    parts = list[str]()
    if isinstance(value, Mapping) and value:
        if len(value) > _IN_A_LINE:
            return ""
        for name, part in _named(value):
            said = _few(part)
            if not said:
                return ""
            parts.append(f"{name}: {said}")
        line = ", ".join(parts)
    else:
        line = _few(value, inside=False)
    return line if len(line) <= _LINE else ""


def _few(value: Any, *, inside: bool = True) -> str:
    """One value, or a list of a few; empty where it holds more. `inside` other data a list has its ends marked."""
    if not isinstance(value, (Mapping, list, tuple)):
        return _one(value)
    if not value:
        return texts.load()("base.nothing")
    if isinstance(value, Mapping) or len(value) > _IN_A_LINE:
        return ""
    if any(isinstance(part, (Mapping, list, tuple)) for part in value):
        return ""
    listed = ", ".join(_one(part) for part in value)
    return f"({listed})" if inside else listed


def _block(value: Mapping[str, Any] | Sequence[Any], depth: int) -> Iterator[str]:
    """One name to a line; what does not fit there stands below it, further in."""
    if not isinstance(value, (Mapping, list, tuple)):
        yield _one(value)
        return
    indent, is_named = "  " * depth, isinstance(value, Mapping)
    for name, part in _named(value) if isinstance(value, Mapping) else enumerate(value):
        mark = f"{indent}{name}:" if is_named else f"{indent}–"
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


def _named(value: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Names as words, unless two of them would then be alike."""
    names = [str(name) for name in value]
    if len(names) < _MANY:
        worded = [_WITHIN.sub(" ", name) for name in names]
        names = worded if len(set(worded)) == len(names) else names
    return ((_marked(name), part) for name, part in zip(names, value.values(), strict=True))


def _one(value: Any) -> str:
    t = texts.load()
    if isinstance(value, bool) or value is None:
        return t("base.nothing" if value is None else "base.yes" if value else "base.no")
    if isinstance(value, _Number) or not isinstance(value, str):
        return str(value) if isinstance(value, _Number) else json.dumps(value, ensure_ascii=False, default=str)
    is_other = _NUMBER.fullmatch(value) or value in (t("base.nothing"), t("base.yes"), t("base.no"))
    return _marked(value, always=bool(is_other))


def _marked(text: str, *, always: bool = False) -> str:
    """The text, its ends marked where some of it could be taken for more than its text."""
    if not always and _PLAIN.fullmatch(text):
        return text
    begin, end = next((ends for ends in _ENDS if not any(end in text for end in ends)), _ENDS[0])
    return f"{begin}{text.translate(dict.fromkeys(map(ord, (begin, end)), chr(34)))}{end}"
