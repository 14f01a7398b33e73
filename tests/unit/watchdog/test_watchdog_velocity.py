"""The velocity rule: a run against what is usual for its agent, in dollars and in tokens."""

from dataclasses import replace
from math import exp
from typing import Any

import pytest

from midwatch.contracts.control import LoopRule, VelocityRule
from midwatch_services.cost_watchdog.rules.velocity import RUNS

TIMES = 5  # by default


def accustom(play: Any, runs: int = RUNS, **used: float) -> None:
    """So many finished runs, each of one call."""
    for number in range(runs):
        play.uses(run_id=f"usual-{number}", **used)
        play.finish(f"usual-{number}")


def acts(play: Any, times: float = TIMES) -> None:
    play.limits = replace(play.limits, loops=LoopRule(velocity=VelocityRule(times=times, mode="act")))


def test_a_run_at_five_times_the_usual_tokens_is_said(play):
    accustom(play, tokens=1000)
    play.uses(tokens=4990)
    assert play.decisions == []
    (alert,) = play.uses(tokens=10)
    assert (alert.rule, alert.value, alert.limit, alert.severity) == ("velocity", 5000, 5000, "ticket")
    assert (alert.action, alert.first_seq, alert.seq) == ("would_halt_run", 0, 1)
    assert alert.title == (
        "Run run-1 of refund-desk uses 5,000 tokens a minute, 5 times the 1,000 tokens that its agent's runs reach "
        "at most and would be halted"
    )


def test_a_run_at_five_times_the_usual_cost_is_halted_where_the_rule_acts(play):
    acts(play)
    accustom(play, dollars=0.02)
    halt, alert = play.uses(dollars=0.1)
    assert (halt.run_id, halt.rule) == ("run-1", "velocity")
    assert (alert.value, alert.limit, alert.severity, alert.action) == ("0.1", "0.1", "page", "halted_run")
    assert "uses $0.10 a minute, 5 times the $0.0200 that" in alert.title


def test_before_twenty_runs_have_finished_nothing_is_judged(play):
    accustom(play, RUNS - 1, tokens=1000)
    play.uses(tokens=1_000_000)
    assert play.decisions == []
    play.uses(tokens=1000, run_id="twentieth")
    play.finish("twentieth")
    assert play.uses(tokens=1)[0].rule == "velocity"


def test_an_agent_without_prices_is_judged_by_its_tokens_and_one_with_both_by_the_worse(play):
    accustom(play, tokens=1000, dollars=0.01)
    play.uses(tokens=4000, dollars=0.04)
    assert play.decisions == []
    assert "uses 6,000 tokens a minute" in play.uses(tokens=2000)[0].title
    assert "uses $0.06" in play.uses(tokens=4000, dollars=0.06, run_id="run-2")[0].title


def test_what_was_used_a_minute_ago_counts_for_less(play):
    accustom(play, tokens=1000)
    for minute in range(60):
        play.uses(tokens=3000, at=60 * minute)  # its sum comes to 3000 / (1 - 1/e), below five thousand
    assert play.decisions == []
    assert play.runs["run-1"].loops.pace.tokens == pytest.approx(3000 / (1 - exp(-1)))
    assert play.uses(tokens=3000, at=60 * 59)[0].rule == "velocity"


def test_a_burst_after_hours_of_quiet_is_seen_and_its_end_as_well(play):
    accustom(play, tokens=1000)
    play.uses(tokens=1000)
    play.uses(tokens=6000, at=7200)
    assert len(play.open()) == 1
    play.uses(tokens=1, at=7200 + 30)
    assert len(play.open()) == 1  # still above half of the limit
    play.uses(tokens=1, at=7200 + 90)
    assert play.open() == set()
    assert play.resolved()[0].reason == "the run is slower again"


def test_a_call_whose_time_lies_back_counts_for_as_little_as_if_it_had_come_then(play):
    accustom(play, tokens=1000)
    play.uses(tokens=2000, at=600)
    play.uses(tokens=4000, at=540)
    assert play.decisions == []
    assert play.runs["run-1"].loops.pace.tokens == pytest.approx(2000 + 4000 / exp(1))


def test_what_is_usual_follows_the_agent_and_one_runaway_does_not_change_it(play):
    accustom(play, tokens=1000)
    play.uses(tokens=50_000_000, run_id="runaway")
    play.finish("runaway")
    assert exp(play.usual.tokens) < 1200
    for number in range(100):
        play.uses(tokens=4000, run_id=f"later-{number}")
        play.finish(f"later-{number}")
    assert exp(play.usual.tokens) == pytest.approx(4000, rel=0.02)


@pytest.mark.parametrize("resolution", ["halted", "fell_back"])
def test_a_run_that_was_stopped_teaches_nothing(play, resolution):
    play.uses(tokens=1000)
    play.event(finished=resolution)
    assert play.usual.token_runs == 0


def test_a_run_teaches_once_and_not_before_its_gaps_are_closed(play):
    play.uses(tokens=1000)
    play.event(seq=3, finished="resolved")
    assert play.usual.token_runs == 0
    play.uses(tokens=1000, seq=1)
    play.uses(tokens=1000, seq=2)
    assert play.usual.token_runs == 1
    assert exp(play.usual.tokens) == pytest.approx(3000)
    play.uses(tokens=1000, seq=4)
    assert play.usual.token_runs == 1


def test_a_run_that_used_nothing_teaches_nothing(play):
    play.event()
    play.finish()
    assert (play.usual.token_runs, play.usual.dollar_runs) == (0, 0)


def test_a_raised_limit_ends_the_alert(play):
    accustom(play, tokens=1000)
    play.uses(tokens=6000)
    play.limits = replace(play.limits, loops=LoopRule(velocity=VelocityRule(times=7)))
    (end,) = play.tick()
    assert end.reason == "the limit is now 7 times what is usual"


def test_a_rule_that_now_acts_ends_what_it_only_said_and_halts_at_the_next_call(play):
    accustom(play, tokens=1000)
    play.uses(tokens=6000)
    acts(play)
    play.tick()
    assert play.open() == set()
    play.uses(tokens=1)
    assert play.halted() == [("run-1", "velocity")]


def test_nonsensical_figures_are_numbers_still(play):
    accustom(play, tokens=1000)
    play.uses(tokens=1e12, dollars=1e12, at=1e11)
    play.uses(tokens=1e12, dollars=1e12, at=-1e11)
    play.finish()
    assert exp(play.usual.tokens) < 1200


def test_a_replay_only_says_it(played):
    play = played(mode="replay")
    acts(play)
    accustom(play, tokens=1000)
    (alert,) = play.uses(tokens=9000)
    assert (alert.severity, alert.action) == ("info", "would_halt_run")
