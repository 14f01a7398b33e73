"""Budgets of a run and of a ticket: $1.00 and $2.00 here."""

from dataclasses import replace
from decimal import Decimal

import pytest

from midwatch.runtime.pricing import Cost
from midwatch_services.cost_watchdog import say
from midwatch_services.cost_watchdog.alerts import HaltAgent, HaltRun, RaiseAlert, ResolveAlert
from midwatch_services.cost_watchdog.policy import Limit


def test_below_half_of_the_budget_nothing_is_said(play):
    assert play.spend("0.49") == []


def test_at_half_of_its_budget_it_is_noted_and_nobody_is_told(play):
    (alert,) = play.spend("0.50")
    assert (alert.rule, alert.severity, alert.action, alert.value) == ("budget_run", "info", "none", "0.5")
    assert alert.title == "Run run-1 of refund-desk has spent $0.50 of its $1.00 budget"


def test_at_four_fifths_of_its_budget_a_run_raises_an_alert(play):
    play.spend("0.50")
    (alert,) = play.spend("0.30")
    assert isinstance(alert, RaiseAlert)
    assert (alert.rule, alert.severity, alert.action) == ("budget_run", "ticket", "none")
    assert alert.title == "Run run-1 of refund-desk has spent $0.80 of its $1.00 budget"
    assert (alert.value, alert.limit, alert.basis) == ("0.8", "1", "reported")
    assert (alert.run_id, alert.event_id, alert.seq) == ("run-1", "e2", 1)


def test_at_its_budget_a_run_is_halted_and_a_person_paged(play):
    halt, alert = play.spend("1.00")
    assert isinstance(halt, HaltRun)
    assert (halt.run_id, halt.rule) == ("run-1", "budget_run")
    assert halt.reason == "Run run-1 of refund-desk has spent $1.00 of its $1.00 budget"
    assert (alert.severity, alert.action) == ("page", "halted_run")
    assert alert.title == "Run run-1 of refund-desk has spent $1.00 of its $1.00 budget and is halted"


def test_both_levels_are_raised_once_each(play):
    for _ in range(12):
        play.spend("0.10")
    assert [(one.severity, one.value) for one in play.raised()] == [("ticket", "0.8"), ("page", "1")]
    assert play.halted() == [("run-1", "budget_run")]


def test_ten_times_ten_cents_are_a_dollar(play):
    for _ in range(10):
        play.spend("0.1")
    assert play.halted() == [("run-1", "budget_run")]


def test_repeats_are_counted_and_told_when_the_run_finishes(play):
    play.spend("0.85")
    play.spend("0.02")
    play.spend("0.02")
    (resolved,) = play.finish()
    assert resolved == ResolveAlert(play.raised()[0].alert_id, "refund-desk", "the run has finished", repeats=2)


def test_costs_of_tools_count_as_well(play):
    play.event(cost=Cost(Decimal("0.6"), "reported"), tool="pay", pair=1)
    play.spend("0.6")
    assert play.halted() == [("run-1", "budget_run")]


def test_costs_count_at_once_whatever_their_order(play):
    play.spend("1.10", seq=57)
    assert play.halted() == [("run-1", "budget_run")]


def test_costs_after_the_end_count_and_leave_no_alert_open(play):
    play.finish()
    play.spend("1.10", seq=1)
    play.spend("0.10", seq=2)
    assert play.halted() == [("run-1", "budget_run")]
    assert len(play.raised()) == 1
    assert play.open() == set()


def test_calls_without_a_price_are_said_and_never_counted_as_free(play):
    play.spend(None)
    play.spend(None)
    assert play.raised() == []
    _, alert = play.spend("1.5")
    assert alert.basis == "unpriced"
    assert alert.title == (
        "Run run-1 of refund-desk has spent at least $1.50 of its $1.00 budget (2 calls have no known price)"
        " and is halted"
    )


def test_an_estimate_says_so(play):
    play.spend("0.5", basis="reported")
    (alert,) = play.spend("0.3", basis="estimated")
    assert alert.basis == "estimated"
    assert alert.title == "Run run-1 of refund-desk has spent about $0.80 of its $1.00 budget"


