"""How long kill-switch waits for what. One policy for all agents; an instance's lease is its own word."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Policy:
    """Every wait, from the last sign of life unless said otherwise."""

    silent_after: timedelta = timedelta(seconds=2)  # presence comes each second: one may be lost
    limit: timedelta = timedelta(seconds=5)  # from the halt: what is not contained by then is reported
    grace: timedelta = timedelta(seconds=2)  # from containment: two clocks and a call under way may differ by so much
    idle_after: timedelta = timedelta(minutes=10)  # a run of an agent without presence is not in flight any more
    forget_after: timedelta = timedelta(hours=24)  # a vanished instance, or a run that nobody speaks of, is over
    prune_after: timedelta = timedelta(hours=1)  # from the write: the record of a finished run leaves the map
    keep: timedelta = timedelta(days=400)  # closed halts stay readable


POLICY = Policy()
