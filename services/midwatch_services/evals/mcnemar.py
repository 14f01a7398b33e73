"""Whether an agent got worse on the same cases, and what a set could have seen at all. Pure; each formula names its
source."""

from functools import lru_cache
from math import ceil, comb, exp, fsum, lgamma, log

_STEP = 1000  # the smallest drop is told in thousandths
_RARE = 1e-12  # of a term that changes no figure


def got_worse(regressions: int, repairs: int) -> float:
    """p of McNemar's test (Psychometrika 12, 1947) in its exact form: the chance that as many of the cases that changed
    would be regressions, or more, if each were as likely to be a repair. One-sided, so that it errs to the safe side
    for equal agents."""
    changed = regressions + repairs
    as_many, ways = 0, comb(changed, regressions)
    for k in range(regressions, changed + 1):
        as_many += ways
        ways = ways * (changed - k) // (k + 1)
    return as_many / (1 << changed)


def power(pairs: int, drop: float, churn: float, alpha: float) -> float:
    """The chance that the test at `alpha` sees a share `drop` of the cases lost, where besides a share `churn` of them
    changes by chance, half of it each way.

    Exact and unconditional: over all numbers of repairs, and of regressions beside them (Schork and Williams,
    Communications in Statistics B 9, 1980; Duffy, Biometrics 40, 1984).
    """
    repaired, regressed = churn / 2, churn / 2 + drop
    if repaired + regressed > 1:
        raise ValueError("drop and churn together are more than all the cases")
    beside = regressed / (1 - repaired)
    chances = {k: chance for k in range(pairs + 1) if (chance := _binomial(k, pairs, repaired)) > _RARE}
    needed = _least(max(chances), alpha)
    return fsum(chance * _at_least(needed[k], pairs - k, beside) for k, chance in chances.items())


def smallest_drop(pairs: int, churn: float, alpha: float, wanted: float, most: float = 1.0) -> float | None:
    """The smallest drop, in whole thousandths, that the test sees with the power `wanted`; None where it would not see
    one of `most`, such as a fall to nought. It sees larger ones the better."""
    last = int(min(most, 1 - churn) * _STEP + 1e-9)
    if last < 1 or power(pairs, last / _STEP, churn, alpha) < wanted:
        return None
    low, high = 0, last
    while high - low > 1:
        middle = (low + high) // 2
        if power(pairs, middle / _STEP, churn, alpha) < wanted:
            low = middle
        else:
            high = middle
    return high / _STEP


def fewest(alpha: float) -> int:
    """How many cases there must be to fall from, for p to come down to `alpha` if all of them do."""
    return ceil(-log(alpha) / log(2) - 1e-9)


@lru_cache(maxsize=8)
def _least(upto: int, alpha: float) -> tuple[int, ...]:
    """How many regressions it takes for p to come down to `alpha`, beside no repair, one, two … `upto`."""
    found: list[int] = []
    least = 0
    for repairs in range(upto + 1):
        while got_worse(least, repairs) > alpha:
            least += 1
        found.append(least)
    return tuple(found)


def _binomial(k: int, n: int, p: float) -> float:
    if not 0 <= k <= n:
        return 0.0
    if p <= 0 or p >= 1:
        return float(k == (0 if p <= 0 else n))
    return exp(lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) + k * log(p) + (n - k) * log(1 - p))


def _at_least(k: int, n: int, p: float) -> float:
    """P(X >= k): the terms of the shorter tail."""
    if n - k < k:
        return fsum(_binomial(one, n, p) for one in range(k, n + 1))
    return max(0.0, 1 - fsum(_binomial(one, n, p) for one in range(k)))
