"""Patterns that people write into cards: a part of RE2's syntax that every engine reads alike, in linear time."""

import re2  # type: ignore[import-untyped]

LONGEST = 200  # characters
_PROBES = ("", "a", " a1 ", "-")
_ESCAPES = "dDwWsSbtnr"
_options = re2.Options()
_options.log_errors = False
_options.max_mem = 1 << 20


def compiled(pattern: str) -> "re2._Regexp[str]":
    """The pattern, ready to search texts. Raises ValueError with what to write instead."""
    check(pattern)
    return re2.compile(pattern, _options)


def check(pattern: str) -> None:
    """Raises ValueError, with what to write instead, for a pattern that the run log does not search by."""
    if len(pattern) > LONGEST:
        raise ValueError(f"has {len(pattern)} characters: at most {LONGEST}; split it into two rules")
    if not pattern.isprintable():
        raise ValueError(r"holds control characters: write \n or \t")
    _refuse_syntax(pattern)
    try:
        found = re2.compile(pattern, _options)
    except re2.error as error:
        why = error.args[0]
        text = why.decode("utf-8", "replace") if isinstance(why, bytes) else str(why)
        if "too large" in text:
            raise ValueError("is too large to be searched quickly: use smaller repetitions, such as {1,20}") from None
        raise ValueError(f"is no pattern that can be searched ({text}): escape signs that are meant as such") from None
    if any((match := found.search(probe)) and match.end() == match.start() for probe in _PROBES):
        raise ValueError("can match the empty text: use + instead of *, or name at least one sign")


def _refuse_syntax(pattern: str) -> None:
    place, in_class = 0, False
    while place < len(pattern):
        sign, rest = pattern[place], pattern[place:]
        if sign == "\\":
            follower = pattern[place + 1 : place + 2]
            if follower.isalnum() and follower not in _ESCAPES:
                raise ValueError(f"holds \\{follower}, which is not supported: use \\d, \\w, \\s, \\b or [...]")
            place += 2
            continue
        if in_class:
            if sign == "[" or rest.startswith(("&&", "--", "~~")):
                raise ValueError(f"holds an unescaped {sign} inside [...]: write \\{sign}")
            in_class = sign != "]"
        elif sign == "[":
            in_class = True
            place += 1 + rest[1:].startswith("^") + (rest[1:].lstrip("^")[:1] == "]")
            continue
        elif sign in "^$":
            raise ValueError(f"holds {sign}: leave it out, a text is searched anywhere; \\b is the edge of a word")
        elif rest.startswith("(?") and not (rest.startswith("(?:") or (rest.startswith("(?i)") and place == 0)):
            raise ValueError("holds (?…, which is not supported: only (?:…) is, and (?i) at its beginning")
        place += 1
