"""What the local switch makes of the answers of the server."""

from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from midwatch import testing
from midwatch.contracts import control
from midwatch.switch import FOREVER, LEASE, NEVER, Answer, LocalSwitch, clock

RUNNING = b'{"state":"running"}'
HALTED = b'{"state":"halted","reason":"too many refunds","by":"eva","fallback":"agent:desk-2"}'
ABSENT = Answer(0, 0, None)


def fed(**values: bytes | None) -> LocalSwitch:
    """A switch that has read a card, everything running, and these values at revision 10."""
    switch = LocalSwitch("desk")
    switch.take_card(Answer(1, 1, control.encode(testing.card("desk"))))
    for name in switch.keys:
        short = name.split(".")[0]
        default = RUNNING if short in ("fleet", "agent") else None
        value = values.get(short, default)
        switch.take(name, ABSENT if value is None else Answer(10, 10, value), clock())
    switch.take_route(ABSENT, clock())
    switch.confirm(clock())
    return switch


def test_all_keys_running_lets_a_run_act() -> None:
    assert fed().judge("r1", "refund") is None


@pytest.mark.parametrize("key", ["fleet", "agent"])
def test_a_halted_key_names_who_why_epoch_and_fallback(key: str) -> None:
    halt = fed(**{key: HALTED}).judge("r1")
    assert halt is not None
    assert halt == ({"fleet": "fleet", "agent": "agent.desk"}[key], "too many refunds", "eva", 10, "agent:desk-2")


@pytest.mark.parametrize("key", ["fleet", "agent"])
@pytest.mark.parametrize("value", [None, b"", b"not json", b'{"state":"paused"}', b"\xff\xfe", b"[]"])
def test_an_absent_or_unreadable_key_is_not_running(key: str, value: bytes | None) -> None:
    switch = fed()
    switch.take({"fleet": "fleet", "agent": "agent.desk"}[key], Answer(11, 11, value), clock())
    assert switch.judge("r1") is not None


def test_an_agent_with_a_card_but_no_record_is_not_running() -> None:
    switch = fed()
    switch.take("agent.desk", ABSENT, clock())
    halt = switch.judge("r1")
    assert halt is not None
    assert halt.reason == "the switch key agent.desk was never written"


def test_absent_maps_halt_nothing() -> None:
    assert fed(tools=None, runs=None).judge("r1", "refund") is None


def test_a_halted_run_stops_that_run_alone() -> None:
    switch = fed(runs=b'{"r1":{"state":"halted","by":"eva"},"r2":{"state":"running"}}')
    assert [switch.judge(run) is not None for run in ("r1", "r2", "r3")] == [True, False, False]


def test_a_halted_tool_stops_that_tool_alone() -> None:
    switch = fed(tools=b'{"refund":{"state":"halted","by":"eva"}}')
    assert switch.judge("r1") is None
    assert switch.judge("r1", "look_up") is None
    halt = switch.judge("r1", "refund")
    assert halt is not None
    assert halt.key == "tools.desk"


def test_an_unreadable_map_halts_all_of_it() -> None:
    runs, tools = fed(runs=b"{"), fed(tools=b'{"refund":{"state":"off"}}')
    assert runs.judge("any run") is not None
    assert tools.judge("any run") is None
    assert tools.judge("any run", "any tool") is not None


def test_an_expiry_is_not_executed_locally() -> None:
    assert fed(agent=b'{"state":"halted","expires_at":"2020-01-01T00:00:00Z"}').judge("r1") is not None


def test_an_older_answer_does_not_lift_a_halt_nor_renew_the_lease() -> None:
    switch = fed(agent=HALTED)
    read = switch.keys["agent.desk"].asked
    assert not switch.take("agent.desk", Answer(9, 9, RUNNING), clock() + 1)
    assert switch.judge("r1") is not None
    assert switch.keys["agent.desk"].asked == read


def test_a_later_server_time_beats_a_higher_revision() -> None:
    switch = fed(agent=HALTED)
    assert switch.take("agent.desk", Answer(1, 11, RUNNING), clock())
    assert switch.judge("r1") is None