def test_a_nonsensical_cost_halts_its_run(play):
    for _ in range(3):
        play.spend("9" * 400)
    assert play.halted() == [("run-1", "budget_run")]
    assert play.raised()[0].value == "1000000000000"


def test_a_raised_budget_ends_the_alert_and_a_lowered_one_halts_a_run_in_flight(play):
    play.spend("0.90")
    play.limits = replace(play.limits, run=Limit(Decimal("10")))
    (resolved,) = play.tick()
    assert resolved.reason == "the budget is now $10.00"
    play.limits = replace(play.limits, run=Limit(Decimal("0.50")))
    play.tick()
    assert play.halted() == [("run-1", "budget_run")]
    assert (play.raised()[-1].event_id, play.raised()[-1].seq) == (None, None)


def test_a_second_way_past_a_raised_budget_halts_again(play):
    play.spend("1.00")
    play.limits = replace(play.limits, run=Limit(Decimal("2")), ticket=Limit(Decimal("9")))
    play.tick()
    play.spend("1.00")
    assert play.halted() == [("run-1", "budget_run")] * 2
    assert len({one.alert_id for one in play.raised("page")}) == 2


def test_a_ticket_adds_up_its_runs_and_halts_all_that_are_in_flight(play):
    play.limits = replace(play.limits, run=Limit(Decimal("5")))
    play.spend("0.70", "run-1", ticket="T-1")
    play.finish("run-1", ticket="T-1")
    play.event("run-2", ticket="T-1")
    (alert,) = play.spend("0.90", "run-3", ticket="T-1")
    assert alert.title == "Ticket T-1 of refund-desk has spent $1.60 of its $2.00 budget"
    assert (alert.rule, alert.ticket, alert.run_id) == ("budget_ticket", "T-1", "run-3")
    decisions = play.spend("0.40", "run-3", ticket="T-1")
    assert play.halted() == [("run-2", "budget_ticket"), ("run-3", "budget_ticket")]
    assert decisions[-1].title == "Ticket T-1 of refund-desk has spent $2.00 of its $2.00 budget and is halted"


def test_a_new_run_of_a_spent_ticket_is_halted_at_its_first_event(play):
    play.limits = replace(play.limits, run=Limit(Decimal("5")))
    play.spend("2.00", "run-1", ticket="T-1")
    play.event("run-2", ticket="T-1")
    play.event("run-2", ticket="T-1")
    assert play.halted() == [("run-1", "budget_ticket"), ("run-2", "budget_ticket")]
    assert len(play.raised()) == 1


def test_a_tickets_alert_ends_with_its_last_run_and_comes_back_with_the_next(play):
    play.limits = replace(play.limits, run=Limit(Decimal("5")))
    play.spend("2.00", "run-1", ticket="T-1")
    play.event("run-2", ticket="T-1")
    assert play.finish("run-1") == []
    (resolved,) = play.finish("run-2")
    assert resolved.reason == "every run of the ticket has finished"
    play.event("run-3", ticket="T-1")
    assert play.halted()[-1] == ("run-3", "budget_ticket")
    assert len(play.raised()) == 2


def test_a_run_over_both_budgets_is_halted_once_by_its_own(play):
    play.spend("1.95", "run-0", ticket="T-1")
    play.finish("run-0")
    play.decisions.clear()
    play.spend("1.00", "run-1", ticket="T-1")
    assert play.halted() == [("run-1", "budget_run")]
    assert {one.rule for one in play.raised()} == {"budget_run", "budget_ticket"}


def test_what_a_run_spent_before_it_named_its_ticket_counts(play):
    play.limits = replace(play.limits, run=Limit(Decimal("5")))
    play.spend("1.00")
    play.spend("1.00", ticket="T-1")
    assert play.halted() == [("run-1", "budget_ticket")]


def test_a_raised_ticket_budget_that_is_spent_again_halts_again(play):
    play.limits = replace(play.limits, run=Limit(Decimal("50")))
    play.spend("2.00", ticket="T-1")
    play.limits = replace(play.limits, ticket=Limit(Decimal("5")))
    play.tick()
    assert play.open() == set()
    play.limits = replace(play.limits, ticket=Limit(Decimal("3")))
    play.spend("1.00")
    assert play.halted() == [("run-1", "budget_ticket")] * 2


