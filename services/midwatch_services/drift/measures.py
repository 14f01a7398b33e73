"""What is compared of runs, and by which test. Pure.

A trait is a yes or no of a run (Fisher), a kind one of several names (chi-square), a figure a number (Kolmogorov-
Smirnov). None, or nothing at all, is unknown: it is left out, and the share of runs of which it is known is a trait.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

from .facts import Facts
from .policy import Policy
from .statistics import chi_square, fisher, kolmogorov_smirnov, least_p, merged
from .text import UNKNOWN

Runs = Sequence[Facts]
Cause = Literal[
    "resolutions", "hand_offs", "tools", "cost", "tokens", "latency", "length", "language", "words", "known"
]
CAUSES: tuple[Cause, ...] = (
    "resolutions", "hand_offs", "tools", "cost", "tokens", "latency", "length", "language", "words", "known",
)  # fmt: skip


class Trait(NamedTuple):
    """What a run has or has not."""

    cause: Cause
    name: str
    of: Callable[[Facts], bool]

    def p(self, recent: Runs, baseline: Runs) -> float:
        """How likely it is that the two differ so much by chance."""
        return fisher(sum(map(self.of, recent)), len(recent), sum(map(self.of, baseline)), len(baseline))


class Kind(NamedTuple):
    """Which of several names a run has."""

    cause: Cause
    name: str
    of: Callable[[Facts], str | None]

    def counts(self, runs: Runs) -> Counter[str]:
        return Counter(found for run in runs if (found := self.of(run)) is not None)

    def p(self, recent: Runs, baseline: Runs) -> float:
        """As a trait's."""
        table = merged(self.counts(recent), self.counts(baseline))
        if len(table.names) == 2:
            return fisher(table.recent[0], sum(table.recent), table.baseline[0], sum(table.baseline))
        return chi_square(table)


class Figure(NamedTuple):
    """How much of something a run has."""

    cause: Cause
    name: str
    of: Callable[[Facts], float | None]

    def values(self, runs: Runs) -> list[float]:
        return [value for run in runs if (value := self.of(run)) is not None]

    def p(self, recent: Runs, baseline: Runs) -> float:
        """As a trait's."""
        return kolmogorov_smirnov(self.values(recent), self.values(baseline)).p


Measure = Trait | Kind | Figure
TESTS = {Trait: "Fisher's exact test", Kind: "chi-square test", Figure: "Kolmogorov-Smirnov test"}

FIGURES = (
    Figure("cost", "cost", lambda run: run.cost),
    Figure("tokens", "tokens", lambda run: run.tokens),
    Figure("tokens", "written", lambda run: run.written),
    Figure("latency", "seconds", lambda run: run.seconds),
    Figure("latency", "call_seconds", lambda run: run.call_seconds),
    Figure("length", "messages", lambda run: run.messages),
    Figure("length", "calls", lambda run: run.calls),
    Figure("length", "characters", lambda run: run.characters),
    Figure("length", "answer", lambda run: run.answer),
)
KINDS = (
    Kind("resolutions", "resolution", lambda run: run.resolution),
    Kind("language", "language", lambda run: None if run.language == UNKNOWN else run.language),
)
KNOWN = (
    Trait("known", "cost", lambda run: run.cost is not None),
    Trait("known", "tokens", lambda run: run.tokens is not None),
    Trait("known", "seconds", lambda run: run.seconds is not None),
)
HAND_OFFS = Trait("hand_offs", "hand_offs", lambda run: run.handed_off)


def of(recent: Runs, baseline: Runs, policy: Policy) -> list[Measure]:
    """All that is to be tested. Which tools and words follows from both samples together, never from how they differ:
    else the most striking of many chances would be picked, and counted as one test."""
    least = policy.least
    figures = [one for one in FIGURES if min(len(one.values(recent)), len(one.values(baseline))) >= least]
    kinds = [one for one in KINDS if min(one.counts(recent).total(), one.counts(baseline).total()) >= least]
    traits = [
        one
        for one in (HAND_OFFS, *KNOWN)
        if _can_tell(sum(map(one.of, recent)) + sum(map(one.of, baseline)), len(recent), len(baseline), policy)
    ]
    both = (*recent, *baseline)
    tools = _commonest((run.tools for run in both), len(recent), len(baseline), policy, policy.most_tools)
    told = _by_many(both, policy)
    words = _commonest((told & run.words.keys() for run in both), len(recent), len(baseline), policy, policy.most_words)
    return [*traits, *kinds, *figures, *map(_tool, tools), *map(_word, words)]


def _tool(name: str) -> Trait:
    return Trait("tools", name, lambda run: name in run.tools)


def _word(stem: str) -> Trait:
    return Trait("words", stem, lambda run: stem in run.words)


def _by_many(runs: Runs, policy: Policy) -> set[str]:
    """Stems of words that enough customers wrote: what few wrote would say something of them."""
    writers: defaultdict[str, set[str]] = defaultdict(set)
    for run in runs:
        for stem in run.words:
            writers[stem].add(run.person)
    return {stem for stem, some in writers.items() if len(some) >= policy.words_from}


def _commonest(sets: Iterable[Iterable[str]], n: int, m: int, policy: Policy, most: int) -> list[str]:
    counts = Counter(name for one in sets for name in one)
    found = [name for name, hits in counts.items() if _can_tell(hits, n, m, policy)]
    return sorted(found, key=lambda name: (-counts[name], name))[:most]


def _can_tell(hits: int, n: int, m: int, policy: Policy) -> bool:
    """Whether a trait of `hits` runs could be found at all: the p of the most uneven split of them is small enough
    (Tarone, Biometrics 46, 1990). What could not, is no test and costs the others nothing."""
    return 1 < hits < n + m - 1 and least_p(hits, n, m) <= policy.q / policy.could_be
