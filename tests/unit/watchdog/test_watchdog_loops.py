"""The loop rule: alert at a streak of 3 calls without new state, halt at 5."""

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch_services.cost_watchdog import policy
from midwatch_services.cost_watchdog.alerts import HaltRun

LOOP = "loop_no_new_state"


def test_the_first_of_equal_calls_is_new_and_the_fifth_repeat_halts(play):
    assert play.calls([7, 7, 7]) == []
    (alert,) = play.call(7)
    assert (alert.rule, alert.severity, alert.action) == (LOOP, "ticket", "none")
    assert (alert.value, alert.limit, alert.event_id, alert.seq) == (3, 3, "e4", 3)
    assert play.call(7) == []
    halt, page = play.call(7)
    assert isinstance(halt, HaltRun)
    assert (page.value, page.limit, page.severity, page.action, page.seq) == (5, 5, "page", "halted_run", 5)
    assert page.title == (
        "Run run-1 of refund-desk has made 5 tool calls in a row that brought nothing new (the last: lookup_order)"
        " and is halted"
    )


def test_going_to_and_fro_between_known_states_is_a_loop(play):
    play.calls([1, 2, 1, 2, 1, 2, 1])
    assert play.halted() == [("run-1", LOOP)]


def test_a_call_with_a_new_result_ends_the_streak(play):
    play.calls([1, 1, 1, 1, 1, 2, 1, 1, 2, 2])
    assert play.halted() == []
    assert [one.value for one in play.raised()] == [3, 3]
    assert play.resolved()[0].reason == "a tool call brought something new"


def test_what_is_no_tool_call_neither_counts_nor_ends_a_streak(play):
    for _ in range(6):
        play.call(1)
        play.spend("0.01")
        play.event()
    assert play.halted() == [("run-1", LOOP)]


def test_alert_and_halt_are_raised_once_however_long_the_loop(play):
    play.calls([1] * 100)
    assert len(play.raised()) == 2
    assert play.halted() == [("run-1", LOOP)]
    play.finish()
    assert {one.repeats for one in play.resolved()} == {1, 94}  # 4; 6 to 99
    assert play.open() == set()


def test_a_second_loop_after_something_new_halts_again(play):
    play.calls([1] * 6 + [2] + [1] * 5)
    assert play.halted() == [("run-1", LOOP)] * 2
    assert len({one.alert_id for one in play.raised()}) == 4


def test_runs_do_not_share_what_they_have_seen(play):
    for number in range(10):
        play.call(1, f"run-{number}")
    assert play.decisions == []


def test_the_card_may_halt_sooner_than_it_alerts(play):
    play.limits = replace(play.limits, alert_at=9, halt_at=2)
    play.calls([1, 1, 1])
    assert play.halted() == [("run-1", LOOP)]


def test_a_call_that_came_too_early_waits_for_those_before_it(play):
    play.calls([1, 1, 1, 1, 1])
    assert play.call(1, seq=6) == []  # seq 5 may bring something new, and it does
    assert play.call(2, seq=5) != []
    assert play.halted() == []
    assert play.runs["run-1"].streak == 1


def test_a_gap_closes_after_five_seconds(play):
    play.calls([1, 1, 1, 1, 1])
    play.call(1, seq=6)
    assert play.tick(4.9) == []
    play.tick(0.1)
    assert play.halted() == [("run-1", LOOP)]
    assert play.raised()[-1].seq == 6


def test_an_event_whose_gap_has_closed_is_judged_as_it_comes(play):
    play.call(1, seq=3)
    play.tick(5)
    for seq in (0, 1, 2, 0, 1):
        play.call(1, seq=seq)
    assert play.halted() == [("run-1", LOOP)]


def test_an_agent_whose_seq_never_grows_is_watched_too(play):
    for _ in range(6):
        play.call(1, seq=0)
    assert play.halted() == [("run-1", LOOP)]


def test_numbers_with_holes_are_judged_in_their_order_once_time_has_passed(play):
    for seq in (500, 300, 700, 100, 600, 200):
        play.call(1, seq=seq)
    play.tick(5)
    assert play.halted() == [("run-1", LOOP)]
    assert play.raised()[-1].seq == 700


def test_the_events_that_wait_are_bounded(play):
    for seq in range(1, policy.WAITING_LIMIT + 1):
        play.event(seq=seq)
    assert len(play.runs["run-1"].waiting) == policy.WAITING_LIMIT
    play.event(seq=policy.WAITING_LIMIT + 1)
    assert play.runs["run-1"].waiting == ()


def test_of_very_many_calls_the_last_are_remembered(play):
    many = range(3 * policy.MEMORY)
    play.calls(many)
    state = play.runs["run-1"]
    assert len(state.seen) + len(state.older) <= 2 * policy.MEMORY
    play.calls(list(many)[-5:])
    assert play.halted() == [("run-1", LOOP)]


def test_an_event_without_a_place_in_the_order_leaves_no_gap(play):
    play.event(seq=None)
    play.calls([1] * 6)
    assert play.halted() == [("run-1", LOOP)]


def test_a_replay_says_what_would_have_been(played):
    play = played(mode="replay")
    play.calls([1] * 6)
    assert play.halted() == []
    assert play.raised("info")[-1].action == "would_halt_run"


@settings(max_examples=100)
@given(pairs=st.lists(st.integers(0, 2), max_size=30), seed=st.integers(0, 2**32), late_end=st.booleans())
def test_any_order_within_five_seconds_ends_in_the_same_halts(played, pairs, seed, late_end):
    in_order, shuffled = played(), played()
    events = [{"seq": seq, "pair": pair, "tool": "t", "event_id": f"e{seq}"} for seq, pair in enumerate(pairs)]
    events.append({"seq": len(pairs), "finished": "resolved", "event_id": "end"})
    for event in events:
        in_order.event(**event)
    order = events[:]
    random.Random(seed).shuffle(order)
    for event in order:
        shuffled.event(**event)
        shuffled.now += (policy.GAP / (len(events) + 1)) if late_end else policy.GAP * 0
    assert set(shuffled.halted()) == set(in_order.halted())
    assert sorted((a.dedupe_key, a.seq) for a in shuffled.raised()) == sorted(
        (a.dedupe_key, a.seq) for a in in_order.raised()
    )
    assert shuffled.open() == in_order.open() == set()
    assert shuffled.runs["run-1"].waiting == ()
