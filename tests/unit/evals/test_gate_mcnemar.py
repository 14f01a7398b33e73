"""McNemar's exact test, and the power of a set, against values worked out by hand and by counting every outcome."""

from itertools import product
from math import comb, fsum

import pytest

from midwatch_services.evals.mcnemar import fewest, got_worse, power, smallest_drop


@pytest.mark.parametrize(
    ("regressions", "repairs", "p"),
    [
        (10, 2, 79 / 4096),  # (66 + 12 + 1) / 2^12 = 0.0193
        (5, 0, 1 / 32),
        (4, 0, 1 / 16),
        (1, 1, 3 / 4),
        (0, 0, 1.0),
        (0, 7, 1.0),
        (8, 2, 56 / 1024),  # (45 + 10 + 1) / 2^10 = 0.0547
    ],
)
def test_p_is_the_tail_of_a_fair_coin(regressions: int, repairs: int, p: float) -> None:
    assert got_worse(regressions, repairs) == p


def test_p_of_thousands_of_cases_is_still_a_number() -> None:
    assert 0 < got_worse(1_100, 900) < 1e-5
    assert got_worse(5_000, 5_000) == pytest.approx(0.504, abs=1e-3)


def test_five_cases_are_the_fewest_that_can_show_anything_at_one_in_twenty() -> None:
    assert (fewest(0.05), fewest(1 / 16), fewest(0.5)) == (5, 4, 1)


@pytest.mark.parametrize(("pairs", "drop", "churn"), [(6, 0.5, 0.2), (7, 0.3, 0.4), (8, 0.7, 0.0), (9, 0.4, 0.1)])
def test_power_is_what_counting_every_outcome_gives(pairs: int, drop: float, churn: float) -> None:
    chance = {"fell": churn / 2 + drop, "rose": churn / 2, "same": 1 - churn - drop}
    seen = []
    for outcome in product(chance, repeat=pairs):
        fell, rose = outcome.count("fell"), outcome.count("rose")
        changed = fell + rose
        if sum(comb(changed, k) for k in range(fell, changed + 1)) <= 0.05 * 2**changed:
            whole = 1.0
            for one in outcome:
                whole *= chance[one]
            seen.append(whole)
    assert power(pairs, drop, churn, 0.05) == pytest.approx(fsum(seen), rel=1e-9)


def test_without_churn_power_is_the_chance_of_five_regressions() -> None:
    by_hand = 1 - sum(comb(60, k) * 0.11**k * 0.89 ** (60 - k) for k in range(5))
    assert power(60, 0.11, 0.0, 0.05) == pytest.approx(by_hand, rel=1e-9)
    assert by_hand > 0.8 > 1 - sum(comb(60, k) * 0.109**k * 0.891 ** (60 - k) for k in range(5))
    assert smallest_drop(60, 0.0, 0.05, 0.8) == 0.11


def test_an_equal_agent_is_called_worse_less_often_than_one_time_in_twenty() -> None:
    for pairs, churn in product((10, 42, 60, 200), (0.05, 0.2, 0.5, 1.0)):
        assert power(pairs, 0.0, churn, 0.05) <= 0.05


def test_the_smallest_drop_is_the_first_that_is_seen_four_times_in_five() -> None:
    for pairs, churn in product((20, 60, 150), (0.0, 0.05, 0.2)):
        found = smallest_drop(pairs, churn, 0.05, 0.8)
        assert found is not None
        assert power(pairs, found, churn, 0.05) >= 0.8 > power(pairs, found - 0.001, churn, 0.05)


def test_too_few_cases_or_too_few_to_fall_from_would_show_no_drop_at_all() -> None:
    assert smallest_drop(4, 0.0, 0.05, 0.8) is None
    assert smallest_drop(60, 0.0, 0.05, 0.8, most=0.1) is None
    assert smallest_drop(60, 0.0, 0.05, 0.8, most=0.12) == 0.11
    assert smallest_drop(60, 1.0, 0.05, 0.8) is None
    assert smallest_drop(60, 0.0, 0.05, 0.8, most=0.0) is None