def test_a_halt_of_a_higher_revision_is_obeyed_whatever_the_servers_clock_says() -> None:
    switch = fed()
    assert switch.take("agent.desk", Answer(11, 9, HALTED), clock())
    assert switch.judge("r1") is not None


def test_a_lagging_replica_without_the_map_does_not_lift_its_halt_within_the_lease() -> None:
    switch = fed(runs=b'{"r1":{"state":"halted"}}')
    now = clock()
    switch.take("runs.desk", ABSENT, now)
    assert switch.judge("r1") is not None
    switch.take("runs.desk", ABSENT, now + 5.1)
    assert switch.judge("r1") is None


def test_a_deleted_map_lifts_its_halts_at_once() -> None:
    switch = fed(runs=b'{"r1":{"state":"halted"}}')
    switch.take("runs.desk", Answer(11, 11, None), clock())
    assert switch.judge("r1") is None


def test_applied_tells_the_revision_of_each_key_that_was_read() -> None:
    switch = LocalSwitch("desk")
    assert switch.applied == {}
    switch.take("fleet", Answer(7, 7, RUNNING), clock())
    switch.take("tools.desk", ABSENT, clock())
    assert switch.applied == {"fleet": 7, "tools.desk": 0}


@pytest.mark.parametrize("missing", ["presence", "fleet", "agent.desk", "tools.desk", "runs.desk"])
def test_the_lease_needs_presence_and_every_key(missing: str) -> None:
    switch = LocalSwitch("desk")
    for name in switch.keys:
        if name != missing:
            value = RUNNING if name in ("fleet", "agent.desk") else b"{}"
            switch.take(name, Answer(1, 1, value), clock())
    if missing != "presence":
        switch.confirm(clock())
    halt = switch.judge("r1")
    assert halt is not None
    assert (halt.key, halt.by, halt.epoch) == (LEASE, "lost control", None)


def test_the_lease_runs_from_when_the_oldest_answer_was_asked_for() -> None:
    switch = fed()
    now = clock()
    for name in switch.keys:
        switch.take(name, ABSENT if "s." in name else Answer(10, 10, RUNNING), now)
    switch.confirm(now - 4)
    assert switch.lease_ends == pytest.approx(now + 5, abs=0.5)  # an older confirmation changes nothing
    switch.confirm(now + 3)
    assert switch.lease_ends == pytest.approx(now + 5)


class LiveRun:
    run_id, draining, moving = "r1", False, True

    def __init__(self) -> None:
        self.reviews = 0

    def review(self) -> None:
        self.reviews += 1

    def abandon(self) -> None: ...


def lapsed(lost_control: str) -> LocalSwitch:
    switch = LocalSwitch("desk")
    rule = control.SwitchRule(lease=1.0, lost_control=lost_control)  # type: ignore[arg-type]
    switch.take_card(Answer(1, 1, control.encode(testing.card("desk", switch=rule))))
    for name in switch.keys:
        switch.take(name, ABSENT if "s." in name else Answer(10, 10, RUNNING), clock() - 2)
    switch.confirm(clock() - 2)
    return switch


def test_when_the_lease_lapses_the_run_falls_back() -> None:
    halt = lapsed("fall_back").judge("r1")
    assert halt is not None
    assert halt.key == LEASE


def test_carry_on_goes_on_from_the_last_reading() -> None:
    switch = lapsed("carry_on")
    assert switch.lapsed
    assert switch.judge("r1") is None


def test_carry_on_never_overrides_a_halt_already_seen() -> None:
    switch = lapsed("carry_on")
    switch.take("agent.desk", Answer(11, 11, HALTED), clock() - 2)
    halt = switch.judge("r1")
    assert halt is not None
    assert halt.key == "agent.desk"


def test_carry_on_needs_one_reading_of_this_process() -> None:
    switch = LocalSwitch("desk")
    rule = control.SwitchRule(lost_control="carry_on")
    switch.take_card(Answer(1, 1, control.encode(testing.card("desk", switch=rule))))
    assert switch.judge("r1") is not None


def test_a_lease_that_returns_lets_the_run_act_again() -> None:
    switch = lapsed("fall_back")
    for name in switch.keys:
        switch.take(name, ABSENT if "s." in name else Answer(10, 10, RUNNING), clock())
    switch.confirm(clock())
    assert switch.judge("r1") is None


