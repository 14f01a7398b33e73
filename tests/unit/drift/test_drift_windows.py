"""Which runs are held against which, which days are judged, and when a person is told."""

from datetime import UTC, datetime
from typing import Any

from drift_helpers import some
from midwatch_services.drift import alerts, handlers, windows
from midwatch_services.drift.alerts import Open, Raise, Resolve
from midwatch_services.drift.decide import Comparison, Verdict, judge
from midwatch_services.drift.windows import Ended

DAY = "2026-11-21"


def ended(count: int, day: str, version: str = "1", prefix: str = "") -> list[Ended]:
    return [Ended("desk", f"{prefix}{day}-{n}", "live", version, f"{day}T12:00:{n % 60:02}Z", 5) for n in range(count)]


def sizes(runs: list[Ended]) -> list[tuple[str, str, int, int]]:
    return [(one.against, one.label, len(one.recent), len(one.baseline)) for one in windows.choose(runs, DAY)]


def test_a_day_with_runs_enough_stands_for_itself() -> None:
    runs = [*ended(20, DAY), *ended(7, "2026-11-20"), *ended(9, "2026-10-24"), *ended(50, "2026-10-23")]
    assert sizes(runs) == [("days", "the 28 days before", 20, 16)]


def test_days_are_put_together_until_there_are_enough_but_for_no_more_than_a_week() -> None:
    assert sizes([*ended(5, DAY), *ended(15, "2026-11-19"), *ended(9, "2026-11-18")])[0][2:] == (20, 9)
    assert sizes([*ended(1, DAY), *ended(1, "2026-11-15"), *ended(90, "2026-11-14")])[0][2:] == (2, 90)


def test_the_newest_version_is_held_against_the_one_before_by_when_they_were_first_seen() -> None:
    runs = [*ended(3, "2026-11-01", "a"), *ended(4, "2026-11-10", "b"), *ended(5, DAY, "b", "x")]
    runs += [*ended(6, DAY, "c", "y"), *ended(7, DAY, "a", "z")]
    assert sizes(runs)[1] == ("version", "b", 6, 9)
    assert len(sizes(ended(30, DAY))) == 1


def test_of_very_many_runs_the_same_sample_is_taken() -> None:
    first, again = (windows.sample(ended(5000, DAY), 2000) for _ in range(2))
    assert first == again
    assert len(set(first)) == 2000


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_a_day_is_judged_two_hours_after_its_end_and_missed_days_in_order() -> None:
    assert handlers.due("2026-11-20", at("2026-11-22T01:59")) == []
    assert handlers.due("2026-11-20", at("2026-11-22T02:00")) == ["2026-11-21"]
    assert handlers.due("2026-11-18", at("2026-11-22T02:00")) == ["2026-11-19", "2026-11-20", "2026-11-21"]
    assert handlers.due("2026-01-01", at("2026-11-22T02:00"))[0] == "2026-11-15"
    assert handlers.due(None, at("2026-11-22T02:00")) == ["2026-11-21"]
    assert handlers.due("2026-11-25", at("2026-11-22T02:00")) == []  # the clock was set back


def verdicts(hand_offs: int, count: int = 40) -> list[Verdict]:
    recent = some(count, "now", made=lambda n: {"handed_off": n < hand_offs})
    return judge([Comparison("days", tuple(recent), tuple(some(60, "then", "2026-11-20")), "the 28 days before")])


def follow(found: list[Verdict], standing: dict[str, Open]) -> tuple[dict[str, Open], list[Any]]:
    return alerts.follow("desk", "live", DAY, found, standing)


def test_a_cause_is_told_once_counted_while_it_stands_and_resolved_when_it_is_gone() -> None:
    standing, (told,) = follow(verdicts(20), {})
    assert isinstance(told, Raise)
    assert told.title.startswith("Agent desk: hand-offs rose from 0 % to 50 % of runs (against the 28 days before")
    standing, said = follow(verdicts(25), standing)
    assert (said, standing["hand_offs"].repeats) == ([], 1)
    standing, said = follow(verdicts(0), standing)
    assert standing == {}
    assert said == [Resolve(told.alert_id, "desk", "hand_offs", "on 2026-11-21 the runs differ no more", 1)]


def test_too_few_runs_resolve_nothing() -> None:
    standing, _ = follow(verdicts(20), {})
    assert follow(verdicts(0, count=10), standing) == (standing, [])


def test_several_findings_of_one_cause_are_one_alert() -> None:
    recent = some(40, "now", tools={"a": 1, "b": 1, "c": 1})
    found = judge([Comparison("days", tuple(recent), tuple(some(60, "then", "2026-11-20", tools={"d": 3})), "before")])
    _, said = follow(found, {})
    assert [one.cause for one in said] == ["tools"]
    assert said[0].title.endswith(", and 3 more like it")
