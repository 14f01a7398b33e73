"""What the logger goes by. Nothing of it is the scope card's: every event is kept."""

from dataclasses import dataclass, field
from datetime import timedelta

from midwatch.contracts.runs import Mode


@dataclass(frozen=True)
class Policy:
    """`clock_tolerance`: how far an event's time may be from the server's before the log says so."""

    clock_tolerance: timedelta = timedelta(minutes=5)
    clock_modes: frozenset[Mode] = field(default_factory=lambda: frozenset(("live", "shadow")))
    largest_count: int = 10**12  # tokens, or microseconds, of one call; more is cut to it
    batch: int = 1000


POLICY = Policy()
