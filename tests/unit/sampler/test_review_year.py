"""A year of reviews, day by day, through the draw and the decisions themselves: it tapers, holds, and comes back."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[3] / "benchmarks"))

from bench_review_year import DAYS, END, MARK, RUNS, SCENARIOS, Year, table, years

pytestmark = pytest.mark.proof

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def found() -> dict[str, list[Year]]:
    return {scenario.name: years(scenario) for scenario in SCENARIOS}


def test_an_agent_that_seldom_fails_tapers_a_step_a_week_after_its_first_days(found: dict[str, list[Year]]) -> None:
    for year in found["0.5 %"]:
        assert year.changes == [(30, 1, "tapered"), (37, 2, "tapered"), (44, 3, "tapered")]
        assert year.steps == [0] * 30 + [1] * 7 + [2] * 7 + [3] * 321
        assert year.drawn < 0.05 * DAYS * RUNS


def test_one_that_fails_in_two_of_a_hundred_tapers_and_steps_back_when_it_is_not_sure(
    found: dict[str, list[Year]],
) -> None:
    for year in found["2 %"]:
        assert year.changes[0][1:] == (1, "tapered")
        assert 30 <= year.changes[0][0] <= 120
        assert 0.02 * DAYS * RUNS < year.drawn < 0.12 * DAYS * RUNS
        assert {cause for _, _, cause in year.changes} <= {"tapered", "loosened", "failing"}


@pytest.mark.parametrize("name", ["10 %", "30 %"])
def test_one_that_fails_more_often_than_its_limit_is_held_at_the_first_rate(
    found: dict[str, list[Year]], name: str
) -> None:
    for year in found[name]:
        assert year.changes == []
        assert set(year.rates) == {0.2}
        assert year.drawn == pytest.approx(0.2 * DAYS * RUNS, rel=0.03)


def test_one_that_begins_to_fail_is_read_as_at_first_within_seven_weeks_and_stays_so(
    found: dict[str, list[Year]],
) -> None:
    for year in found["0.5 %, 10 % from day 180 on"]:
        assert year.steps[180] == 3
        back = year.steps.index(0, 180)
        assert 183 < back < 180 + 49
        assert set(year.steps[back:]) == {0}


def test_a_version_a_page_a_drift_and_a_halt_each_bring_it_back_once_for_its_first_days(
    found: dict[str, list[Year]],
) -> None:
    [events] = [one for one in SCENARIOS if one.events]
    for year in found[events.name]:
        expected = [(30, 1, "tapered"), (37, 2, "tapered"), (44, 3, "tapered")]
        for day, cause in ((120, "version"), (180, "incident"), (240, "drift"), (300, "halt")):
            expected += [(day, 0, cause)]  # type: ignore[list-item]
            expected += [(day + after, step, "tapered") for after, step in ((30, 1), (37, 2), (44, 3))]
        assert year.changes == expected


def test_no_step_is_skipped_and_none_is_taken_twice_in_a_week(found: dict[str, list[Year]]) -> None:
    for some in found.values():
        for year in some:
            before_day, before = -7, 0
            for day, step, cause in year.changes:
                if cause == "tapered":
                    assert step == before + 1
                    assert day - before_day >= 7
                if cause == "loosened":
                    assert step == before - 1
                before_day, before = day, step


def test_the_table_in_the_documentation_is_this_one(found: dict[str, list[Year]]) -> None:
    text = (ROOT / "docs" / "services" / "reviewer_sampler.md").read_text(encoding="utf-8")
    written = text.split(MARK)[1].split(END)[0].strip()
    assert written == table(found), (
        "run `python benchmarks/bench_review_year.py --write docs/services/reviewer_sampler.md`"
    )
