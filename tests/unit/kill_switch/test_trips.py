"""What trips, by the card's figures, and what is counted."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from midwatch.contracts import subjects
from midwatch.contracts.control import TripRule
from midwatch.contracts.governance import AlertRaised
from midwatch_services.kill_switch.trips.trips import Ended, Figures, Outcomes, of_alert, of_figures, title

T0 = datetime(2026, 11, 22, 2, 0, 30, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def alert(**more: Any) -> AlertRaised:
    known = {"rule": "budget_run", "severity": "page", "title": "Run r1 has spent $1", "agent": "desk"} | more
    return AlertRaised(alert_id="a", dedupe_key="d", **known)


@pytest.mark.parametrize(
    ("rule", "figures", "names"),
    [
        (TripRule(), Figures(halted=2, halted_at=T0), []),
        (TripRule(), Figures(halted=3, halted_at=T0), ["halted_runs"]),
        (TripRule(halted_runs=0), Figures(halted=99, halted_at=T0), []),
        (TripRule(), Figures(finished=9, failed=9, failed_at=T0), []),
        (TripRule(), Figures(finished=10, failed=4, failed_at=T0), []),
        (TripRule(), Figures(finished=10, failed=5, failed_at=T0), ["failed_runs"]),
        (TripRule(failed_runs=0), Figures(finished=10, failed=10, failed_at=T0), []),
        (
            TripRule(), Figures(halted=3, halted_at=T0, finished=10, failed=10, failed_at=T0),
            ["halted_runs", "failed_runs"],
        ),
    ],
)  # fmt: skip
def test_figures_trip_at_the_limits_of_the_card(rule: TripRule, figures: Figures, names: list[str]) -> None:
    assert [trip.name for trip in of_figures(rule, figures)] == names


def test_the_reason_holds_the_figures() -> None:
    halted, failed = of_figures(
        TripRule(), Figures(halted=4, halted_at=T0, finished=11, failed=6, failed_at=at(1))
    )  # fmt: skip
    assert halted.why == "4 runs were halted one by one within an hour; its card's limit is 3"
    assert failed.why == ("6 of 11 runs that finished within an hour failed (55 %); its card's limit is 50 %")
    assert (halted.at, failed.at) == (T0, at(1))
    assert title("desk", halted, "observe").startswith("desk would have been halted: 4 runs")
    assert title("desk", halted, "act").startswith("desk is halted until a person resumes it: 4 runs")


@pytest.mark.parametrize(
    ("agent", "more", "name"),
    [
        ("desk", {}, "alerts"),
        ("desk", {"rule": "budget_ticket"}, None),
        ("desk", {"severity": "ticket"}, None),
        ("desk", {"mode": "replay"}, None),
        ("desk", {"mode": "drill"}, None),
        ("desk", {"rule": "budget_fleet_day"}, None),
        (subjects.FLEET, {"rule": "budget_fleet_day"}, "fleet_budget"),
        (subjects.FLEET, {"rule": "budget_fleet_day", "severity": "ticket"}, None),
        (subjects.FLEET, {"rule": "budget_run"}, None),
    ],
)
def test_an_alert_trips_if_it_pages_for_live_runs_and_the_card_names_it(
    agent: str, more: dict[str, Any], name: str | None
) -> None:
    trip = of_alert(TripRule(alerts=["budget_run"]), agent, alert(**more), T0)
    assert (trip.name if trip else None) == name


def test_outcomes_are_those_of_the_last_hour_in_any_order() -> None:
    outcomes = Outcomes()
    for minutes, failed in ((50, True), (-20, True), (10, False), (49, False)):
        outcomes.note("desk", at(minutes), failed=failed)
    assert outcomes.figures("desk", at(50)) == Figures(finished=3, failed=1, failed_at=at(50))
    outcomes.forget(at(-10))
    assert outcomes.figures("desk", at(0)).finished == 3


def test_what_ended_before_the_resume_is_not_counted_however_late_it_comes() -> None:
    outcomes = Outcomes()
    outcomes.note("desk", at(0), failed=True)
    outcomes.begin("desk", at(1), [Ended("desk", 29_921_881, 2, 1, at(1.1))])
    outcomes.note("desk", at(0.9), failed=True)
    outcomes.note("desk", at(1.2), failed=False)
    assert outcomes.figures("desk", at(2)) == Figures(finished=3, failed=1, failed_at=at(1.1))
