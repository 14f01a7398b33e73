"""Replaces in texts, values and bodies what the rules name. Pure: the same input gives the same output, and its own
output gives itself.

A body is JSON: whatever could match in it is looked for in the decoded strings, keys and numbers of `data`, in JSON
within such strings as well, so that no way of writing them hides anything.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from . import keys, letters
from .candidates import ALL
from .kinds import is_hint, is_number
from .rules import Finder, Rules, spans, spellings

# Fields of `data` that are no text: ids, names, figures. `customer` is a reference, by which a customer is erased.
KEPT = frozenset({
    "run_id", "agent", "version", "mode", "seq", "ticket", "session", "customer", "provider", "model", "usage",
    "cost_usd", "estimate_usd", "latency_ms", "finish_reason", "response_id", "reservation", "call_id", "tool", "kind",
    "undo", "to", "key", "epoch", "own", "resolution", "halted_by", "truncated", "full_lengths",
})  # fmt: skip
WITHHELD = "[withheld]"  # in place of what could not be looked through
_ROUNDS = 200  # each leaves less of a text to be looked at
_NESTED = 8  # JSON within JSON, so deep
_BIG = 10**6
_ESCAPES = (
    (b"\\\\", b"\x01"), (b'\\"', b'"'), (b"\\/", b"/"), (b"\\n", b"\n"), (b"\\t", b"\t"), (b"\\r", b"\r"),
    (b"\\b", b"\b"), (b"\\f", b"\f"), (b"\x01", b"\\"),
)  # fmt: skip
# Where a sender's fields stand in the order of the SDK: ids of hex digits, in which numbers would be seen.
_HEAD = re.compile(
    rb'"data":\{"run_id":"[^"\\]*","agent":"[^"\\]*","version":"[^"\\]*","mode":"[^"\\]*","seq":\d+'
    rb'(?:,"ticket":"[^"\\]*")?(?:,"session":"[^"\\]*")?'
)
# A short text without any of these holds nothing that is known by name.
_TELLING = re.compile(r"[@%\\0-9\x80-\U0010ffff]")
_DIGITS = re.compile(r"[@%\\\x80-\U0010ffff]|[0-9](?:[^0-9]*[0-9]){3}")
_SHORT = 64
_JSON_STARTS = tuple('{["')


@dataclass(frozen=True, slots=True)
class Replaced:
    """What one rule replaced: the rule's name, and the text that stood there."""

    name: str
    text: str


