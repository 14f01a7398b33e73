"""One scan over the bytes of an event that says which rules could match in it, so that most events cost nothing more.

A scan may name a rule that does not match; it never leaves out one that does. RE2 goes through 2 KB in about two
microseconds, whatever the number of rules; `re` takes some fifty times as long.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import re2  # type: ignore[import-untyped]

from . import letters
from .kinds import COUNTRIES

ALL = -1  # every rule
_S = rb"[ \t./()\\\x80-\xff-]{0,6}"  # what may stand between two digits, in bytes of UTF-8
_EDGE = rb"[^0-9A-Za-z]"
_HINT = (
    rb"(?i:phone|mobile|whatsapp|telefon|fax|sms|(?:tel|cell)[^a-z]|(?:call|text|reach) (?:me|us))"
    rb"|[Tt]el[A-Z]|[Cc]ell[A-Z]"
)
_NEAR = rb"[^0-9]{0,100}(?:[0-9]{1,2}[^0-9]{1,20})?"
_KINDS: dict[str, tuple[bytes, ...]] = {
    "email": (rb"@|%40",),
    "card": (_EDGE + rb"[2-9](?:" + _S + rb"[0-9]){12}",),
    "iban": (_EDGE + b"(?i:" + "|".join(COUNTRIES).encode() + rb")[0-9]{2}(?:" + _S + rb"[0-9A-Za-z]){11}",),
    "phone": (
        _EDGE + rb"\+[1-9](?:" + _S + rb"[0-9]){6}",
        _EDGE + rb"00[1-9](?:" + _S + rb"[0-9]){6}",
        _EDGE + rb"[0-9]{3}[ \t./)\x80-\xff-]{1,12}[0-9]{3}[ .\x80-\xff-]{1,6}[0-9]{4}",
        _EDGE + rb"0(?:" + _S + rb"[0-9]){8}",
        rb"(?:" + _HINT + rb")" + _NEAR + rb"[0-9](?:" + _S + rb"[0-9]){6}",
    ),
}  # fmt: skip

Scan = Callable[[bytes], int]  # the bits of the rules that could match in some bytes


class Wanted(NamedTuple):
    """A rule as a scan knows it: the bit that says it could match, and the kind, pattern or key that it goes by."""

    bit: int
    kind: str | None = None
    pattern: str | None = None
    field: str | None = None


def scanner(wanted: Sequence[Wanted]) -> Scan:
    """A scan for the rules: all of them as one pattern, and only where that matches, which of them."""
    known = [pattern for one in wanted for pattern in _bytes_of(one)]
    first = [_search(known)] if known else []
    own = [one for one in wanted if one.pattern is not None]
    if own:
        first.append(_search([str(one.pattern).encode() for one in own], utf8=True))
    each = [(one.bit, _search(_bytes_of(one))) for one in wanted if one.pattern is None]
    each += [(one.bit, _search([str(one.pattern).encode()], utf8=True)) for one in own]
    rare = _search([letters.rare()])

    def scan(data: bytes) -> int:
        if not data.isascii() and rare(data):
            return ALL
        for search in first:
            if search(data):
                break
        else:
            return 0
        mask = 0
        for bit, search in each:
            if search(data):
                mask |= bit
        return mask

    return scan


def _bytes_of(one: Wanted) -> tuple[bytes, ...]:
    if one.field is not None:
        return (rb"(?i:" + re.escape(one.field).encode() + rb")",)
    return _KINDS[one.kind] if one.kind else ()


def _search(patterns: Iterable[bytes], *, utf8: bool = False) -> Callable[[bytes], Any]:
    options = re2.Options()
    options.max_mem = 64 << 20
    options.never_capture = True
    options.log_errors = False
    if not utf8:
        options.encoding = re2.Options.Encoding.LATIN1
    whole = b"|".join(b"(?:" + pattern + b")" for pattern in patterns)
    # Not RE2's sets: one that runs out of memory says that nothing matches. This falls back to a slower way.
    search: Callable[[bytes], Any] = re2.compile(whole, options).search
    return search