def test_runs_are_told_when_a_key_moves_and_when_the_lease_lapses() -> None:
    switch, run = fed(), LiveRun()
    switch.enter(run)
    switch.take("agent.desk", Answer(11, 11, HALTED), clock())
    assert run.reviews == 1
    switch.take("agent.desk", Answer(11, 11, HALTED), clock())
    assert run.reviews == 1
    switch._confirmed = NEVER
    switch.review()
    assert run.reviews == 2


def test_halts_seen_survive_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "spool" / "seen-desk.json"
    before = LocalSwitch("desk", seen=file)
    before.take("agent.desk", Answer(10, 10, HALTED), clock())
    before.save()
    after = LocalSwitch("desk", seen=file)
    halt = after.judge("r1")
    assert halt is not None
    assert (halt.key, halt.by, halt.epoch) == ("agent.desk", "eva", 10)
    after.take("agent.desk", Answer(9, 9, RUNNING), clock())  # a replica that lags
    halt = after.judge("r1")
    assert halt is not None
    assert halt.by == "eva"


def test_a_lifted_halt_is_forgotten_on_disk(tmp_path: Path) -> None:
    file = tmp_path / "seen-desk.json"
    before = LocalSwitch("desk", seen=file)
    before.take("agent.desk", Answer(10, 10, HALTED), clock())
    before.save()
    before.take("agent.desk", Answer(11, 11, RUNNING), clock())
    before.save()
    halt = LocalSwitch("desk", seen=file).judge("r1")
    assert halt is not None
    assert halt.key == LEASE


@pytest.mark.parametrize("damage", [b"", b"{", b'{"agent.desk": 3}', b"\xff"])
def test_a_damaged_file_of_halts_is_no_obstacle(tmp_path: Path, damage: bytes) -> None:
    file = tmp_path / "seen-desk.json"
    file.write_bytes(damage)
    assert LocalSwitch("desk", seen=file).card is None


def test_a_folder_that_takes_no_file_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file where a folder should be")
    switch = LocalSwitch("desk", seen=tmp_path / "spool" / "seen-desk.json")
    switch.take("agent.desk", Answer(10, 10, HALTED), clock())
    switch.save()
    assert switch.judge("r1") is not None


def test_a_card_is_followed_and_an_older_or_damaged_one_is_not() -> None:
    switch = LocalSwitch("desk")
    for answer in (
        Answer(5, 5, control.encode(testing.card("desk", owner="new"))),
        Answer(4, 4, control.encode(testing.card("desk", owner="old"))),
        Answer(6, 6, b"{}"),
        ABSENT,
    ):
        switch.take_card(answer)
    assert switch.card is not None
    assert switch.card.owner == "new"
    assert switch.card_state == "present"
    switch.take_card(Answer(7, 7, None))
    assert switch.card_state == "absent"


@pytest.mark.parametrize("missing", ["card", "route", "presence", "agent.desk"])
def test_a_run_waits_until_switch_route_and_card_are_read_whether_they_are_there_or_not(missing: str) -> None:
    switch = LocalSwitch("desk")
    readings = {name: partial(switch.take, name, ABSENT, clock()) for name in switch.keys}
    readings["card"] = partial(switch.take_card, ABSENT)
    readings["route"] = partial(switch.take_route, ABSENT, clock())
    readings["presence"] = partial(switch.confirm, clock())
    last = readings.pop(missing)
    for reading in readings.values():
        reading()
    assert not switch.known.done()
    last()
    assert switch.known.done()


def test_a_run_that_nobody_holds_is_not_live() -> None:
    switch = fed()
    switch.enter(LiveRun())
    kept: Any = LiveRun()
    switch.enter(kept)
    assert switch.live == [kept]
    switch.leave(kept)
    assert switch.live == []


def test_an_endless_lease_is_what_the_twin_in_memory_uses() -> None:
    switch = fed()
    for name in switch.keys:
        switch.take(name, ABSENT if "s." in name else Answer(10, 10, RUNNING), FOREVER)
    switch.confirm(FOREVER)
    assert switch.quiet
    assert msgspec.json.encode(switch.applied)
