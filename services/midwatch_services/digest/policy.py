"""What a digest goes by: how long it may be, whose day it tells of, and when that is written."""

from dataclasses import dataclass
from datetime import time, timedelta

WORDS = 2000  # ten minutes at 200 words a minute
BACK = 2  # days for which what was missed is still written
WEEK = 7  # days that a day is held against
SAMPLES = 3  # runs named for a sentence that speaks of more
QUOTED = 1000  # runs noted for words of theirs; what more of them say alike is of no one customer
TOOLS_OF = 300  # runs of a day of which the tools are looked at, when runs are chosen to be read
PATIENCE = timedelta(hours=3)  # after the hour, for which a log that is behind is waited for
STILL = timedelta(days=7)  # for which a run without an end is told of


@dataclass(frozen=True, slots=True)
class Policy:
    """`words`: at most so many. `least`: runs on either side below which nothing is compared. `cases`, `agents` and
    `reading`: how many of each are told one by one."""

    words: int = WORDS
    zone: str = "UTC"
    at: time = time(7)
    least: int = 30
    cases: int = 8
    agents: int = 15
    reading: int = 25


POLICY = Policy()
