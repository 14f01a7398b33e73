"""What drift is judged by. The defaults hold for every agent."""

from dataclasses import dataclass
from datetime import timedelta

from midwatch.contracts.governance import Severity
from midwatch.contracts.runs import Mode

TRACKS: tuple[Mode, ...] = (
    "live",
    "shadow",
    "replay",
)  # modes that are judged, each by itself; drills and evals are no customers
ALERTING: dict[Mode, Severity] = {"live": "ticket", "shadow": "info"}  # severity by mode; of a replay nobody is told
RULE = "drift"


@dataclass(frozen=True, slots=True)
class Policy:
    """`hour`: when a day is judged, UTC, on the day after. `least`: runs on either side below which nothing is said.
    `recent_days`: so many are put together at most until there are enough. `q`: share of findings that may be chance.

    `least_h` (Cohen's h), `least_d` (Kolmogorov-Smirnov's distance) and `least_ratio`: below them a change is a trifle,
    however certain; a tool or word has to be in `least_share` of the runs of one side. One is tested if its p could be
    `could_be` times less than `q`. A `rhythm` is what was likewise in so many of the four weeks before.
    """

    hour: int = 2
    baseline_days: int = 28
    recent_days: int = 7
    least: int = 20
    q: float = 0.01
    least_h: float = 0.2
    least_d: float = 0.15
    least_ratio: float = 1.1
    least_share: float = 0.05
    could_be: float = 100.0
    most_tools: int = 50
    most_words: int = 200
    rhythm: int = 2
    shown: int = 5  # runs of a finding
    most_said: int = 10  # findings of one cause, the largest effects first: a new topic is a hundred words
    most_recent: int = 2000  # runs that are compared; of more a fixed sample
    most_baseline: int = 4000
    catch_up: int = 7  # days that are judged after an outage
    keep: timedelta = timedelta(days=70)  # what is known of a run; findings stay
    language_least: int = 40  # letters
    language_sample: int = 600  # characters
    language_sure: float = 0.9
    words_sample: int = 20_000  # characters
    words_most: int = 200
    words_from: int = 5  # customers who wrote a word; one of fewer could tell who they are
    cost_most: float = 1e9  # US dollars of a run; what says more is no cost
    tools_kept: int = 100  # of one run
    name_kept: int = 128  # characters of a tool's name


POLICY = Policy()
