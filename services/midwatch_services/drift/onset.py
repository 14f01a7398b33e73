"""Whether something changed at once or bit by bit. Pure."""

from collections.abc import Sequence
from itertools import accumulate
from math import log
from typing import Literal, NamedTuple

_EDGE = 5  # runs on either side of a step, at least


class Onset(NamedTuple):
    """`sudden` since a day, or `slow`. Without a day nothing can be said of it."""

    how: Literal["sudden", "slow", "unclear"]
    day: str | None = None


def onset(values: Sequence[float], days: Sequence[str]) -> Onset:
    """How the values of runs, in their order, came to differ: a step (two means, with the place where the squares fit
    best, Hinkley, Biometrika 57, 1970) against a straight line, judged by Schwarz's criterion (Annals of Statistics 6,
    1978), which counts the place of the step as a parameter. Figures are compared by rank, so that one dear run is no
    step."""
    n = len(values)
    if n < 2 * _EDGE + 1 or len(set(days)) < 3:
        return Onset("unclear")
    ranks = _ranks(values)
    mean = sum(ranks) / n
    sums = list(accumulate(rank - mean for rank in ranks))
    total = sum((rank - mean) ** 2 for rank in ranks)
    if not total:
        return Onset("unclear")
    # Of a step after k runs the squares explained are S_k² n / (k (n - k)): the largest is the best place.
    place = max(range(_EDGE, n - _EDGE + 1), key=lambda k: sums[k - 1] ** 2 / (k * (n - k)))
    step = total - sums[place - 1] ** 2 * n / (place * (n - place))
    half = (n - 1) / 2
    slope = sum((at - half) * (rank - mean) for at, rank in enumerate(ranks))
    line = total - slope**2 * 12 / (n * (n * n - 1))
    if n * log(max(step, 1e-9)) + log(n) < n * log(max(line, 1e-9)):
        return Onset("sudden", days[place])
    return Onset("slow")


def _ranks(values: Sequence[float]) -> list[float]:
    """Equal values share the middle of their ranks."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for place in order[start:end]:
            ranks[place] = (start + end - 1) / 2
        start = end
    return ranks
