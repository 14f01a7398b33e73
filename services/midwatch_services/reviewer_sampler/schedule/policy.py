"""What a schedule is held to: the card's word on reviews."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

from msgspec import Struct

from midwatch.contracts.control import BesidesRule, ReviewRule

WEEK = 7  # days at a rate before the next of the taper, and between two single steps back
RECENT = 28  # days whose runs can prove that the agent fails
LEAST_FAILS = 2  # of them: of few runs, one that failed would prove anything by its bound alone
MANY_VERSIONS = 500  # that are remembered of an agent
LONGEST_VERSION = 200  # characters of one

MEDIAN_OF = 50  # judgements, the newest, whose median is what one takes
LEAST = 10  # of them, below which it is taken to be `USUAL`
USUAL = 180.0  # seconds

LOOK_BACK = 7  # days since which a run began whose cost is looked at, and since which an alert asks for its run
AGEING = "review_ageing"  # rule of the alert on runs that wait too long


class Policy(Struct, frozen=True):
    """`steps`: the rates, the first one and its taper. `minutes`: a day, 0 for no limit. `age`: seconds."""

    steps: tuple[float, ...]
    days: int
    fail_limit: float
    minutes: int
    age: float


@dataclass(frozen=True, slots=True)
class Besides:
    """`cost`: US dollars. `complaint`: the word in a text that is one, None where there is none."""

    alerts: bool
    hand_offs: bool
    cost: Decimal | None
    tools: frozenset[str]
    complaint: Callable[[str], str | None]


def of(rule: ReviewRule) -> Policy:
    """The schedule that a card asks for."""
    return Policy(rule.steps, rule.days, rule.fail_limit, rule.minutes_a_day, rule.age)


def besides(rule: BesidesRule) -> Besides:
    """What a card wants read besides the draw."""
    words = tuple(word.casefold() for word in rule.complaints)
    # Longest first: of two words that begin alike the whole one is named.
    ordered = sorted(words, key=lambda word: (-len(word), word))
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, ordered))})(?!\w)") if words else None
    cost = None if rule.cost is None else Decimal(rule.cost)
    return Besides(rule.alerts, rule.hand_offs, cost, frozenset(rule.tools), partial(_complaint, words, pattern))


def _complaint(words: tuple[str, ...], pattern: re.Pattern[str] | None, text: str) -> str | None:
    folded = text.casefold()
    # Most texts hold none: a search for each word is many times faster than the pattern.
    if pattern is None or not any(word in folded for word in words):
        return None
    found = pattern.search(folded)
    return found.group() if found else None
