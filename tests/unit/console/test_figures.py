"""Sums of runs, and the lines that show them."""

from datetime import UTC, date, datetime

from midwatch_services.console.figures import bounds, day_of, sparkline, summed
from midwatch_services.logger.daily import Tally


def tally(
    resolution: str | None, runs: int, *, priced: int = 0, cost: float = 0.0, part: float = 0.0, agent: str = "desk"
) -> Tally:
    """`part`: what is known of the cost of the runs that are not wholly priced."""
    return Tally(agent, "live", "1", resolution, None, runs, priced, cost + part, cost)


def test_shares_are_of_what_has_ended_and_a_cost_that_is_unknown_is_no_zero() -> None:
    rows = [
        (tally("resolved", 6, priced=6, cost=0.6), 2_000.0),
        (tally("handed_off", 2, priced=1, cost=0.2, part=0.9), 9_000.0),
        (tally(None, 4), None), (tally("resolved", 50, agent="other"), 1.0),
    ]  # fmt: skip
    found = summed(rows, lambda row: row.agent == "desk")
    assert (found.runs, found.ended, found.resolved_share, found.handed_off_share) == (12, 8, 0.75, 0.25)
    assert (round(found.cost, 9), found.unpriced, round(found.cost_a_run or 0, 9)) == (1.7, 5, 0.114285714)
    assert found.half_took == 2.0
    empty = summed([])
    assert (empty.resolved_share, empty.cost_a_run, empty.half_took) == (None, None, None)


def test_a_day_is_one_of_the_zone_and_may_have_twenty_five_hours() -> None:
    assert day_of(datetime(2026, 11, 25, 23, 30, tzinfo=UTC), "Europe/Berlin") == date(2026, 11, 26)
    begin, end = bounds(date(2026, 10, 25), "Europe/Berlin")
    assert (end.astimezone(UTC) - begin.astimezone(UTC)).total_seconds() == 25 * 3600


def test_a_line_says_the_same_in_words_has_gaps_and_escapes() -> None:
    drawn = str(sparkline([0, 2, None, 4], '"><script>'))
    assert drawn.count("<polyline") == 2
    assert 'points="3.0,25.0 38.3,14.0"' in drawn
    assert 'aria-label="&#34;&gt;&lt;script&gt;"' in drawn
    assert "<polyline" not in str(sparkline([None, None], "nothing"))
