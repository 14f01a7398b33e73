"""Budgets of an agent's hour and day: $10.00 here, at 13:30 on 2026-11-26."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from midwatch.runtime.pricing import Cost
from midwatch_services.cost_watchdog import periods
from midwatch_services.cost_watchdog.alerts import HaltAgent, HaltRun, RaiseAlert, ResolveAlert
from midwatch_services.cost_watchdog.periods import Period
from midwatch_services.cost_watchdog.policy import Limit
from midwatch_services.cost_watchdog.state import Subject, TicketState

NOW = datetime(2026, 11, 26, 13, 30, tzinfo=UTC)
HOUR, DAY = Period("desk", "hour", "2026-11-26T13"), Period("desk", "day", "2026-11-26")


class Spending:
    """What an agent spends in one period, and all that is decided of it."""

    def __init__(self, period: Period, action: Any = "fall_back") -> None:
        self.period, self.limit, self.now = period, Limit(Decimal(10), action), NOW
        self.state = TicketState()

    def spend(self, amount: str, *runs: str) -> list[Any]:
        spent = self.state.spent.plus(Cost(Decimal(amount), "priced"))
        return self._judge(replace(self.state, spent=spent), runs or ("r1",))

    def wait(self, until: datetime) -> list[Any]:
        self.now = until
        return self._judge(self.state, ())

    def change(self, limit: str | None) -> list[Any]:
        self.limit = None if limit is None else Limit(Decimal(limit), self.limit.action)
        return self._judge(self.state, ())

    def _judge(self, state: TicketState, runs: tuple[str, ...]) -> list[Any]:
        self.state, decisions = periods.judge(state, self.period, self.limit, self.now, runs)
        return decisions


def test_a_cost_counts_on_the_fleets_day_and_the_agents_day_and_hour() -> None:
    assert periods.at("desk", NOW) == [Period("_fleet", "day", "2026-11-26"), DAY, HOUR]


@pytest.mark.parametrize("period", periods.at("desk", NOW))
def test_a_period_is_found_again_by_the_name_under_which_it_is_summed(period: Period) -> None:
    assert periods.of(period.subject) == period


def test_no_ticket_of_an_agent_can_be_taken_for_a_period() -> None:
    assert HOUR.subject == Subject("live", "_fleet", "desk/hour/2026-11-26T13")


def test_half_is_noted_four_fifths_told_and_all_of_it_halts_until_the_hour_is_over() -> None:
    desk = Spending(HOUR)
    (noted,), (told,) = desk.spend("5.00"), desk.spend("3.00")
    halt, paged = desk.spend("2.00")
    assert [(one.rule, one.severity, one.action) for one in (noted, told, paged)] == [
        ("budget_hour", "info", "none"), ("budget_hour", "ticket", "none"), ("budget_hour", "page", "halted_agent"),
    ]  # fmt: skip
    assert paged.title == (
        "Agent desk has spent $10.00 of its $10.00 budget for 2026-11-26 13:00-14:00 UTC and is halted"
    )
    assert (paged.agent, paged.run_id, paged.basis) == ("desk", "", "priced")
    assert isinstance(halt, HaltAgent)
    assert (halt.agent, halt.expires_at) == ("desk", datetime(2026, 11, 26, 14, 0, tzinfo=UTC))


def test_a_days_halt_ends_at_midnight() -> None:
    halt, _ = Spending(DAY).spend("10")
    assert halt.expires_at == datetime(2026, 11, 27, 0, 0, tzinfo=UTC)


def test_halt_agent_waits_for_a_person() -> None:
    halt, _ = Spending(DAY, "halt_agent").spend("10")
    assert isinstance(halt, HaltAgent)
    assert halt.expires_at is None


def test_halt_run_halts_each_run_that_spends_while_the_budget_is_spent_once() -> None:
    desk = Spending(DAY, "halt_run")
    desk.spend("9.99", "r1")
    halts = [one for spent in (desk.spend("1", "r1", "r2"), desk.spend("1", "r2", "r3")) for one in spent]
    assert [one.run_id for one in halts if isinstance(one, HaltRun)] == ["r1", "r2", "r3"]


def test_alert_only_pages() -> None:
    (alert,) = Spending(DAY, "alert").spend("10")
    assert isinstance(alert, RaiseAlert)
    assert (alert.severity, alert.action) == ("page", "none")


def test_the_agent_is_halted_once_and_a_person_who_resumes_it_is_not_overruled() -> None:
    desk = Spending(DAY)
    desk.spend("10")
    assert desk.spend("5") == []


def test_its_alerts_end_with_the_period() -> None:
    desk = Spending(HOUR)
    desk.spend("8")
    (ended,) = desk.wait(datetime(2026, 11, 26, 14, 0, tzinfo=UTC))
    assert isinstance(ended, ResolveAlert)
    assert ended.reason == "the hour is over"


def test_what_comes_after_the_period_is_only_summed() -> None:
    desk = Spending(HOUR)
    desk.now = datetime(2026, 11, 26, 14, 0, tzinfo=UTC)
    assert desk.spend("99") == []
    assert desk.state.spent.amount == 99


def test_a_raised_budget_ends_the_alert_and_a_lowered_one_halts() -> None:
    desk = Spending(DAY)
    desk.spend("9")
    (ended,) = desk.change("100")
    assert ended.reason == "the budget is now $100.00"
    halt, _ = desk.change("9")
    assert isinstance(halt, HaltAgent)


def test_a_budget_that_is_taken_away_ends_its_alerts() -> None:
    desk = Spending(DAY)
    desk.spend("9")
    (ended,) = desk.change(None)
    assert ended.reason == "the agent has no budget for a day any more"
