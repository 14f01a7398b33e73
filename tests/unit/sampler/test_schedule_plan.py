"""On which day there is time for each run, and when a person hears that there is not."""

from datetime import UTC, datetime, timedelta

import pytest

from midwatch_services.reviewer_sampler.schedule.ageing import Open, Raise, Resolve, follow
from midwatch_services.reviewer_sampler.schedule.plan import Item, cap, order, plan, seconds_each

TODAY = "2026-11-26"
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def item(run_id: str, at: float, cause: str = "", need: int = 1) -> Item:
    return Item(run_id, cause, at, need, TODAY)


def test_the_oldest_come_first_and_what_a_day_has_no_time_for_is_due_the_next() -> None:
    items = [item(f"r{n}", 10 - n) for n in range(5)]
    assert plan(items, TODAY, 2) == {
        "r4": "2026-11-26", "r3": "2026-11-26", "r2": "2026-11-27", "r1": "2026-11-27", "r0": "2026-11-28",
    }  # fmt: skip


def test_drawn_and_besides_take_turns_and_the_causes_in_turn_so_that_none_starves() -> None:
    items = [item(f"d{n}", n) for n in range(3)]
    items += [item(f"a{n}", 0, "alert") for n in range(100)] + [item("t", 99, "tool")]
    assert [one.run_id for one in order(items)][:8] == ["d0", "a0", "d1", "t", "d2", "a1", "a10", "a11"]


def test_nothing_is_ever_dropped() -> None:
    items = [item(f"r{n}", n, ("", "alert", "cost")[n % 3], 1 + n % 2) for n in range(1000)]
    days = plan(items, TODAY, 7)
    assert days.keys() == {one.run_id for one in items}
    by_day: dict[str, int] = {}
    for one in items:
        by_day[days[one.run_id]] = by_day.get(days[one.run_id], 0) + one.need
    assert max(by_day.values()) == 7
    assert len(by_day) == pytest.approx(1500 / 7, abs=20)


def test_what_was_judged_today_has_taken_its_time() -> None:
    items = [item(f"r{n}", n) for n in range(3)]
    assert plan(items, TODAY, 2, done=1) == {"r0": "2026-11-26", "r1": "2026-11-27", "r2": "2026-11-27"}
    assert set(plan(items, TODAY, 2, done=9).values()) == {"2026-11-27", "2026-11-28"}


def test_a_run_that_wants_two_takes_two_places_and_never_waits_for_ever() -> None:
    assert plan([item("a", 0), item("b", 1, need=2), item("c", 2)], TODAY, 2) == {
        "a": "2026-11-26", "b": "2026-11-27", "c": "2026-11-28",
    }  # fmt: skip
    assert plan([item("a", 0, need=2), item("b", 1, need=2)], TODAY, 1) == {"a": "2026-11-26", "b": "2026-11-27"}


def test_without_a_limit_all_is_due_today() -> None:
    assert set(plan([item(f"r{n}", n) for n in range(99)], TODAY, None).values()) == {TODAY}


def test_a_day_has_as_many_places_as_its_minutes_have_of_the_usual_time() -> None:
    assert (cap(60, 180.0), cap(60, 90.0), cap(0, 90.0), cap(1, 180.0)) == (20, 40, None, 1)
    assert seconds_each([30.0] * 9) == 180.0
    assert seconds_each([30.0] * 10) == 30.0
    assert seconds_each([60.0] * 26 + [5000.0] * 24 + [1.0] * 500) == 60.0  # the last 50, and no lunch


def since(**ago: float) -> float:
    return (NOW - timedelta(**ago)).timestamp()


def test_a_run_that_waits_too_long_raises_one_alert_which_counts_what_joins_it_and_ends_by_itself() -> None:
    day = 86_400.0
    assert follow("desk", None, [since(days=2)], 3 * day, NOW) == (None, None)
    standing, said = follow("desk", None, [since(days=4), since(days=1)], 3 * day, NOW)
    assert isinstance(said, Raise)
    assert said.title == "A run of desk has waited for a reviewer for longer than 3 days, the oldest for 4 days"
    assert isinstance(standing, Open)
    later = NOW + timedelta(days=2.5)
    grown, silent = follow("desk", standing, [since(days=4), since(days=1)], 3 * day, later)
    assert silent is None
    assert isinstance(grown, Open)
    assert (grown.alert_id, grown.repeats) == (standing.alert_id, 1)
    assert follow("desk", grown, [since(days=4), since(days=1)], 3 * day, later) == (grown, None)
    gone, over = follow("desk", grown, [], 3 * day, later)
    assert gone is None
    assert over == Resolve(standing.alert_id, "desk", "no run of desk has waited for longer than 3 days", 1)


def test_the_alert_says_how_many_and_for_how_long() -> None:
    _, said = follow("desk", None, [since(hours=8), since(hours=7)], 6 * 3600, NOW)
    assert isinstance(said, Raise)
    assert said.title == (
        "2 runs of desk have waited for a reviewer for longer than 6.0 hours, the oldest for 8.0 hours"
    )  # fmt: skip
