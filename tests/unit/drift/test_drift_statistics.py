"""The statistics of drift, against values worked out by hand and published ones."""

import random
from math import log

import pytest

from midwatch_services.drift.statistics import (
    Table,
    benjamini_hochberg,
    chi_square,
    chi_square_tail,
    cohens_h,
    fisher,
    in_tenths,
    kolmogorov_smirnov,
    least_p,
    merged,
    quantile,
    stability_index,
)


@pytest.mark.parametrize(
    ("x", "freedom", "p"),
    [(3.841459, 1, 0.05), (5.991465, 2, 0.05), (11.344867, 3, 0.01), (18.307038, 10, 0.05), (29.588298, 10, 0.001)],
)
def test_the_tail_of_chi_square_is_that_of_the_printed_tables(x: float, freedom: int, p: float) -> None:
    assert chi_square_tail(x, freedom) == pytest.approx(p, rel=1e-5)


def test_chi_square_is_that_of_a_table_worked_out_by_hand() -> None:
    # Each cell expects 20, 20, 10: (30-20)²/20 · 2 + (15-20)²/20 · 2 + (5-10)²/10 · 2 = 17.5; its tail is e^(-8.75).
    table = Table(("a", "b", "c"), (30, 15, 5), (10, 25, 15))
    assert chi_square(table) == pytest.approx(0.000158461, rel=1e-5)
    assert chi_square(Table(("a",), (3,), (4,))) == 1.0


def test_rare_categories_are_put_together_until_each_cell_expects_five() -> None:
    assert merged({"a": 30, "b": 12, "c": 2}, {"a": 60, "b": 8, "d": 9}) == Table(("a", "(other)"), (30, 14), (60, 17))
    assert merged({"a": 30, "b": 20}, {"a": 30, "b": 20}) == Table(("a", "b"), (30, 20), (30, 20))
    assert merged({"a": 50}, {"a": 50}).names == ("a",)
    assert merged({}, {"a": 5}).recent == (0,)


def test_fishers_lady_tastes_tea() -> None:
    # Eight cups, four of each, three of four named right: P = (16 + 1) / 70, two-sided (1 + 16 + 16 + 1) / 70.
    assert fisher(3, 4, 1, 4) == pytest.approx(34 / 70)
    assert fisher(4, 4, 0, 4) == pytest.approx(2 / 70)
    assert fisher(0, 10, 0, 20) == 1.0
    assert fisher(10, 10, 20, 20) == 1.0


def test_many_runs_are_tested_by_chi_square() -> None:
    assert fisher(1_000, 10_000, 2_000, 20_000) == pytest.approx(1.0)
    # z = 0.01 / √(0.10333 · 0.89667 · (1/10,000 + 1/20,000)) = 2.6823; beyond it lie 0.00731.
    assert fisher(1_100, 10_000, 2_000, 20_000) == pytest.approx(0.00731, rel=0.001)


def test_the_surest_that_two_hits_can_be_is_that_both_fall_on_one_side() -> None:
    # Both on the five: 5·4 / (10·9); both on the other five: the same.
    assert least_p(2, 5, 5) == pytest.approx(20 / 90)
    assert least_p(1, 1, 9) == pytest.approx(0.1)


def test_what_is_almost_impossible_is_not_called_certain() -> None:
    assert fisher(0, 60_000, 99, 60_000) == pytest.approx(2 * 0.5**99, rel=0.1)
    assert 0 <= fisher(90, 120_000, 9, 2_000) < 0.01


def test_two_samples_of_three_that_do_not_overlap_are_one_order_in_ten() -> None:
    # Of the 20 orders of three and three only two have a gap of 1.
    assert kolmogorov_smirnov([1, 2, 3], [4, 5, 6]) == (1.0, pytest.approx(2 / 20))
    assert kolmogorov_smirnov([1, 2, 3], [1, 2, 3]) == (0.0, 1.0)
    assert kolmogorov_smirnov([], [1.0]) == (0.0, 1.0)


