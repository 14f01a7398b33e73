"""What a draw is held to. The rate follows from the card and from what people found: `schedule/`."""

from dataclasses import dataclass
from datetime import timedelta

GRACE = timedelta(minutes=5)  # after a day's end before its key is revealed: clocks differ
KEEP_BEYOND = timedelta(days=2)  # runs are remembered for so much longer than the stream keeps their events
REMEMBERED = 200_000  # runs in memory, so that most events need no look into the database


@dataclass(frozen=True, slots=True)
class Policy:
    """`rate`: share of runs, 0 to 1."""

    rate: float
