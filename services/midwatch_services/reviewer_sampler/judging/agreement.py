"""How well reviewers agree, and how often an agent fails. Pure; each formula names its source.

Agreement is told from the runs that the hash drew for two: those that a second person reads because the first said
`fail` are no sample of anything.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from math import sqrt
from typing import Any, NamedTuple

from msgspec import Struct

from .decide import OPEN

LEAST = 10  # pairs below which a kappa says nothing
_Z = 1.959963984540054  # of 95 %
_VERDICTS = ("pass", "fail", "unsure")

Pair = tuple[str, str]  # what two said of the same run


class Kappa(Struct, frozen=True, kw_only=True):
    """Agreement beyond chance. `kappa` is None where it says nothing: `why`. `low`, `high`: its 95 % interval."""

    who: str
    pairs: int
    same: int
    kappa: float | None = None
    error: float | None = None
    low: float | None = None
    high: float | None = None
    why: str = ""


class Rate(Struct, frozen=True, kw_only=True):
    """Runs that failed among those settled as pass or fail, with Wilson's interval of 95 %. `pending`: runs that were
    judged and wait for one more person, as each fail does; they are in none of it."""

    judged: int
    failed: int
    unsure: int
    pending: int = 0
    rate: float | None = None
    low: float | None = None
    high: float | None = None


class Agreement(Struct, frozen=True, kw_only=True):
    """One agent, or all of them: kappas, how many of the runs drawn for two were disputed, and how often runs fail,
    those `drawn` apart from the `others`, which are read because something about them asked for it."""

    agent: str
    settled: int
    read_twice: int
    disputed: int
    by_agent: Kappa
    by_pair: list[Kappa]
    by_reviewer: list[Kappa]
    drawn: Rate
    others: Rate


class Read(NamedTuple):
    """A run that people judged. `said`: verdict by person, of judgements that counted, in order."""

    agent: str
    drawn: bool
    second: bool  # for two, by the hash
    state: str
    verdict: str | None
    said: Mapping[str, str]


def kappa(who: str, pairs: Sequence[Pair]) -> Kappa:
    """Cohen's kappa (Educational and Psychological Measurement 20, 1960), its standard error after Fleiss, Cohen and
    Everitt (Psychological Bulletin 72, 1969), equation 13."""
    n, cells = len(pairs), Counter(pairs)
    same = sum(cells[one, one] for one in _VERDICTS)
    found = Kappa(who=who, pairs=n, same=same)
    if n < LEAST:
        return _unknown(found, f"too few: {n} of at least {LEAST} runs that both judged")
    rows = {one: sum(cells[one, other] for other in _VERDICTS) / n for one in _VERDICTS}
    columns = {one: sum(cells[other, one] for other in _VERDICTS) / n for one in _VERDICTS}
    chance = sum(rows[one] * columns[one] for one in _VERDICTS)
    if chance >= 1:
        return _unknown(found, "both said the same of every run: nothing can be told from chance")
    observed = same / n
    value = (observed - chance) / (1 - chance)
    on = sum(cells[one, one] / n * (1 - (rows[one] + columns[one]) * (1 - value)) ** 2 for one in _VERDICTS)
    off = (1 - value) ** 2 * sum(
        count / n * (columns[one] + rows[other]) ** 2 for (one, other), count in cells.items() if one != other
    )
    rest = (value - chance * (1 - value)) ** 2
    error = sqrt(max(0.0, on + off - rest) / n) / (1 - chance)
    return Kappa(
        who=who, pairs=n, same=same, kappa=value, error=error, low=max(-1.0, value - _Z * error),
        high=min(1.0, value + _Z * error),
    )  # fmt: skip


def _unknown(found: Kappa, why: str) -> Kappa:
    return Kappa(who=found.who, pairs=found.pairs, same=found.same, why=why)


def rate(verdicts: Iterable[str | None], pending: int = 0) -> Rate:
    """How many failed; `unsure` is neither. Wilson, Journal of the American Statistical Association 22, 1927."""
    counts = Counter(verdicts)
    failed, unsure = counts["fail"], counts["unsure"]
    n = failed + counts["pass"]
    if not n:
        return Rate(judged=0, failed=0, unsure=unsure, pending=pending)
    share, square = failed / n, _Z * _Z
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = _Z * sqrt(share * (1 - share) / n + square / (4 * n * n)) / (1 + square / n)
    return Rate(
        judged=n, failed=failed, unsure=unsure, pending=pending, rate=share, low=max(0.0, middle - half),
        high=min(1.0, middle + half),
    )  # fmt: skip


def agreement(agent: str, reads: Sequence[Read]) -> Agreement:
    """What can be said of the runs that people judged."""
    twice = [read for read in reads if read.second and len(read.said) > 1]
    settled = [read for read in reads if read.state == "settled"]
    return Agreement(
        agent=agent, settled=len(settled), read_twice=len(twice), disputed=sum(_differ(read) for read in twice),
        by_agent=kappa(agent, [_first_two(read) for read in twice]),
        by_pair=[kappa(f"{a}, {b}", pairs) for (a, b), pairs in sorted(_by_pair(twice).items())],
        by_reviewer=[kappa(by, pairs) for by, pairs in sorted(_by_reviewer(twice).items())],
        drawn=_rate([read for read in reads if read.drawn]), others=_rate([read for read in reads if not read.drawn]),
    )  # fmt: skip


def _rate(reads: Sequence[Read]) -> Rate:
    settled = (read.verdict for read in reads if read.state == "settled")
    return rate(settled, sum(read.state in OPEN for read in reads))


def _first_two(read: Read) -> Pair:
    one, other, *_ = read.said.values()
    return one, other


def _differ(read: Read) -> bool:
    one, other = _first_two(read)
    return one != other


def _by_pair(twice: Iterable[Read]) -> dict[Pair, list[Pair]]:
    """Every two who judged the same run."""
    found: dict[Pair, list[Pair]] = {}
    for read in twice:
        for a, b in combinations(sorted(read.said), 2):
            found.setdefault((a, b), []).append((read.said[a], read.said[b]))
    return found


def _by_reviewer(twice: Iterable[Read]) -> dict[str, list[Pair]]:
    """Each against what stands."""
    found: dict[str, list[Pair]] = {}
    for read in twice:
        if read.verdict is not None:
            for by, said in read.said.items():
                found.setdefault(by, []).append((said, read.verdict))
    return found


def of(agents: Sequence[str], reads: Sequence[Read]) -> list[Agreement]:
    """Each agent's, and where there are several that of all together."""
    found = [agreement(agent, [read for read in reads if read.agent == agent]) for agent in agents]
    return [agreement("all agents", reads), *found] if len(found) > 1 else found


def shown(one: Any) -> str:
    """A share or a kappa in words, with its interval."""
    if isinstance(one, Kappa):
        if one.kappa is None or one.error is None:
            return one.why
        return f"{one.kappa:.2f} (95 %: {one.low:.2f} to {one.high:.2f}, standard error {one.error:.3f})"
    if one.rate is None:
        return "none settled yet"
    return f"{one.rate:.1%} (95 %: {one.low:.1%} to {one.high:.1%})"
