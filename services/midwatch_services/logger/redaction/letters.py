"""Signs that people and models write in place of ASCII ones, so that a number is found however it is written."""

import re
import sys
import unicodedata


def _digits() -> dict[int, str]:
    found = {}
    # Unicode has the digits of a script in one row from 0 to 9, so that every tenth sign meets each row once.
    for code in range(0x80, sys.maxunicode + 1, 10):
        value = unicodedata.decimal(chr(code), None)
        if value is not None:
            found.update({code - value + digit: str(digit) for digit in range(10)})
    return found


_DASHES = "\u00ad\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"
_SPACES = "\u00a0\u1680\u202f\u205f\u2060\u3000\ufeff" + "".join(map(chr, range(0x2000, 0x200E)))
_SIGNS = {0xFF20: "@", 0xFE6B: "@", 0xFF0E: ".", 0xFF0B: "+", 0xFF08: "(", 0xFF09: ")", 0xFF05: "%"}

# One sign for one sign, so that a place in the plain text is the same place in the text.
_RARE = {
    **_digits(),
    **_SIGNS,
    **{code: chr(code - 0xFEE0) for code in (*range(0xFF21, 0xFF3B), *range(0xFF41, 0xFF5B))},
}
_PLAIN = {**_RARE, **{ord(sign): "-" for sign in _DASHES}, **{ord(sign): " " for sign in _SPACES}}
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")


def digits_plain(text: str) -> str:
    """The text with every digit, and every full-width sign, as ASCII writes it; as long as before."""
    return text if text.isascii() else text.translate(_RARE)


def plain(text: str) -> str:
    """The same, and dashes and spaces as well."""
    return text if text.isascii() else text.translate(_PLAIN)


def unescaped(text: str) -> str:
    """The text with `\\u0040` and the like as the signs that they stand for: JSON within a text, cut short or not."""
    if "\\u" not in text:
        return text
    return _ESCAPE.sub(lambda found: _sign(int(found[1], 16)), text)


def _sign(code: int) -> str:
    return "\ufffd" if 0xD800 <= code < 0xE000 else chr(code)


def rare() -> bytes:
    """A pattern for bytes of UTF-8 that holds one of the signs that `digits_plain` replaces."""
    by_head: dict[bytes, set[int]] = {}
    for code in _RARE:
        *head, last = chr(code).encode()
        by_head.setdefault(bytes(head), set()).add(last)
    return b"|".join(
        b"".join(b"\\x%02x" % one for one in head) + b"[" + b"".join(b"\\x%02x" % one for one in sorted(lasts)) + b"]"
        for head, lasts in sorted(by_head.items())
    )
