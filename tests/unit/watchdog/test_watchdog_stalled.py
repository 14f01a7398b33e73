"""Runs that have stalled: half an hour without an event by default."""

from dataclasses import replace

import pytest
from msgspec import structs

from midwatch.contracts.control import LoopRule
from midwatch_services.cost_watchdog.rules.memory import LoopState

HALF_HOUR = 1800.0


def test_half_an_hour_of_silence_is_said_and_halts_nothing(play):
    play.event()
    assert play.tick(HALF_HOUR - 1, silence=True) == []
    (alert,) = play.tick(1, silence=True)
    assert (alert.rule, alert.severity, alert.action) == ("stalled", "ticket", "none")
    assert (alert.value, alert.limit) == (1800, 1800)
    assert alert.title == "Run run-1 of refund-desk has shown no event for 30 minutes and has not finished"
    assert play.halted() == []


def test_it_is_said_once_and_ends_with_the_next_event(play):
    play.event()
    play.tick(HALF_HOUR, silence=True)
    assert play.runs["run-1"].loops.stalls_at is None
    assert play.tick(HALF_HOUR, silence=True) == []
    (end,) = play.event()
    assert end.reason == "the run goes on"
    assert len(play.tick(HALF_HOUR, silence=True)) == 1
    assert len({one.alert_id for one in play.raised()}) == 2


def test_it_ends_with_the_run(play):
    play.event()
    play.tick(HALF_HOUR, silence=True)
    play.finish()
    assert play.open() == set()
    assert play.tick(10 * HALF_HOUR, silence=True) == []


def test_an_event_that_still_waits_for_an_earlier_one_is_a_sign_of_life(play):
    play.event()
    play.tick(HALF_HOUR - 1)
    play.event(seq=7)
    assert play.tick(2, silence=True) == []


def test_it_is_reckoned_from_the_last_event(play):
    play.event()
    play.tick(1000)
    play.event()
    assert play.tick(HALF_HOUR - 1, silence=True) == []
    assert len(play.tick(1, silence=True)) == 1


def test_a_card_that_waits_less_is_obeyed_once_silence_means_something(play):
    play.event()
    play.limits = replace(play.limits, loops=LoopRule(stalled=60))
    assert play.tick(100) == []
    assert play.runs["run-1"].loops.stalls_at == play.runs["run-1"].loops.heard + 60
    assert len(play.tick(silence=True)) == 1
    assert play.tick(100) == []
    assert play.runs["run-1"].loops.stalls_at is None


def test_silence_that_means_nothing_is_not_said(play):
    play.event()
    assert play.tick(10 * HALF_HOUR) == []
    assert play.runs["run-1"].loops.stalls_at is not None
    assert len(play.tick(silence=True)) == 1


@pytest.mark.parametrize(("seconds", "said"), [(90, "90 seconds"), (7200, "2 hours"), (3 * 86400, "3 days")])
def test_the_silence_is_said_in_words(play, seconds, said):
    play.limits = replace(play.limits, loops=LoopRule(stalled=60))
    play.event()
    assert f"no event for {said} and" in play.tick(seconds, silence=True)[0].title


def test_the_card_may_wait_longer_or_for_ever(play):
    play.event()
    play.tick(HALF_HOUR, silence=True)
    play.limits = replace(play.limits, loops=LoopRule(stalled=7200))
    (end,) = play.tick(silence=True)
    assert end.reason == "the limit is now 7200 seconds"
    assert len(play.tick(5400, silence=True)) == 1
    play.limits = replace(play.limits, loops=LoopRule(stalled=0))
    assert play.tick(silence=True)[0].reason == "silence is not reported any more"
    assert play.tick(10 * HALF_HOUR, silence=True) == []
    play.event()
    assert play.runs["run-1"].loops.stalls_at is None


def test_a_replay_is_not_watched(played):
    play = played(mode="replay")
    play.event()
    assert play.runs["run-1"].loops.stalls_at is None
    assert play.tick(10 * HALF_HOUR, silence=True) == []


def test_a_run_of_a_former_release_is_watched_from_when_it_is_first_judged(play):
    play.event()
    play.runs["run-1"] = structs.replace(play.runs["run-1"], loops=LoopState())
    assert play.tick(10 * HALF_HOUR, silence=True) == []
    assert len(play.tick(HALF_HOUR, silence=True)) == 1
