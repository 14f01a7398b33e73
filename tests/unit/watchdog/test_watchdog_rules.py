"""The rules that count: the same write, the same cycle of calls, the same text, hand-offs of one ticket."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from midwatch.contracts.control import Card, LoopRule, RepeatRule, ToolRule
from midwatch_services.cost_watchdog import policy
from midwatch_services.cost_watchdog.alerts import HaltRun
from midwatch_services.cost_watchdog.rules.memory import Facts
from midwatch_services.cost_watchdog.rules.repeats import REMEMBERED
from midwatch_services.cost_watchdog.state import RunState, TicketState


def card(play: Any, **said: RepeatRule) -> None:
    play.limits = replace(play.limits, loops=LoopRule(**said))


# Writes


def test_the_fourth_time_of_one_write_halts(play):
    for _ in range(3):
        play.writes(7)
    assert play.decisions == []
    play.writes(8)
    halt, alert = play.writes(7)
    assert isinstance(halt, HaltRun)
    assert (halt.run_id, halt.rule) == ("run-1", "loop_writes")
    assert (alert.rule, alert.value, alert.limit, alert.severity) == ("loop_writes", 4, 4, "page")
    assert (alert.action, alert.first_seq, alert.seq, alert.event_id) == ("halted_run", 0, 4, "e5")
    assert alert.tool == "issue_refund"
    assert alert.title == (
        "Run run-1 of refund-desk has made the same write 4 times, with success each time "
        "(issue_refund, events 0 to 4) and is halted"
    )


def test_a_write_that_failed_and_a_call_that_does_not_write_do_not_count(play):
    for _ in range(10):
        play.writes(7, ok=False)
        play.does(8)
    assert "loop_writes" not in {one.rule for one in play.raised()}


def test_a_tool_that_the_card_says_writes_counts_whatever_its_event_says(play):
    play.limits = replace(play.limits, writes=frozenset({"lookup_order"}))
    for _ in range(4):
        play.does(7)
    assert ("run-1", "loop_writes") in play.halted()


def test_different_writes_are_counted_apart_and_by_run(play):
    for number in range(20):
        play.writes(number)
        play.writes(7, f"run-{number + 2}")
    assert play.decisions == []


def test_one_alert_is_open_however_often_it_is_met_and_ends_with_the_run(play):
    for _ in range(94):
        play.writes(7)
    (alert,) = play.raised()
    assert play.halted() == [("run-1", "loop_writes")]
    play.finish()
    (end,) = play.resolved()
    assert (end.alert_id, end.repeats, end.reason) == (alert.alert_id, 90, "the run has finished")


def test_the_writes_that_are_remembered_are_bounded_and_one_that_is_repeated_stays(play):
    for number in range(3 * REMEMBERED):
        play.writes(1000 + number)
        if number % 100 == 0:
            play.writes(7)
    assert len(play.runs["run-1"].loops.writes) == REMEMBERED
    assert ("run-1", "loop_writes") in play.halted()


# Cycles


def test_the_third_round_of_two_calls_is_a_cycle_and_by_default_only_said(play):
    for call in (1, 2, 1, 2, 1):
        play.does(call)
    assert play.decisions == []
    (alert,) = play.does(2)
    assert (alert.rule, alert.value, alert.limit, alert.severity) == ("loop_cycle", 3, 3, "ticket")
    assert (alert.action, alert.first_seq, alert.seq) == ("would_halt_run", 0, 5)
    assert alert.title == (
        "Run run-1 of refund-desk has gone 3 times in a row through the same 2 tool calls "
        "(the last: lookup_order, events 0 to 5) and would be halted"
    )
    assert play.halted() == []


@pytest.mark.parametrize("length", [2, 3, 4, 5, 6])
def test_rounds_of_two_to_six_calls_are_found_at_their_last_call(play, length):
    for _ in range(2):
        for call in range(length):
            play.does(call)
    for call in range(length - 1):
        assert play.does(call) == []
    (alert,) = play.does(length - 1)
    assert (alert.rule, alert.value) == ("loop_cycle", 3)
    assert f"the same {length} tool calls" in alert.title


def test_rounds_of_seven_and_the_same_call_again_and_again_are_no_cycle(play):
    for call in (*range(7), *range(7), *range(7), *([9] * 40)):
        play.does(call)
    assert play.decisions == []


def test_a_cycle_may_hold_the_same_call_twice(play):
    for call in (1, 1, 2, 1, 1, 2, 1, 1):
        assert play.does(call) == []
    assert play.does(2)[0].rule == "loop_cycle"


def test_a_call_that_leaves_the_cycle_ends_it_and_its_next_time_is_a_new_one(play):
    for call in (1, 2, 1, 2, 1, 2, 1, 2, 3):
        play.does(call)
    (first,) = play.raised()
    (end,) = play.resolved()
    assert (end.reason, end.repeats) == ("the run left the cycle", 1)
    for call in (1, 2, 1, 2, 1, 2):
        play.does(call)
    assert [one.first_seq for one in play.raised()] == [0, 9]
    assert play.open() == {first.dedupe_key}


def test_a_cycle_that_acts_halts(play):
    card(play, cycle=RepeatRule(halt_at=2, mode="act"))
    for call in (1, 2, 1, 2):
        play.does(call)
    assert play.halted() == [("run-1", "loop_cycle")]
    assert play.raised()[0].severity == "page"


# Texts


def test_the_third_time_of_one_text_is_said(play):
    for text in (1, 2, 1):
        play.says(text)
    assert play.decisions == []
    (alert,) = play.says(1)
    assert (alert.rule, alert.value, alert.limit, alert.action) == ("loop_text", 3, 3, "would_halt_run")
    assert alert.title == "Run run-1 of refund-desk has said the same 3 times (events 0 to 3) and would be halted"


def test_the_texts_that_are_remembered_are_bounded(play):
    for number in range(2 * REMEMBERED):
        play.says(number)
    assert len(play.runs["run-1"].loops.texts) == REMEMBERED
    assert play.decisions == []


# Hand-offs


def test_hand_offs_count_by_ticket_over_its_runs_and_concern_the_run_that_hands_off(play):
    card(play, hand_offs=RepeatRule(halt_at=3, mode="act"))
    play.hands_off("run-1", ticket="T-1")
    play.hands_off("run-2", ticket="T-1")
    play.hands_off("run-9", ticket="T-9")
    assert play.decisions == []
    halt, alert = play.hands_off("run-3", ticket="T-1")
    assert (halt.run_id, halt.rule) == ("run-3", "loop_hand_offs")
    assert (alert.run_id, alert.ticket, alert.value, alert.action) == ("run-3", "T-1", 3, "halted_run")
    assert alert.title == (
        "Ticket T-1 of refund-desk has been handed off 3 times, the last time by run run-3 (event 0) and is halted"
    )


def test_what_a_run_handed_off_before_it_named_its_ticket_counts(play):
    card(play, hand_offs=RepeatRule(halt_at=3))
    play.hands_off()
    play.hands_off(ticket="T-1")
    play.hands_off("run-2", ticket="T-1")
    assert [one.run_id for one in play.raised()] == ["run-2"]


def test_a_run_without_a_ticket_counts_for_itself(play):
    for _ in range(5):
        play.hands_off()
        play.hands_off("run-2")
    assert play.decisions == []
    (alert,) = play.hands_off()
    assert alert.title == (
        "Run run-1 of refund-desk has handed its case off 6 times (events 0 to 5) and would be halted"
    )


# All of them

DO: dict[str, Callable[[Any], Any]] = {
    "writes": lambda play: play.writes(7),
    "cycle": lambda play: [play.does(call) for call in (1, 2)],
    "text": lambda play: play.says(7),
    "hand_offs": lambda play: play.hands_off(),
}


@pytest.mark.parametrize("rule", DO)
def test_a_raised_limit_ends_the_alert_and_a_lowered_one_judges_what_was_done(play, rule):
    card(play, **{rule: RepeatRule(halt_at=3, mode="act")})
    for _ in range(3):
        DO[rule](play)
    assert play.halted() == [("run-1", f"loop_{rule}")]
    card(play, **{rule: RepeatRule(halt_at=4, mode="act")})
    (end,) = play.tick()
    assert end.reason == "the limit is now 4"
    assert play.open() == set()
    card(play, **{rule: RepeatRule(halt_at=2, mode="act")})
    play.tick()
    assert play.halted() == [("run-1", f"loop_{rule}")] * 2
    assert play.tick() == []


@pytest.mark.parametrize("rule", DO)
def test_a_rule_that_observed_and_now_acts_halts_what_it_only_spoke_of(play, rule):
    card(play, **{rule: RepeatRule(halt_at=3)})
    for _ in range(3):
        DO[rule](play)
    assert play.halted() == []
    card(play, **{rule: RepeatRule(halt_at=3, mode="act")})
    play.tick()
    assert play.halted() == [("run-1", f"loop_{rule}")]
    assert [one.reason for one in play.resolved()] == ["the rule now halts"]
    card(play, **{rule: RepeatRule(halt_at=3)})
    play.tick()
    assert play.resolved()[-1].reason == "the rule now only observes"
    assert play.open() == {f"loop_{rule}.observe/live/refund-desk/run-1"}


@pytest.mark.parametrize("rule", DO)
@pytest.mark.parametrize("mode", ["observe", "act"])
def test_a_replay_halts_nothing_and_pages_nobody(played, rule, mode):
    play = played(mode="replay")
    card(play, **{rule: RepeatRule(halt_at=3, mode=mode)})
    for _ in range(3):
        DO[rule](play)
    (alert,) = play.decisions
    assert (alert.severity, alert.action) == ("info", "would_halt_run")


@pytest.mark.parametrize("rule", DO)
def test_the_events_of_a_run_are_judged_in_their_order(play, rule):
    card(play, **{rule: RepeatRule(halt_at=3, mode="act")})
    play.event(seq=0)
    play.event(seq=20)
    for _ in range(3):
        DO[rule](play)
    assert play.halted() == [("run-1", f"loop_{rule}")]
    assert play.raised()[-1].first_seq == 1


@pytest.mark.parametrize("rule", DO)
def test_a_run_that_has_finished_raises_nothing_twice(play, rule):
    card(play, **{rule: RepeatRule(halt_at=3, mode="act")})
    for _ in range(3):
        DO[rule](play)
    play.finish()
    before = len(play.decisions)
    for _ in range(9):
        DO[rule](play)
    assert play.decisions[before:] == []


def test_names_of_tools_and_tickets_cannot_disturb_a_terminal(play):
    for _ in range(4):
        play.does(7, tool="pay\x1b[2J" + "x" * 100, write=True)
    (alert,) = play.raised()
    assert "\x1b" not in alert.title + alert.tool
    assert len(alert.tool) <= 61


def test_the_rules_of_a_card_are_obeyed(play):
    loops = LoopRule(text=RepeatRule(halt_at=2, mode="act"))
    tools = {"pay": ToolRule(kind="write"), "look": ToolRule(kind="read"), "w" * 100: ToolRule(kind="write")}
    made = policy.of(Card(agent="a", owner="o", purpose="p", can=["c"], loops=loops, tools=tools))
    assert made.loops is loops
    assert made.writes == {"pay", "w" * 60}


def test_what_is_remembered_of_a_run_is_bounded_whatever_it_does(play):
    for number in range(5000):
        play.event(tool="t" * 60, pair=number, facts=Facts(call=number, ok=True, write=True, text=number, tokens=1e12))
    assert len(msgspec.msgpack.encode(play.runs["run-1"])) < 64 * 1024


def test_a_state_of_the_former_release_is_read_and_goes_on(play):
    old = {
        "next_seq": 5, "streak": 4, "seen": [1], "waiting": [[7, "e7", 1.0, "t", 1]],
        "alerts": {"loop_no_new_state.warn": ["a-1", 1]},
    }  # fmt: skip
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(old), type=RunState)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode({"raised": 1}), type=TicketState).hand_offs == 0
    play.runs["run-1"] = state
    play.call(1, seq=5)
    assert play.halted() == [("run-1", "loop_no_new_state")]
