"""On which day there is time for each run that waits: nothing is dropped, and nothing starves. Pure."""

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from statistics import median
from typing import NamedTuple

from .decide import before
from .policy import LEAST, MEDIAN_OF, USUAL


class Item(NamedTuple):
    """A run that waits. `cause`: empty where it was drawn. `at`: since when, Unix seconds. `need`: judges it wants."""

    run_id: str
    cause: str
    at: float
    need: int
    due_day: str


def seconds_each(newest_first: Sequence[float]) -> float:
    """What one judgement takes: the median of the last, which somebody who went to lunch does not move."""
    return median(newest_first[:MEDIAN_OF]) if len(newest_first) >= LEAST else USUAL


def cap(minutes: int, seconds: float) -> int | None:
    """Judgements for which a day has time, at least one; None where there is no limit."""
    return max(1, int(minutes * 60 / max(seconds, 1.0))) if minutes else None


def plan(items: Sequence[Item], today: str, cap: int | None, done: int = 0) -> dict[str, str]:
    """The day of each run (by id). `done`: judgements of today, whose time is spent."""
    day, left, is_bare = today, 0 if cap is None else cap - done, True
    found: dict[str, str] = {}
    for item in order(items):
        # One that wants more judges than a day has time for gets a day of its own.
        while cap is not None and item.need > left and not (is_bare and left == cap):
            day, left, is_bare = before(day, -1), cap, True
        found[item.run_id] = day
        left, is_bare = left - item.need, False
    return found


def order(items: Sequence[Item]) -> Iterator[Item]:
    """Who comes first: one that was drawn and one that was not take turns, the latter by their causes in turn; of each
    the oldest first."""
    by_cause: dict[str, list[Item]] = {}
    for item in sorted(items, key=lambda item: (item.at, item.run_id)):
        by_cause.setdefault(item.cause, []).append(item)
    drawn = by_cause.pop("", [])
    yield from _turns(drawn, list(_turns(*(by_cause[cause] for cause in sorted(by_cause)))))


def _turns(*queues: Sequence[Item]) -> Iterator[Item]:
    return (item for some in zip_longest(*queues) for item in some if item is not None)
