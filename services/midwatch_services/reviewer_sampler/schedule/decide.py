"""Which share of an agent's runs is read: when it falls, and what brings it back. Pure.

Runs are drawn at different rates over time. They are counted unweighted all the same: whether a run is drawn does not
depend on how it ends, so each one drawn fails as often as those of its day do.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from math import sqrt
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from midwatch.contracts.reviews import RateCause

from .policy import LEAST_FAILS, LONGEST_VERSION, MANY_VERSIONS, RECENT, WEEK, Policy

Z = 1.959964  # of the normal distribution, for 95 % on both sides


class Counts(NamedTuple):
    """Verdicts that stand, on runs that were drawn. Who could not say counts for neither side. `pending`: runs that
    somebody judged and that wait for one more; `doubted`: those of them that somebody failed."""

    passed: int = 0
    failed: int = 0
    unsure: int = 0
    pending: int = 0
    doubted: int = 0

    @property
    def judged(self) -> int:
        return self.passed + self.failed

    @property
    def bounds(self) -> tuple[float, float]:
        """Of the failure rate."""
        return wilson(self.failed, self.judged)

    @property
    def worst(self) -> float:
        """The upper bound if each that is doubted failed. A pass stands by one word and a fail by two: without them the
        rate would fall by what is not known yet. A pass that is to be read twice is drawn so, whatever it is."""
        return wilson(self.failed + self.doubted, self.judged + self.doubted)[1]


class State(Struct, frozen=True, kw_only=True):
    """Where an agent stands. `zero`: when step 0 began; what is counted was drawn since. `since`: the UTC day from
    which this step holds. `heard`: of what brought it back, the newest. `day`: the last one that was judged. `number`:
    of changes. `judged`, `failed`, `upper`: what the last change was decided by. Times are Unix seconds."""

    rule: Policy
    began: float
    zero: float
    heard: float
    since: str
    day: str
    version: str
    versions: tuple[str, ...]
    step: int = 0
    number: int = 1
    cause: RateCause = "began"
    what: str = ""
    judged: int = 0
    failed: int = 0
    upper: float | None = None

    @property
    def rate(self) -> float:
        return self.rule.steps[self.step]


def wilson(hits: int, of: int) -> tuple[float, float]:
    """A share's bounds at 95 % (Wilson, Journal of the American Statistical Association 22, 1927); of nothing, all."""
    if not of:
        return 0.0, 1.0
    middle, width = (hits + Z * Z / 2) / (of + Z * Z), Z / (of + Z * Z) * sqrt(hits * (of - hits) / of + Z * Z / 4)
    return max(0.0, middle - width), min(1.0, middle + width)


def began(rule: Policy, version: str, at: float) -> State:
    """The agent's first live run: the first rate, from now on."""
    day, known = day_of(at), version[:LONGEST_VERSION]
    return State(
        rule=rule, began=at, zero=at, heard=at, since=day, day=before(day, 1), version=known, versions=(known,)
    )  # fmt: skip


def follow_card(state: State, rule: Policy) -> State:
    """The step stays, as far as the card still has it; its rate is the new card's."""
    if rule == state.rule:
        return state
    after = replace(state, rule=rule, step=min(state.step, len(rule.steps) - 1))
    if after.rate == state.rate and after.step == state.step:
        return after
    return replace(after, number=state.number + 1, cause="card", what="", judged=0, failed=0, upper=None)


def met_version(state: State, version: str, at: float) -> State:
    """A live run of that version began. One that was never seen brings the first rate back; of two that take turns, as
    in a canary, only the first run of each does."""
    version = version[:LONGEST_VERSION]
    if version in state.versions:
        return state
    known = replace(state, version=version, versions=(*state.versions, version)[-MANY_VERSIONS:])
    return _restarted(replace(known, heard=at), "version", version, at) if at > state.heard else known


def snapped(state: State, cause: RateCause, what: str, at: float) -> State:
    """Something happened at that time that brings the first rate back. What is older than the newest such thing has
    had its effect; on a day on which step 0 began, nothing more comes of it."""
    if at <= state.heard:
        return state
    heard = replace(state, heard=at)
    is_back = state.step == 0 and day_of(state.zero) == day_of(at)
    return heard if is_back else _restarted(heard, cause, what, at)


