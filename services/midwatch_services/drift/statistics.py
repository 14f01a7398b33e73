"""The tests that drift is judged by, from the standard library. Pure; each formula names its source.

Two samples are compared: what runs say yes or no to by Fisher's exact test, categories by chi-square, figures by
Kolmogorov-Smirnov. Small samples get exact p-values, so that no approximation has to be trusted where it is worst.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from math import asin, exp, fsum, inf, lgamma, log, sqrt
from typing import NamedTuple

LEAST_EXPECTED = 5.0  # runs that each cell of a chi-square table is to expect (Cochran 1954)
EXACT_PATHS = 200_000  # steps of the exact Kolmogorov-Smirnov test, beyond which its limit is as good
MANY_EXPECTED = 100  # runs that each cell expects, from which on chi-square is as good as Fisher's test
_SAME = 1 + 1e-7  # probabilities that differ by rounding only, as R's fisher.test has it
_TINY = 1e-15
_SMALLEST = 1e-290


class Table(NamedTuple):
    """Categories with their counts in both samples."""

    names: tuple[str, ...]
    recent: tuple[int, ...]
    baseline: tuple[int, ...]


REST = "(other)"


def merged(recent: Mapping[str, int], baseline: Mapping[str, int], least: float = LEAST_EXPECTED) -> Table:
    """The two counts as a table in which no cell expects fewer than `least`: rare categories are put together, as
    Cochran (Biometrics 10, 1954) advises. What they cannot fill together goes to the rarest of the others."""
    n, m = sum(recent.values()), sum(baseline.values())
    names = sorted(set(recent) | set(baseline), key=lambda name: (-recent.get(name, 0) - baseline.get(name, 0), name))
    share = min(n, m) / (n + m) if n and m else 0.0
    kept = [name for name in names if (recent.get(name, 0) + baseline.get(name, 0)) * share >= least]
    rows = [(name, recent.get(name, 0), baseline.get(name, 0)) for name in kept]
    rest = [name for name in names if name not in kept]
    a, b = sum(recent.get(name, 0) for name in rest), sum(baseline.get(name, 0) for name in rest)
    if (a + b) * share < least and rows and rest:
        last = rows.pop()
        a, b = a + last[1], b + last[2]
    if a + b:
        rows.append((rest[0] if len(rest) == 1 and (a + b) * share >= least else REST, a, b))
    return Table(tuple(row[0] for row in rows), tuple(row[1] for row in rows), tuple(row[2] for row in rows))


def chi_square(table: Table) -> float:
    """p of Pearson's test (Philosophical Magazine 50, 1900) that both rows are drawn alike; 1 for fewer than two
    categories. Two categories have a test of their own: `fisher`."""
    n, m = sum(table.recent), sum(table.baseline)
    if len(table.names) < 2 or not n or not m:
        return 1.0
    cells = []
    for a, b in zip(table.recent, table.baseline, strict=True):
        cells += [(a, (a + b) * n / (n + m)), (b, (a + b) * m / (n + m))]
    statistic = fsum((found - expected) ** 2 / expected for found, expected in cells if expected)
    return chi_square_tail(statistic, len(table.names) - 1)


def chi_square_tail(x: float, freedom: int) -> float:
    """P(chi-square with so many degrees of freedom ≥ x): the upper incomplete gamma function, by its series below and
    its continued fraction above (Press et al., Numerical Recipes, 6.2)."""
    a, half = freedom / 2, x / 2
    if half <= 0:
        return 1.0
    scale = exp(-half + a * log(half) - lgamma(a))
    if half < a + 1:
        term = total = 1 / a
        k = a
        while term > total * _TINY:
            k += 1
            term *= half / k
            total += term
        return max(0.0, 1 - total * scale)
    b = half + 1 - a
    c, d = inf, 1 / b
    value = d
    for i in range(1, 1000):
        factor = -i * (i - a)
        b += 2
        d = 1 / (factor * d + b)
        c = b + factor / c
        value *= d * c
        if abs(d * c - 1) < _TINY:
            break
    return min(1.0, value * scale)


def fisher(a: int, n: int, b: int, m: int) -> float:
    """Two-sided p that `a` of `n` and `b` of `m` are drawn alike: Fisher's exact test (Statistical Methods for Research
    Workers, 1934), the sum of all tables that are no likelier; where each cell expects a hundred, by chi-square."""
    hits = a + b
    if not n or not m or not hits or hits == n + m:
        return 1.0
    if min(hits, n + m - hits) * min(n, m) >= MANY_EXPECTED * (n + m):
        return chi_square(Table(("yes", "no"), (a, n - a), (b, m - b)))
    low, high = max(0, hits - m), min(n, hits)
    chance = exp(_choose(n, low) + _choose(m, hits - low) - _choose(n + m, hits))
    if chance < _SMALLEST:  # too small for a float to keep its digits: the others do not follow from it
        logs = [_choose(n, k) + _choose(m, hits - k) - _choose(n + m, hits) for k in range(low, high + 1)]
        each = [exp(value) for value in logs]
    else:
        each = [chance]
        for k in range(low, high):
            chance *= (n - k) * (hits - k) / ((k + 1) * (m - hits + k + 1))
            each.append(chance)
    limit = each[a - low] * _SAME
    return min(1.0, fsum(p for p in each if p <= limit))


def least_p(hits: int, n: int, m: int) -> float:
    """The p of the most uneven way in which so many hits can fall on `n` and `m`: no test of them can be surer."""
    ends = max(0, hits - m), min(n, hits)
    return min(exp(_choose(n, k) + _choose(m, hits - k) - _choose(n + m, hits)) for k in ends)


def _choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


class Distance(NamedTuple):
    """The largest gap between two cumulative shares, and the p of one so large."""

    d: float
    p: float


def kolmogorov_smirnov(recent: Sequence[float], baseline: Sequence[float]) -> Distance:
    """Two samples of figures compared, ties allowed (Smirnov 1939). The p of small samples is exact: the share of all
    orders of the pooled sample whose gap is as large, counted as lattice paths (Hodges 1958), with the gap looked at
    only where the pooled sample changes its value (Schröer and Trenkler 1995). That of large ones is the limit, with
    Stephens's correction (Journal of the Royal Statistical Society B 32, 1970); ties make it too large, never too
    small."""
    n, m = len(recent), len(baseline)
    if not n or not m:
        return Distance(0.0, 1.0)
    marked = sorted([(value, m) for value in recent] + [(value, -n) for value in baseline])
    heights = list(accumulate(step for _, step in marked))  # n·m times the gap
    ends = [one[0] != two[0] for one, two in pairwise(marked)] + [True]
    gap = max(abs(height) for height, is_end in zip(heights, ends, strict=True) if is_end)
    d = gap / (n * m)
    if not gap:
        return Distance(0.0, 1.0)
    if n * m <= EXACT_PATHS:
        return Distance(d, _paths_beyond(n, m, gap, ends))
    root = sqrt(n * m / (n + m))
    return Distance(d, _kolmogorov_tail((root + 0.12 + 0.11 / root) * d))


def _paths_beyond(n: int, m: int, gap: int, ends: Sequence[bool]) -> float:
    """Share of the paths from (0, 0) to (n, m) that reach a gap of `gap` at a place where a value ends. Of all paths to
    (i, j) the share i / (i + j) comes from (i - 1, j)."""
    row = [0.0] * (m + 1)
    for i in range(n + 1):
        for j in range(m + 1):
            if i + j == 0:
                row[0] = 1.0
            elif ends[i + j - 1] and abs(i * m - j * n) >= gap:
                row[j] = 0.0
            else:
                below = row[j] * i if i else 0.0
                row[j] = (below + (row[j - 1] * j if j else 0.0)) / (i + j)
    return min(1.0, max(0.0, 1 - row[m]))


def _kolmogorov_tail(x: float) -> float:
    """Kolmogorov's limit (1933): 2 Σ (-1)^(k-1) exp(-2 k² x²)."""
    if x < 0.2:  # the series converges slowly, the value is 1 to twelve places
        return 1.0
    return min(1.0, max(0.0, 2 * fsum((-1) ** (k - 1) * exp(-2 * k * k * x * x) for k in range(1, 101))))


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """Each p corrected for how many there are (Journal of the Royal Statistical Society B 57, 1995): of all that are at
    most q, the share q at most is chance."""
    order = sorted(range(len(p)), key=p.__getitem__, reverse=True)
    q, least = [1.0] * len(p), 1.0
    for rank, place in zip(range(len(p), 0, -1), order, strict=True):
        least = min(least, p[place] * len(p) / rank)
        q[place] = least
    return q