def test_ties_are_counted_exactly() -> None:
    # Four runs, two of each value: the gap is 1 in two of the six orders, else 0.
    assert kolmogorov_smirnov([0, 0], [1, 1]) == (1.0, pytest.approx(2 / 6))
    assert kolmogorov_smirnov([0, 1], [0, 1]) == (0.0, 1.0)
    # Values 0 0 0 1 1 1 dealt to two of three: two zeros or more in one hand have a gap of 1/3 or more, so all do.
    assert kolmogorov_smirnov([0, 0, 1], [0, 1, 1]) == (pytest.approx(1 / 3), pytest.approx(1.0))
    assert kolmogorov_smirnov([0, 0, 0], [1, 1, 1]) == (1.0, pytest.approx(2 / 20))


def test_the_exact_p_is_the_share_of_shuffles_with_as_large_a_gap() -> None:
    draw = random.Random(4)
    recent = [draw.randint(0, 5) for _ in range(12)]
    baseline = [draw.randint(1, 6) for _ in range(15)]
    found, pool, beyond = kolmogorov_smirnov(recent, baseline), [*recent, *baseline], 0
    for _ in range(4000):
        draw.shuffle(pool)
        beyond += kolmogorov_smirnov(pool[:12], pool[12:]).d >= found.d - 1e-9
    assert beyond / 4000 == pytest.approx(found.p, abs=0.03)


def test_the_limit_of_large_samples_is_kolmogorovs() -> None:
    # D of 1/10 between 1,000 and 1,000: λ = (√500 + 0.12 + 0.11/√500) · 0.1 = 2.24856, 2 e^(-2λ²) = 8.1e-5.
    recent, baseline = [float(n) for n in range(1000)], [float(n + 100) for n in range(1000)]
    assert kolmogorov_smirnov(recent, baseline) == (pytest.approx(0.1), pytest.approx(8.1e-5, rel=0.02))


def test_benjamini_and_hochbergs_own_example() -> None:
    # The fifteen p-values of their paper (1995, section 3.2): at 0.05 the first four are found.
    p = [
        0.0001,
        0.0004,
        0.0019,
        0.0095,
        0.0201,
        0.0278,
        0.0298,
        0.0344,
        0.0459,
        0.3240,
        0.4262,
        0.5719,
        0.6528,
        0.7590,
        1.0,
    ]
    q = benjamini_hochberg(p)
    assert [value <= 0.05 for value in q] == [True] * 4 + [False] * 11
    assert q[:4] == pytest.approx([0.0015, 0.003, 0.0095, 0.035625])
    assert benjamini_hochberg([]) == []
    assert benjamini_hochberg([0.5, 0.01]) == pytest.approx([0.5, 0.02])


def test_cohens_h_weighs_a_change_of_rare_things_as_people_do() -> None:
    assert cohens_h(0.5, 0.5) == 0
    assert cohens_h(1.0, 0.0) == pytest.approx(3.14159, rel=1e-5)
    assert cohens_h(0.05, 0.01) == pytest.approx(cohens_h(0.6252, 0.5), abs=0.01)


def test_the_stability_index_by_hand() -> None:
    # Shares 0.2, 0.8 against 0.5, 0.5: -0.3 ln 0.4 + 0.3 ln 1.6 = 0.3 ln 4.
    assert stability_index((20, 80), (50, 50)) == pytest.approx(0.3 * log(4))
    assert stability_index((5, 5), (50, 50)) == 0
    assert stability_index((0, 10), (10, 0)) > 1
    assert stability_index((), ()) == 0


def test_tenths_are_of_the_baseline_and_equal_values_share_one() -> None:
    recent, baseline = in_tenths([95.0] * 4, [float(n) for n in range(100)])
    assert baseline == [10] * 10
    assert recent == [0] * 9 + [4]
    assert in_tenths([1.0, 2.0], [1.0] * 10) == ([0, 2], [0, 10])


def test_the_middle_of_an_even_number_lies_between() -> None:
    assert quantile([4, 1, 3, 2], 0.5) == 2.5
    assert quantile([7], 0.9) == 7