class Redactor:
    """The rules of one agent. Without `sealing` keys a reversible rule is applied for good."""

    def __init__(
        self, rules: Rules, agent: str, sealing: keys.Keys | None = None,
        on_replaced: Callable[[Replaced], None] | None = None,
    ) -> None:  # fmt: skip
        self._rules, self._agent, self._keys, self._told = rules, agent, sealing, on_replaced
        names = "|".join(map(re.escape, (*rules.names, "withheld")))
        self._done = re.compile(rf"\[(?:{names})\]|\[#\d{{1,4}}\]|{keys.TOKEN}")
        self._off = not rules.finders and not rules.fields

    def body(self, body: bytes) -> bytes:
        """The body of a run event as it is stored. The very same object where nothing in it could match."""
        if self._off or not self._could(body):
            return body
        event = msgspec.json.decode(body)
        self._walk(event["data"], KEPT, 0)
        # Encoded anew even if nothing was replaced: a key that stands twice has one value that was not looked at.
        return msgspec.json.encode(event)

    def text(self, text: str) -> str:
        """A text with what the rules name replaced."""
        return text if self._off else self._text(text, 0)

    def value(self, value: Any) -> Any:
        """A value as JSON decodes to it, with what the rules name replaced in it."""
        holder = [value]
        if not self._off:
            self._walk(holder, frozenset(), 0)
        return holder[0]

    # Which

    def _could(self, body: bytes) -> bool:
        start = body.find(b'"data"')
        # Where the key itself is written with escapes, or `data` is not where it is looked for, all is looked at.
        if start < 0:
            return True
        head = _HEAD.match(body, start)
        return self._mask(body[head.end() if head else start :]) != 0

    def _mask(self, raw: bytes) -> int:
        if b"\\" not in raw:
            return self._rules.scan(raw)
        if b"\\u" in raw:
            return ALL
        mask = 0
        for _ in range(_NESTED):
            for written, meant in _ESCAPES:
                if written in raw:
                    raw = raw.replace(written, meant)
            mask |= self._rules.scan(raw)
            if b"\\" not in raw:
                break
        return mask

    # Values

    def _walk(self, root: Any, kept: frozenset[str], depth: int) -> bool:
        """Replaces within a dict or list, in place. Returns whether anything was."""
        changed, waiting, outermost = False, [root], True
        while waiting:
            one = waiting.pop()
            if isinstance(one, dict):
                changed |= self._dict(one, waiting, kept if outermost else frozenset(), depth, outermost and bool(kept))
            else:
                for place, value in enumerate(one):
                    if isinstance(value, (dict, list)):
                        waiting.append(value)
                    elif (new := self._leaf(value, None, depth)) is not value:
                        one[place], changed = new, True
            outermost = False
        return changed

    def _dict(
        self, one: dict[str, Any], waiting: list[Any], kept: frozenset[str], depth: int, of_event: bool
    ) -> bool:  # fmt: skip
        changed, renamed, fields = False, False, self._rules.fields
        names: dict[str, str] = {}
        for key, value in one.items():
            if key in kept:
                continue
            rule = fields.get(key.lower()) if fields and not of_event else None
            if rule is not None:
                new = self._whole(rule, value)
            elif isinstance(value, (dict, list)):
                waiting.append(value)
                new = value
            else:
                new = self._leaf(value, key, depth)
            if new is not value:
                one[key], changed = new, True
            if not of_event and (name := self._text(key, depth)) != key:
                names[key], renamed = name, True
        if renamed:
            _rename(one, names)
        return changed or renamed

    def _whole(self, rule: tuple[str, bool], value: Any) -> Any:
        name, reversible = rule
        if value is None or (isinstance(value, str) and self._is_done(value)):
            return value
        return self._instead(name, reversible, value if isinstance(value, str) else msgspec.json.encode(value).decode())

    def _leaf(self, value: Any, key: str | None, depth: int) -> Any:
        if isinstance(value, str):
            new = self._text(value, depth)
            if new is value and key is not None and self._rules.phones and self._is_phone(key, value):
                return self._instead("phone", self._rules.phones.reversible, value)
            return new
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return value
        return self._number(value, key, depth)

    def _number(self, value: int | float, key: str | None, depth: int) -> Any:
        if isinstance(value, float):
            if not value.is_integer() or abs(value) < _BIG:
                return value
            text = f"{value:.0f}"
        elif self._rules.least > 1 and -_BIG < value < _BIG:
            return value
        else:
            text = str(value)
        new = self._text(text, depth)
        if new == text and key is not None and self._rules.phones and self._is_phone(key, text):
            return self._instead("phone", self._rules.phones.reversible, text)
        return value if new == text else new

    def _is_phone(self, key: str, text: str) -> bool:
        return len(text) < 60 and text[-1:].isdigit() and is_number(letters.plain(text)) and is_hint(key)

    # Texts

    def _text(self, text: str, depth: int) -> str:
        for _ in range(_ROUNDS):
            if len(text) < self._rules.least or (
                len(text) <= _SHORT and self._rules.least > 1 and not (_TELLING.search(text) and _DIGITS.search(text))
            ):
                break
            mask = self._mask(b'"%b"' % text.encode("utf-8", "replace"))
            if not mask:
                break
            new = self._nested(text, depth) if depth < _NESTED and text.lstrip().startswith(_JSON_STARTS) else text
            if new is text:
                new = self._replace(text, mask)
            if new == text:
                break
            text = new
        return text

    def _nested(self, text: str, depth: int) -> str:
        try:
            holder = [msgspec.json.decode(text)]
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return text
        if not isinstance(holder[0], (dict, list, str)) or not self._walk(holder, frozenset(), depth + 1):
            return text
        return msgspec.json.encode(holder[0]).decode()

    def _replace(self, text: str, mask: int) -> str:
        meant = letters.unescaped(text)
        plain, digits = spellings(meant)
        # Places of `meant` in order, each with what stands there instead, or None for as it is.
        pieces = self._pieces(meant)
        count = len(pieces)
        for finder in self._rules.finders:
            if mask & finder.bit:
                pieces = self._found(finder, pieces, meant, plain, digits)
            if len(pieces) > count:
                break  # what is left is scanned anew: it may begin or end otherwise now
        else:
            return text
        return "".join(meant[start:end] if new is None else new for start, end, new in pieces)

    def _pieces(self, text: str) -> list[tuple[int, int, str | None]]:
        if "[" not in text:
            return [(0, len(text), None)]
        pieces: list[tuple[int, int, str | None]] = []
        last = 0
        for found in self._done.finditer(text):
            if self._is_done(found[0]):
                pieces += [(last, found.start(), None), (found.start(), found.end(), found[0])]
                last = found.end()
        pieces.append((last, len(text), None))
        return pieces

    def _found(
        self, finder: Finder, pieces: list[tuple[int, int, str | None]], text: str, plain: str, digits: str
    ) -> list[tuple[int, int, str | None]]:  # fmt: skip
        split: list[tuple[int, int, str | None]] = []
        for start, end, new in pieces:
            if new is not None:
                split.append((start, end, new))
                continue
            last = start
            for begin, stop in spans(finder, plain[start:end], digits[start:end]):
                begin, stop = start + begin, start + stop
                split.append((last, begin, None))
                split.append((begin, stop, self._instead(finder.name, finder.reversible, text[begin:stop])))
                last = stop
            split.append((last, end, None))
        return split

    def _is_done(self, text: str) -> bool:
        found = self._done.fullmatch(text)
        if not found:
            return False
        return found["sealed"] is None or (self._keys is not None and self._keys.open(text, self._agent) is not None)

    def _instead(self, name: str, reversible: bool, text: str) -> str:
        if self._told:
            self._told(Replaced(name, text))
        return self._keys.seal(name, self._agent, text) if reversible and self._keys else f"[{name}]"


def _rename(one: dict[str, Any], names: dict[str, str]) -> None:
    """Gives keys their new names, in place and order; one that is there already gets a number."""
    items, taken = list(one.items()), {key for key in one if key not in names}
    one.clear()
    for key, value in items:
        name = new = names.get(key, key)
        count = 1
        while key in names and new in taken:
            count += 1
            new = f"{name}[#{count}]"
        taken.add(new)
        one[new] = value