def cohens_h(recent: float, baseline: float) -> float:
    """How far apart two shares are (Cohen, Statistical Power Analysis, 1988, chapter 6): 0.2 is small, 0.5 plain to
    see, 0.8 large. A change from 1 % to 5 % weighs as much as one from 50 % to 63 %."""
    return 2 * asin(sqrt(recent)) - 2 * asin(sqrt(baseline))


def stability_index(recent: Sequence[int], baseline: Sequence[int]) -> float:
    """Population stability index of counts in the same bins: Σ (a - b) ln(a / b) over their shares (Siddiqi, Credit
    Risk Scorecards, 2006). Below 0.1 is calm, above 0.25 is a shift. An empty bin counts as half a run."""
    n, m = sum(recent), sum(baseline)
    if not n or not m:
        return 0.0
    shares = [(max(a, 0.5) / n, max(b, 0.5) / m) for a, b in zip(recent, baseline, strict=True) if a or b]
    return fsum((a - b) * log(a / b) for a, b in shares)


def in_tenths(recent: Sequence[float], baseline: Sequence[float]) -> tuple[list[int], list[int]]:
    """Both samples counted in bins that hold a tenth of the baseline each; equal values share a bin."""
    ordered = sorted(baseline)
    edges = sorted({ordered[len(ordered) * k // 10] for k in range(1, 10)}) if ordered else []
    counts = [0] * (len(edges) + 1), [0] * (len(edges) + 1)
    for values, found in zip((recent, baseline), counts, strict=True):
        for value in values:
            found[bisect_right(edges, value)] += 1
    return counts


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them lie, linear between two (Hyndman and Fan 1996, type 7)."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
