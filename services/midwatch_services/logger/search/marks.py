"""What a run is found by beside its words, as words of their own that nobody can write. Pure.

A mark begins with `§`, which is in no word, and goes on with a letter for its kind and the digest of its value. Figures
go by brackets, each half as wide again as the one before, so that "over" and "under" are a few marks; the run's own
figure decides at the edge. Hours, and spans of 16 and more of them, let PostgreSQL look at the newest runs first.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from math import isqrt

EVERY = "§"  # in each reading, and between its parts, so that no phrase reaches over them
LEVELS = (1, 16, 256, 4096)  # hours
_SLOTS = 1024  # runs of one microsecond
_HOUR = 3_600_000_000 * _SLOTS
_FAR = 2**52  # microseconds: the years 1827 to 2112
_SPREAD = (_SLOTS, _SLOTS * 1_000, _SLOTS * 1_000_000)
_START = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
SLACK = _SPREAD[-1]  # how far a number may be from where its time alone would put it
_LARGEST_BRACKET = 2 * 60


def mark(kind: str, value: str) -> str:
    """The mark of a value of one kind; a kind is one letter."""
    return f"§{kind}{blake2b(value.encode(errors='replace'), digest_size=8).hexdigest()}"


def bracket(figure: int) -> int:
    """The bracket of a figure: two for each power of two."""
    if figure <= 1:
        return 0
    power = figure.bit_length() - 1
    return min(2 * power + (figure >= isqrt(1 << (2 * power + 1))), _LARGEST_BRACKET)


def in_bracket(kind: str, figure: int) -> str:
    """The mark of a figure."""
    return f"§{kind}{bracket(figure)}"


def brackets(kind: str, at_least: int | None, at_most: int | None) -> list[str]:
    """The marks of all figures from one to another."""
    first = 0 if at_least is None else bracket(at_least)
    last = _LARGEST_BRACKET if at_most is None else bracket(at_most)
    return [f"§{kind}{at}" for at in range(first, last + 1)]


def number(first_at: str, agent: str, run_id: str, attempt: int = 0) -> int:
    """The number of a run's reading: in the order of time. Another `attempt` gives another of about the same time."""
    spread = _SPREAD[min(attempt, len(_SPREAD) - 1)]
    key = f"{attempt}/{agent}/{run_id}".encode(errors="replace")
    return least(first_at) + int.from_bytes(blake2b(key, digest_size=8).digest()) % spread


def least(time: str) -> int:
    """The least number of a run that began at a time, which is text as the log writes it."""
    micros = (datetime.fromisoformat(time) - _START) // _MICROSECOND
    return max(-_FAR, min(micros, _FAR)) * _SLOTS


def hour(number: int) -> int:
    """The hour, counted from 1970, in which a reading's number lies."""
    return number // _HOUR


def least_of_hour(hour: int) -> int:
    return hour * _HOUR


def hours_of(number: int) -> list[str]:
    """The marks of the hour of a reading, and of the longer spans that it is in."""
    at = hour(number)
    return [f"§h{level}x{_positive(at // span)}" for level, span in enumerate(LEVELS)]


def span_of_hours(first: int, last: int) -> Iterator[str]:
    """The fewest marks that all hours from the first to the last have, and no other hour."""
    at = first
    while at <= last:
        level = max(one for one, span in enumerate(LEVELS) if at % span == 0 and at + span - 1 <= last)
        yield f"§h{level}x{_positive(at // LEVELS[level])}"
        at += LEVELS[level]


def _positive(count: int) -> int:
    return count + 2**31  # a sign would end the word
