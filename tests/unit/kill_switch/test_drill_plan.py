"""When a drill is due, what its tickets came to, and whether it passed."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from midwatch.contracts.control import Card, SwitchRecord, SwitchRule
from midwatch.contracts.governance import InstanceReport, SwitchDrilled
from midwatch_services.kill_switch.drills import drill_plan
from midwatch_services.kill_switch.drills.drill_plan import LIMITS, Last, Now, Tally

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def card(drill: str = "monthly", hours: str = "02:00-05:00") -> Card:
    return Card(agent="desk", owner="o", purpose="p", can=["c"], switch=SwitchRule(drill=drill, drill_hours=hours))


def at(hour: int, minute: int = 0) -> datetime:
    return NOON.replace(hour=hour, minute=minute)


PASSED = SwitchDrilled(
    drill_id="d", agent="desk", by="ann", started_at=NOON, passed=True, epoch=7, effective_seconds=0.2,
    first_fallback_seconds=0.3, restore_seconds=0.4, tickets=10, answered=6, fell_back=4, restored=True,
)  # fmt: skip


def test_a_drill_within_every_limit_has_passed() -> None:
    assert drill_plan.failures(PASSED, LIMITS) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"effective_seconds": 5.01}, "the halt took 5.0 s to be effective"),
        ({"first_fallback_seconds": None}, "no case reached the fallback"),
        ({"first_fallback_seconds": 6.0}, "the first case took 6.0 s"),
        ({"restored": False}, "was not restored"),
        ({"restore_seconds": None}, "the restore was not over; 10 s is the limit"),
        ({"restore_seconds": 11.0}, "the restore took 11.0 s"),
        ({"lost": 1}, "1 of 10 tickets were lost"),
        ({"doubled": 2}, "2 of 10 tickets were doubled"),
    ],
)
def test_each_limit_that_is_broken_is_a_sentence(change, words) -> None:
    (failure,) = drill_plan.failures(msgspec.structs.replace(PASSED, **change), LIMITS)
    assert words in failure


def test_instances_that_did_not_obey_are_named() -> None:
    reports = [
        InstanceReport(agent="desk", instance="pod-1", state="applied"),
        InstanceReport(agent="desk", instance="pod-2", state="unconfirmed"),
        InstanceReport(agent="desk", instance="pod-3", state="lapsed"),
    ]
    result = msgspec.structs.replace(PASSED, effective_seconds=None, instances=reports)
    (failure,) = drill_plan.failures(result, LIMITS)
    assert failure == "the halt was not contained within 5 s: pod-2 (has not confirmed), pod-3 (silent too long)"


def test_each_ticket_is_answered_or_one_case_or_it_counts_against_the_drill() -> None:
    tickets = ["answered", "case", "neither", "both", "two cases", "two answers"]
    answers = {"answered": 1, "both": 1, "two answers": 2, "another's": 1}
    cases = {"case": 1, "both": 1, "two cases": 2, "another's": 1}
    assert drill_plan.tally(tickets, answers, cases) == Tally(6, answered=1, fell_back=1, lost=1, doubled=3)


def test_a_halt_names_the_drill_that_wrote_it() -> None:
    by = drill_plan.signature("drill-1", "ann at the desk")
    assert drill_plan.name_in(SwitchRecord(state="halted", by=by, drill=True)) == ("drill-1", "ann at the desk")
    assert drill_plan.name_in(SwitchRecord(state="halted", by=by)) is None
    assert drill_plan.name_in(SwitchRecord(state="halted", by="ann", drill=True)) is None


def test_figures_are_kept_against_a_word_without_any_and_a_sign_off_against_none() -> None:
    dead = SwitchDrilled(drill_id="d", agent="desk", by="ann", started_at=NOON, passed=False)
    signed = msgspec.structs.replace(PASSED, signed_off_by="bob")
    assert drill_plan.is_newer(None, dead)
    assert drill_plan.is_newer(dead, PASSED)
    assert drill_plan.is_newer(PASSED, signed)
    assert not drill_plan.is_newer(PASSED, dead)
    assert not drill_plan.is_newer(signed, PASSED)


@pytest.mark.parametrize(
    ("hours", "now", "expected"),
    [
        ("02:00-05:00", at(2), (at(2), at(5))),
        ("02:00-05:00", at(4, 59), (at(2), at(5))),
        ("02:00-05:00", at(5), None),
        ("02:00-05:00", at(1, 59), None),
        ("22:00-02:00", at(23), (at(22), at(2) + DAY)),
        ("22:00-02:00", at(1), (at(22) - DAY, at(2))),
        ("22:00-02:00", at(2), None),
        ("22:00-02:00", at(12), None),
        ("06:00-06:00", at(6), (at(6), at(6) + DAY)),
        ("06:00-06:00", at(5), (at(6) - DAY, at(6))),
    ],
)
def test_the_hours_of_a_drill_may_cross_midnight(hours, now, expected) -> None:
    assert drill_plan.window(hours, now) == expected


@pytest.mark.parametrize(
    ("hours", "from_then", "expected"),
    [
        ("02:00-05:00", at(3), at(3)),
        ("02:00-05:00", at(12), at(2) + DAY),
        ("22:00-02:00", at(12), at(22)),
        ("22:00-02:00", at(1), at(1)),
    ],
)
def test_the_next_moment_in_the_hours(hours, from_then, expected) -> None:
    assert drill_plan.next_window(hours, from_then) == expected


@pytest.mark.parametrize(("drill", "days"), [("weekly", 7), ("monthly", 30), ("quarterly", 91)])
def test_a_drill_is_due_after_the_last_one_or_else_after_the_agent_was_first_seen(drill, days) -> None:
    last = Last(NOON, passed=False)
    assert drill_plan.due_at(card(drill), last, NOON - 400 * DAY) == NOON + days * DAY
    assert drill_plan.due_at(card(drill), None, NOON) == NOON + days * DAY


READY = Now(
    now=at(3), since=NOON - 100 * DAY, last=Last(at(3) - 30 * DAY, True), armed=True, running=True, busy=False,
    blocked=False,
)  # fmt: skip


def test_a_drill_begins_when_it_is_due_in_its_hours() -> None:
    assert drill_plan.choose(card(), READY) == "run"


@pytest.mark.parametrize(
    "change",
    [
        {"last": Last(at(3) - 29 * DAY, True)},
        {"last": None, "since": at(3) - 29 * DAY},
        {"now": at(12)},
        {"armed": False},
        {"running": False},
        {"blocked": True},
        {"busy": True},
        {"busy": True, "now": at(3, 59)},
    ],
)
def test_a_drill_waits(change) -> None:
    assert drill_plan.choose(card(), replace(READY, **change)) == "wait"


def test_a_card_that_says_never_is_never_drilled_nor_overdue() -> None:
    assert drill_plan.choose(card("never"), READY) == "wait"
    assert drill_plan.overdue(card("never"), None, NOON - 1000 * DAY, NOON) is None


def test_in_the_last_third_of_its_hours_a_drill_waits_for_no_quiet_moment() -> None:
    assert drill_plan.choose(card(), replace(READY, busy=True, now=at(4))) == "run"


@pytest.mark.parametrize(
    ("last", "since", "words"),
    [
        (Last(NOON - 32.9 * DAY, True), NOON - 400 * DAY, None),
        (Last(NOON - 33 * DAY, True), NOON - 400 * DAY, "the monthly drill of desk is 3 days overdue"),
        (None, NOON - 32 * DAY, None),
        (None, NOON - 34 * DAY, "the monthly drill of desk is 4 days overdue; none was ever run"),
        (Last(NOON - 2.9 * DAY, False), NOON, None),
        (Last(NOON - 3 * DAY, False), NOON, "the last drill of desk did not pass, 3 days ago"),
    ],
)
def test_a_drill_is_overdue_three_days_after_it_was_due_or_has_failed(last, since, words) -> None:
    assert drill_plan.overdue(card(), last, since, NOON) == words


@pytest.mark.parametrize(
    ("halt", "age", "words"),
    [
        (None, timedelta(minutes=4), None),
        (None, timedelta(minutes=5), "did not report; it has halted nothing"),
        ((None, NOON), HOUR, None),
        ((NOON, NOON), timedelta(0), "did not report; its halt expired"),
        ((NOON, NOON + HOUR), timedelta(minutes=1), None),
        ((NOON, NOON + HOUR), timedelta(minutes=2), "did not report; its halt was lifted or replaced"),
    ],
)
def test_a_drill_that_says_nothing_has_failed_once_it_is_known_to_be_dead(halt, age, words) -> None:
    assert drill_plan.unreported(NOON, halt, NOON + age) == words