def evaluate(state: State, day: str, all_of: Counts, recent: Counts) -> State:
    """The UTC day is over. `all_of`: verdicts on what was drawn since `zero`; `recent`: of the last 28 days."""
    end = end_of(day)
    if day <= state.day:
        return state
    state = replace(state, day=day)
    if state.zero >= end:
        return state
    limit, after = state.rule.fail_limit, day_of(end)
    stood, upper = days_between(state.since, after), all_of.bounds[1]
    if state.step and recent.failed >= LEAST_FAILS and recent.bounds[0] > limit:
        back = _restarted(replace(state, heard=max(state.heard, end)), "failing", "", end)
        return replace(back, judged=recent.judged, failed=recent.failed, upper=recent.bounds[1])
    if state.step and upper >= limit and (state.cause != "loosened" or stood >= WEEK):
        return _moved(state, state.step - 1, "loosened", after, all_of)
    if state.step < len(state.rule.steps) - 1 and stood >= needed(state) and max(upper, all_of.worst) < limit:
        return _moved(state, state.step + 1, "tapered", after, all_of)
    return state


def needed(state: State) -> int:
    """Days at the step before the next one. Who came back by single steps has had the first days already."""
    is_first = state.step == 0 and state.since == day_of(state.zero)
    return state.rule.days if is_first else WEEK


def due(state: State, today: str) -> Iterator[str]:
    """The days that are over and not judged yet, the oldest first."""
    day = before(state.day, -1)
    while day < today:
        yield day
        day = before(day, -1)


def why(state: State, counts: Counts, today: str) -> str:
    """Why the rate does not fall today, in one sentence."""
    limit, stood, upper = state.rule.fail_limit, days_between(state.since, today), counts.bounds[1]
    if state.step == len(state.rule.steps) - 1:
        return "It is at the last rate of its taper."
    if not counts.judged:
        none = f"None of the runs drawn since {day_of(state.zero)} has"
        return f"{none} a verdict that stands." if counts.pending else f"{none} been judged."
    if upper >= limit:
        shares = f"it may fail in up to {upper:.1%}, which is not under {limit:.1%}"
        return f"{counts.failed} of {counts.judged} judged runs failed: {shares}."
    if counts.worst >= limit:
        # Not how many were failed: whoever reads them next is not to know.
        waits = f"{counts.pending} {'waits' if counts.pending == 1 else 'wait'} for one more person"
        return f"{waits}, and could hold it: it is known once they are settled."
    if left := max(0, needed(state) - stood):
        return f"This rate holds for {needed(state)} days: {left} {'is' if left == 1 else 'are'} left."
    return "It falls when today is over, unless a verdict changes that."


def _restarted(state: State, cause: RateCause, what: str, at: float) -> State:
    return replace(
        state, step=0, zero=at, since=day_of(at), cause=cause, what=what, number=state.number + 1, judged=0, failed=0,
        upper=None,
    )  # fmt: skip


def _moved(state: State, step: int, cause: RateCause, since: str, counts: Counts) -> State:
    return replace(
        state, step=step, since=since, cause=cause, what="", number=state.number + 1, judged=counts.judged,
        failed=counts.failed, upper=counts.bounds[1],
    )  # fmt: skip


# Days


def day_of(at: float) -> str:
    """The UTC day of a time."""
    return datetime.fromtimestamp(at, UTC).date().isoformat()


def end_of(day: str) -> float:
    """When the UTC day is over."""
    return datetime.combine(date.fromisoformat(day) + timedelta(days=1), datetime.min.time(), UTC).timestamp()


def recent_from(day: str) -> float:
    """When the stretch begins whose runs can prove that the agent fails."""
    return end_of(day) - RECENT * 86_400


def before(day: str, days: int) -> str:
    """The day so many days before."""
    return (date.fromisoformat(day) - timedelta(days=days)).isoformat()


def days_between(first: str, last: str) -> int:
    return (date.fromisoformat(last) - date.fromisoformat(first)).days
