"""What a write of the switch means."""

from datetime import UTC, datetime

import pytest

from midwatch.contracts.control import SwitchRecord
from midwatch_services.kill_switch.decide import Halt, Move, Write, is_key, moves, targets

NOW = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
HALTED = b'{"state":"halted","reason":"wrong refunds","by":"ann"}'
RUNNING = b'{"state":"running","by":"ann"}'
RECORD = SwitchRecord(state="halted", reason="wrong refunds", by="ann")


def write(key: str, value: bytes | None, revision: int = 9) -> Write:
    return Write(key, value, revision, NOW)


def standing(
    key: str, target: str | None = None, record: SwitchRecord = RECORD, epoch: int = 5
) -> dict[str | None, Halt]:
    return {target: Halt(key, target, epoch, record, NOW)}


def found(moved: list[Move]) -> list[tuple[str, str | None]]:
    return [(move.event, move.target) for move in moved]


@pytest.mark.parametrize("key", ["fleet", "agent.desk"])
@pytest.mark.parametrize(
    ("value", "halted_before", "expected"),
    [
        (HALTED, False, ["halted"]),
        (HALTED, True, []),
        (b'{"state":"halted","reason":"another"}', True, ["halted"]),
        (RUNNING, True, ["resumed"]),
        (RUNNING, False, []),
        (None, False, ["halted"]),
        (b"garbage", False, ["halted"]),
        (b'{"state":"paused"}', False, ["halted"]),
        (b"", True, ["halted"]),
    ],
)
def test_what_is_not_readable_as_running_is_halted(
    key: str, value: bytes | None, halted_before: bool, expected: list[str]
) -> None:
    before = standing(key) if halted_before else {}
    assert [move.event for move in moves(write(key, value), before, ())] == expected


def test_a_write_for_one_run_says_nothing_of_the_others() -> None:
    value = b'{"r1":{"state":"halted","reason":"wrong refunds","by":"ann"},"r2":{"state":"halted"}}'
    assert found(moves(write("runs.desk", value), standing("runs.desk", "r1"), ())) == [("halted", "r2")]


def test_running_in_a_map_resumes_only_what_was_halted() -> None:
    value = b'{"r1":{"state":"running"},"r2":{"state":"running"}}'
    assert found(moves(write("runs.desk", value), standing("runs.desk", "r1"), ())) == [("resumed", "r1")]


def test_a_record_that_vanished_from_the_map_is_a_resume() -> None:
    (move,) = moves(write("tools.desk", b"{}"), standing("tools.desk", "refund"), ())
    assert (move.event, move.target, move.record.state) == ("resumed", "refund", "running")


def test_a_finished_runs_record_leaves_the_map_without_a_resume() -> None:
    assert found(moves(write("runs.desk", b"{}"), standing("runs.desk", "r1"), {"r1"})) == [("pruned", "r1")]


def test_an_unreadable_map_halts_all_and_lifts_nothing() -> None:
    assert found(moves(write("runs.desk", b"[]"), standing("runs.desk", "r1"), ())) == [("halted", None)]


def test_a_map_that_can_be_read_again_lifts_only_the_whole() -> None:
    before = standing("runs.desk", "r1") | standing("runs.desk", None)
    value = b'{"r1":{"state":"halted","reason":"wrong refunds","by":"ann"}}'
    assert found(moves(write("runs.desk", value), before, ())) == [("resumed", None)]


def test_a_deleted_map_halts_nothing() -> None:
    assert found(moves(write("runs.desk", None), standing("runs.desk", "r1"), ())) == [("resumed", "r1")]
    assert moves(write("runs.desk", None), {}, ()) == []


def test_the_same_halt_in_a_bucket_made_anew_is_another() -> None:
    assert found(moves(write("agent.desk", HALTED, revision=2), standing("agent.desk", epoch=5), ())) == [
        ("halted", None)
    ]


@pytest.mark.parametrize(
    ("key", "obeyed"),
    [
        ("fleet", True),
        ("agent.desk", True),
        ("tools.desk", True),
        ("runs.desk", True),
        ("agent.De sk", False),
        ("agent", False),
        ("fleet.desk", False),
        ("cards.desk", False),
        ("agent.a.b", False),
    ],
)
def test_only_keys_that_an_agent_obeys_count(key: str, obeyed: bool) -> None:
    assert is_key(key) is obeyed


def test_targets_are_those_of_a_readable_map() -> None:
    assert targets(write("runs.desk", b'{"r1":{"state":"running"}}')) == {"r1"}
    assert targets(write("runs.desk", b"[]")) == set()
    assert targets(write("agent.desk", HALTED)) == set()
