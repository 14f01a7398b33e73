"""When tickets wait: past midnight, on some days, and when clocks change."""

from datetime import UTC, datetime, time

import pytest

from midwatch_services.pager.quiet import QuietHours

NIGHT = QuietHours(time(22), time(7), "UTC")
BERLIN = QuietHours(time(22), time(7), "Europe/Berlin")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-11-22T21:59", None),
        ("2026-11-22T22:00", "2026-11-23T07:00"),
        ("2026-11-22T23:59", "2026-11-23T07:00"),
        ("2026-11-23T00:00", "2026-11-23T07:00"),
        ("2026-11-23T06:59", "2026-11-23T07:00"),
        ("2026-11-23T07:00", None),
        ("2026-11-23T12:00", None),
    ],
)
def test_hours_may_go_past_midnight(now: str, until: str | None) -> None:
    assert NIGHT.until(at(now)) == (until and at(until))


def test_hours_within_a_day() -> None:
    lunch = QuietHours(time(12), time(13, 30), "UTC")
    assert lunch.until(at("2026-11-22T12:30")) == at("2026-11-22T13:30")
    assert lunch.until(at("2026-11-22T13:30")) is None
    assert lunch.until(at("2026-11-22T11:59")) is None


def test_days_are_those_on_which_the_hours_begin() -> None:
    friday_night = QuietHours(time(22), time(7), "UTC", frozenset({4}))
    assert friday_night.until(at("2026-11-27T23:00")) == at("2026-11-28T07:00")  # a Friday
    assert friday_night.until(at("2026-11-28T03:00")) == at("2026-11-28T07:00")
    assert friday_night.until(at("2026-11-27T03:00")) is None
    assert friday_night.until(at("2026-11-28T23:00")) is None


@pytest.mark.parametrize(
    ("now", "until"),
    [
        # Winter: one hour ahead of UTC. Summer: two.
        ("2026-11-22T20:59", None),
        ("2026-11-22T21:00", "2026-11-23T06:00"),
        ("2026-07-01T19:59", None),
        ("2026-07-01T20:00", "2026-07-02T05:00"),
        # The night of 28 to 29 March has eight hours between 22:00 and 07:00, that of 24 to 25 October ten.
        ("2026-03-28T21:00", "2026-03-29T05:00"),
        ("2026-03-29T04:59", "2026-03-29T05:00"),
        ("2026-03-29T05:00", None),
        ("2026-10-24T20:00", "2026-10-25T06:00"),
        ("2026-10-25T05:59", "2026-10-25T06:00"),
        ("2026-10-25T06:00", None),
    ],
)
def test_hours_are_those_of_the_clock_on_the_wall(now: str, until: str | None) -> None:
    assert BERLIN.until(at(now)) == (until and at(until))


def test_a_time_that_the_clock_leaves_out_is_an_hour_later_and_one_that_comes_twice_is_the_first() -> None:
    left_out = QuietHours(time(1), time(2, 30), "Europe/Berlin")
    assert left_out.until(at("2026-03-29T00:30")) == at("2026-03-29T01:30")
    assert left_out.until(at("2026-03-29T01:30")) is None
    twice = QuietHours(time(1), time(2, 30), "Europe/Berlin")
    assert twice.until(at("2026-10-25T00:15")) == at("2026-10-25T00:30")
    assert twice.until(at("2026-10-25T00:45")) is None, "the second half past two ends nothing that is over"
