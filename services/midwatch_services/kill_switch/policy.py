"""How long kill-switch waits for what. One policy for all agents; an instance's lease is its own word."""

from dataclasses import dataclass
from datetime import timedelta

from .drills.drill_plan import SHAPE, Shape


@dataclass(frozen=True, slots=True)
class Policy:
    """Every wait, from the last sign of life unless said otherwise."""

    silent_after: timedelta = timedelta(seconds=2)  # presence comes each second: one may be lost
    limit: timedelta = timedelta(seconds=5)  # from the halt: what is not contained by then is reported
    not_armed_after: timedelta = timedelta(seconds=3.5)  # from the fault: who would not obey by then is paged
    armed_for: timedelta = timedelta(seconds=10)  # until a page is taken back: who comes and goes is paged once
    gone_after: timedelta = timedelta(minutes=15)  # silence of an instance whose runs are seen to, beside an armed one
    grace: timedelta = timedelta(seconds=2)  # from containment: two clocks and a call under way may differ by so much
    idle_after: timedelta = timedelta(minutes=10)  # a run of an agent without presence is not in flight any more
    forget_after: timedelta = timedelta(hours=24)  # a vanished instance, or a run that nobody speaks of, is over
    prune_after: timedelta = timedelta(hours=1)  # from the write: the record of a finished run leaves the map
    webhook_within: timedelta = timedelta(seconds=10)  # a help desk answers, or is asked again
    webhook_first: timedelta = timedelta(seconds=1)  # from a failure to the next attempt; doubled each time
    webhook_longest: timedelta = timedelta(hours=1)
    webhook_for: timedelta = timedelta(days=3)  # from the case: what a help desk has not taken by then is a dead letter
    accept_within: timedelta = timedelta(seconds=5)  # from the offer of a case to an agent
    begin_within: timedelta = timedelta(seconds=30)  # from its acceptance to the first event of the run that handles it
    lookback: timedelta = timedelta(minutes=10)  # where a run is sought of which it is not known when it began
    keep: timedelta = timedelta(days=400)  # closed halts and cases stay readable
    drill: Shape = SHAPE  # of a drill that begins by itself
    drill_look: timedelta = timedelta(seconds=10)  # between two looks at whether one is due


POLICY = Policy()