def test_runs_without_a_ticket_share_no_budget(play):
    for number in range(5):
        play.spend("0.45", f"run-{number}")
    assert play.decisions == []


def test_a_replay_halts_nothing_and_pages_nobody(played):
    play = played(mode="replay")
    alert, _ = play.spend("1.00", ticket="T-1")
    assert (alert.mode, alert.action, alert.severity) == ("replay", "would_halt_run", "info")
    assert alert.title.endswith("budget and would be halted")


@pytest.mark.parametrize(
    ("mode", "severity"), [("live", "page"), ("drill", "page"), ("eval", "ticket"), ("shadow", "ticket")]
)
def test_every_other_mode_is_halted_and_only_real_work_pages(played, mode, severity):
    play = played(mode=mode)
    halt, alert = play.spend("1.00")
    assert isinstance(halt, HaltRun)
    assert (alert.mode, alert.action, alert.severity) == (mode, "halted_run", severity)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0", "$0.00"), ("0.996", "$0.99"), ("1", "$1.00"), ("1234.5", "$1,234.50"), ("0.05", "$0.0500"),
        ("0.0003006", "$0.0003006"), ("0.00000000001", "$0.00000000"), ("1000000000000", "$1,000,000,000,000.00"),
    ],
)  # fmt: skip
def test_dollars_are_cut_not_rounded_up(amount, text):
    assert say.dollars(Decimal(amount)) == text


def test_a_name_cannot_disturb_a_terminal():
    assert say.name("run\x1b[31m\n" + "x" * 100) == "run?[31m?" + "x" * 51 + "…"


def unpriced(play, tokens, times=1):
    return [said for _ in range(times) for said in play.spend(None, tokens=tokens)]


def test_a_run_without_known_prices_is_bounded_by_its_tokens(play):
    play.limits = replace(play.limits, run_tokens=1000)
    (half,), (told,) = unpriced(play, 500), unpriced(play, 300)
    assert (half.rule, half.severity, told.severity) == ("budget_run_tokens", "info", "ticket")
    halt, alert = unpriced(play, 200)
    assert (halt.run_id, halt.rule) == ("run-1", "budget_run_tokens")
    assert (alert.value, alert.limit, alert.basis) == (1000, 1000, "unpriced")
    assert alert.title == (
        "Run run-1 of refund-desk has used 1,000 of its 1,000 tokens (3 calls have no known price) and is halted"
    )


def test_a_run_that_reports_no_tokens_either_is_bounded_by_its_steps(play):
    play.limits = replace(play.limits, run_steps=4)
    unpriced(play, 0, times=3)
    assert play.halted() == []
    unpriced(play, 0)
    assert play.halted() == [("run-1", "budget_run_steps")]


def test_a_run_whose_prices_are_known_may_use_what_its_dollars_buy(play):
    play.limits = replace(play.limits, run_tokens=10, run_steps=2)
    for _ in range(5):
        play.spend("0.01", tokens=500)
    assert play.decisions == []


@pytest.mark.parametrize(("action", "halted"), [("alert", []), ("fall_back", [("run-1", "budget_run")])])
def test_the_card_says_what_happens_at_the_limit_of_a_run(play, action, halted):
    play.limits = replace(play.limits, run=Limit(Decimal("1.00"), action))
    *_, alert = play.spend("1.00")
    assert play.halted() == halted
    assert (alert.severity, alert.action) == ("page", "halted_run" if halted else "none")


@pytest.mark.parametrize(("budget", "rule"), [("run", "budget_run"), ("ticket", "budget_ticket")])
def test_halt_agent_halts_the_run_and_its_agent_until_a_person_resumes_it(play, budget, rule):
    play.limits = replace(play.limits, run=Limit(Decimal("50")), ticket=Limit(Decimal("50")))
    play.limits = replace(play.limits, **{budget: Limit(Decimal("1.00"), "halt_agent")})
    play.spend("1.00", ticket="T-1")
    assert play.halted() == [("run-1", rule)]
    (halt,) = [one for one in play.decisions if isinstance(one, HaltAgent)]
    assert (halt.agent, halt.rule, halt.expires_at) == ("refund-desk", rule, None)
    assert play.raised("page")[-1].action == "halted_agent"
