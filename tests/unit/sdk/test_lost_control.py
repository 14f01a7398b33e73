"""What a process does, and says, when its lease has run out and when control is back."""

import logging
import time

import pytest

from midwatch import judged, keys, testing
from midwatch.contracts import control
from midwatch.contracts.control import SwitchRule
from midwatch.switch import Answer, LocalSwitch, clock

ABSENT = Answer(0, 0, None)


def read(switch: LocalSwitch, age: float) -> None:
    """All is read, and presence acknowledged, this many seconds ago."""
    for name in switch.keys:
        switch.take(name, ABSENT if "s." in name else Answer(1, 1, b'{"state":"running"}'), clock() - age)
    switch.confirm(clock() - age)


def switch(lost_control: str = "fall_back") -> LocalSwitch:
    made = LocalSwitch("desk")
    rule = SwitchRule(lease=2.0, lost_control=lost_control)  # type: ignore[arg-type]
    made.take_card(Answer(1, 1, control.encode(testing.card("desk", switch=rule))))
    made.take_route(ABSENT, clock())
    return made


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage().removeprefix("midwatch: ") for record in caplog.records]


@pytest.mark.parametrize(
    ("lost_control", "does"), [("fall_back", "falls back"), ("carry_on", "carries on from the last reading")]
)
def test_the_log_says_once_what_is_done_without_control(
    caplog: pytest.LogCaptureFixture, lost_control: str, does: str
) -> None:
    lost = switch(lost_control)
    read(lost, age=2.5)
    for _ in range(3):
        lost.review()
    assert said(caplog) == [f"the switch of agent desk could not be read for 2 s: it {does} until it can be read again"]


def test_the_log_says_once_that_control_is_back_and_for_how_long_it_was_lost(caplog: pytest.LogCaptureFixture) -> None:
    lost = switch()
    lost._began = clock() - 60
    read(lost, age=9.0)  # the lease ran out seven seconds ago
    caplog.clear()
    for _ in range(3):
        read(lost, age=0.0)
    assert said(caplog) == ["the switch of agent desk is read again, after 7.0 s without control"]


def test_control_lost_again_is_said_again(caplog: pytest.LogCaptureFixture) -> None:
    lost = switch()
    read(lost, age=3.0)
    read(lost, age=0.0)
    for key in lost.keys.values():
        key.asked = clock() - 3.0
    lost.review()
    assert [message.startswith("the switch of agent desk could not") for message in said(caplog)] == [True, False, True]


def test_a_process_that_is_starting_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    new = switch()
    new.review()
    read(new, age=0.0)
    assert said(caplog) == []


def test_a_process_that_never_had_control_says_so_once_its_first_lease_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    new = switch()
    new.known_by = clock()
    new.review()
    assert said(caplog) == [
        "the switch of agent desk could not be read for 2 s: it falls back until it can be read again"
    ]


@pytest.mark.parametrize("lost_control", ["fall_back", "carry_on"])
def test_presence_is_told_what_is_done_without_control_and_nothing_with_it(lost_control: str) -> None:
    lost = switch(lost_control)
    read(lost, age=2.5)
    assert lost.without_control == lost_control
    read(lost, age=0.0)
    assert lost.without_control is None


def test_without_one_reading_in_this_process_nothing_is_carried_on() -> None:
    assert switch("carry_on").without_control == "fall_back"


def test_the_age_of_the_last_reading_is_that_of_the_oldest_key() -> None:
    lost = switch()
    assert lost.read_age is None
    read(lost, age=1.0)
    lost.take("fleet", Answer(1, 1, b'{"state":"running"}'), clock())
    assert lost.read_age == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("asleep", [5.0, 3600.0])
async def test_the_check_before_a_call_sees_that_the_machine_slept(
    monkeypatch: pytest.MonkeyPatch, asleep: float
) -> None:
    calls: list[str] = []
    async with testing.midwatch() as mw, mw.agent("desk", version="1", fallback=lambda _: None).run(input="x") as run:
        assert run._switch is not None
        for key in run._switch.keys.values():
            key.asked = clock()
        run._switch.review()
        run.check()
        # The machine wakes: its clock has gone on, and no thread of ours has run yet.
        gettime = keys.gettime
        later = lambda *which: gettime(*which) + asleep  # noqa: E731
        monkeypatch.setattr(keys, "gettime", later)
        monkeypatch.setattr(judged, "gettime", later)
        await run.tool("refund", calls.append, "acted")
    assert calls == []
    assert mw.events[-1].data.resolution == "fell_back"


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="only Linux has it")
def test_on_linux_the_lease_runs_by_a_clock_that_counts_sleep() -> None:
    assert keys.gettime is time.clock_gettime
    assert keys.CLOCK == (time.CLOCK_BOOTTIME,)
