"""What changed since the week before, by counts that are large enough to say so. Pure."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from math import sqrt
from statistics import median_low

from . import words
from .facts import Facts, Run, Sentence, Totals
from .policy import WEEK, Policy

_SURE = 2.58  # standard deviations: one in a hundred by chance
_POINTS = 0.02  # of a share: less is told as no change, however sure
_RATIO = 1.2  # of a cost or a time
_SHARES = (
    ("resolved", "The share of runs that the agent settled"), ("handed_off", "The share of runs handed over"),
    ("failed", "The share of runs that failed"), ("abandoned", "The share of runs that broke off"),
)  # fmt: skip


def tell(facts: Facts, policy: Policy) -> Iterator[Sentence]:
    """How the day compares with the seven days before it, and what the search for drift found."""
    if facts.runs:
        yield from _compared(facts, policy)
    for change in facts.changes:  # where the findings of the service `drift` come in
        text = change.sentence
        yield words.of_keys(text, change.runs) if change.runs else words.of_day(text, facts.agent, facts.day)
    if facts.agent is None:
        yield from _agents(facts.runs, policy)


def _compared(facts: Facts, policy: Policy) -> Iterator[Sentence]:
    past, runs = facts.past.whole, facts.runs
    if not past.runs:
        text = "There were no runs in the seven days before, so there is nothing to compare with."
        yield words.of_day(text, facts.agent, facts.day)
        return
    yield _volume(facts, past)
    if len(runs) < policy.least or past.runs < policy.least:
        few = f"{words.many(len(runs), 'run')} against {words.many(past.runs, 'run')} in the seven days before"
        yield words.about_runs(f"{words.upper(few)} are too few runs to say more.", runs)
        return
    for resolution, what in _SHARES:
        mine = [run for run in runs if run.resolution == resolution]
        theirs = past.resolutions.get(resolution, 0)
        if mine or theirs:
            yield _share(what, mine, runs, theirs, past.runs)
    yield _cost(runs, past, policy)
    yield from _speed(runs, facts.past.seconds, policy)


def _volume(facts: Facts, past: Totals) -> Sentence:
    count, before = len(facts.runs), [one.runs for one in facts.past.days]
    weekday = f"{facts.day - timedelta(days=WEEK):%A}"
    a_day = f"{past.runs / WEEK:,.0f}" if past.runs >= WEEK else "fewer than 1"
    verdict = ", more than on any day of that week" if count > max(before) else (
        ", fewer than on any day of that week" if count < min(before) else ""
    )  # fmt: skip
    text = f"{words.upper(words.many(count, 'run'))} began{verdict}; in the week before it was {a_day} a day, "
    text += f"and {before[0]:,} on the {weekday} before."
    return words.about_runs(text, facts.runs)


def _share(what: str, mine: Sequence[Run], runs: Sequence[Run], theirs: int, before: int) -> Sentence:
    count = len(runs)
    now, then = words.share(len(mine), count), words.share(theirs, before)
    verb = _verb(len(mine), count, theirs, before)
    if verb:
        return words.about_runs(f"{what} {verb} from {then} to {now}.", mine or runs)
    if now == then:
        return words.about_runs(f"{what} is the same as in the week before: {now}.", mine or runs)
    text = f"{what} is {now}; it was {then} in the week before, a difference that chance can make."
    return words.about_runs(text, mine or runs)


def _verb(mine: int, count: int, theirs: int, before: int) -> str:
    """Whether one share is surely and plainly another than before: the test of two proportions, pooled."""
    now, then, pooled = mine / count, theirs / before, (mine + theirs) / (count + before)
    spread = sqrt(pooled * (1 - pooled) * (1 / count + 1 / before))
    if abs(now - then) < _POINTS or not spread or abs(now - then) / spread < _SURE:
        return ""
    return "rose" if now > then else "fell"


def _cost(runs: Sequence[Run], past: Totals, policy: Policy) -> Sentence:
    priced = [run for run in runs if run.is_priced]
    if len(priced) < policy.least or past.priced < policy.least:
        return words.about_runs("Too few runs have a known cost to say what changed in that.", priced or runs)
    now = sum((run.cost_usd or Decimal(0) for run in priced), Decimal(0)) / len(priced)
    then = past.cost_usd / past.priced
    verb = "" if not then else _moved(float(now / then))
    if verb:
        text = f"Where it is known, the cost of a run {verb} from {words.money(then)} to {words.money(now)} on average."
    else:
        text = f"Where it is known, a run cost {words.money(now)} on average, much as before ({words.money(then)})."
    return words.about_runs(text, priced)


def _speed(runs: Sequence[Run], then: float | None, policy: Policy) -> Iterator[Sentence]:
    ended = [run for run in runs if run.seconds is not None]
    if len(ended) < policy.least or then is None:
        return
    now = median_low(run.seconds or 0.0 for run in ended)
    verb = _moved(now / then) if then else ""
    took = f"half of the runs took no longer than {words.length(now)}"
    if verb:
        how = "take longer than" if verb == "rose" else "are faster than"
    else:
        how = "are about as fast as"
    text = f"Runs {how} before: {took}; then it was {words.length(then)}."
    yield words.about_runs(text, ended)


def _moved(ratio: float) -> str:
    return "rose" if ratio >= _RATIO else "fell" if ratio <= 1 / _RATIO else ""


def _agents(runs: Sequence[Run], policy: Policy) -> Iterator[Sentence]:
    """One sentence an agent, those with the most runs first."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.agent, []).append(run)
    if len(found) < 2:
        return
    ordered = sorted(found.items(), key=lambda one: (-len(one[1]), one[0]))
    for agent, some in ordered[: policy.agents]:
        yield words.about_runs(
            f"{words.upper(words.name(agent))} had {words.many(len(some), 'run')}: {ends(some)}.", some
        )
    if more := ordered[policy.agents :]:
        rest = [run for _, some in more for run in some]
        text = f"{words.many(len(more), 'more agent')} had {words.many(len(rest), 'run')} together."
        yield words.about_runs(text, rest)


_ENDS = {
    "resolved": "settled", "handed_off": "handed over", "failed": "failed", "halted": "stopped",
    "fell_back": "left to a stand-in", "abandoned": "broken off", None: "still open",
}  # fmt: skip


def ends(runs: Sequence[Run]) -> str:
    """How runs ended, in words: `31 settled, 10 handed over and 2 failed`."""
    counts = {name: sum(run.resolution == name for run in runs) for name in _ENDS}
    return words.listed([f"{count:,} {_ENDS[name]}" for name, count in counts.items() if count])
