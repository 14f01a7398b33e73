"""What retention goes by: the scope card's `log.keep`, and MIDWATCH_KEEP_DAYS for agents without a card."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

from midwatch.contracts.control import Card
from midwatch.errors import MidwatchError
from midwatch.runtime.settings import Settings

LEAST = timedelta(days=183)  # six months: Regulation (EU) 2024/1689, Article 26(6)

KeepOf = Callable[[str], timedelta]


class KeepTooShort(MidwatchError):
    """MIDWATCH_KEEP_DAYS is {days:g}, which is less than the six months that the EU AI Act's Article 26 asks for: set
    it to 183 or more."""


@dataclass(frozen=True)
class Keeping:
    """`events`, `runs`: the most that one transaction removes. `rest`: seconds of rest for each second of writing, in
    which the logger writes. `beyond`: how far past the newest stored event a clock is believed. `leap`: how far a pass
    counts beyond the one before without being asked by a person."""

    every: float = 3600.0  # seconds
    look: float = 60.0  # seconds between two looks at whether a pass is due: the first is soon after the start
    events: int = 1000
    runs: int = 200
    window: int = 20_000  # places that are looked through for what lies between those removed
    rest: float = 9.0
    least_rest: float = 0.02  # seconds
    beyond: timedelta = timedelta(days=1)
    leap: timedelta = timedelta(days=31)
    lock_seconds: float = 0.2  # that the drop of a partition may keep others waiting
    lock_attempts: int = 20


KEEPING = Keeping()


def by_card(cards: Callable[[], Iterable[Card]]) -> Callable[[str], timedelta | None]:
    """What an agent's card says of how long its runs are kept; None for an agent without one."""

    def find(agent: str) -> timedelta | None:
        card = next((card for card in cards() if card.agent == agent), None)
        return timedelta(seconds=card.log.keep) if card else None

    return find


def check(settings: Settings) -> None:
    """Raises KeepTooShort."""
    if settings.keep_days < LEAST.days:
        raise KeepTooShort(days=settings.keep_days)


def keep_of(settings: Settings, by_card: Callable[[str], timedelta | None]) -> KeepOf:
    """How long each agent's runs are kept; None of `by_card` stands for an agent without a card. Raises KeepTooShort.

    What the stream still holds is never removed: read again, it would come back.
    """
    check(settings)
    without_card = timedelta(days=settings.keep_days)
    least = max(LEAST, timedelta(days=settings.runs_max_age_days))

    def keep(agent: str) -> timedelta:
        return max(least, by_card(agent) or without_card)

    return keep
