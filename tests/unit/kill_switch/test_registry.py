"""What kill-switch remembers of instances and runs."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from midwatch.contracts.codec import RunEvent
from midwatch_services.kill_switch.decide import Instance
from midwatch_services.kill_switch.registry import Instances, Runs, read_presence

T0 = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
POD = Instance("desk", "pod-1", {"fleet": 1}, ("r1",), (), T0, timedelta(seconds=5))
BODY = (
    b'{"agent":"desk","instance":"pod-1","version":"","host":"","pid":7,"applied":{"fleet":1},"runs_in_flight":["r1"]}'
)


def later(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def test_presence_is_read_as_the_contract_has_it() -> None:
    assert read_presence("midwatch.presence.desk.pod-1", BODY, T0) == POD


@pytest.mark.parametrize(
    ("subject", "body"),
    [
        ("midwatch.presence.other.pod-1", BODY),
        ("midwatch.presence.desk.pod-2", BODY),
        ("midwatch.presence.desk.pod-1", b"{}"),
        ("midwatch.presence.desk.pod-1", b"\xff"),
        ("midwatch.presence.desk.pod-1", b'{"x":' + b"[" * 200_000),
    ],
)
def test_presence_that_breaks_the_contract_or_speaks_of_another_is_none(subject: str, body: bytes) -> None:
    assert read_presence(subject, body, T0) is None


def test_an_older_word_does_not_replace_a_newer() -> None:
    instances = Instances()
    instances.hear(replace(POD, seen_at=later(5)))
    instances.recall(replace(POD, running=(), seen_at=later(1)))
    assert instances.of("desk") == [replace(POD, seen_at=later(5))]


def test_a_word_that_comes_later_is_newer_though_our_clock_was_set_back() -> None:
    instances = Instances()
    instances.hear(replace(POD, seen_at=later(120)))
    instances.hear(replace(POD, applied={"fleet": 5}, seen_at=later(1)))
    assert instances.of("desk") == [replace(POD, applied={"fleet": 5}, seen_at=later(1))]


def test_what_was_applied_of_an_older_bucket_confirms_nothing() -> None:
    instances = Instances()
    instances.hear(POD)
    instances.hear(replace(POD, instance="pod-2", seen_at=later(2)))
    instances.forget_epochs(later(1))
    assert {one.instance: one.applied for one in instances.of("desk")} == {"pod-1": {}, "pod-2": {"fleet": 1}}


def test_a_vanished_instance_stays_until_it_is_forgotten() -> None:
    instances = Instances()
    instances.hear(POD)
    assert instances.forget(T0) == []
    assert instances.has("desk")
    assert instances.forget(later(1)) == [POD]
    assert not instances.has("desk")


def test_only_news_is_saved_again() -> None:
    instances = Instances()
    instances.load([POD])
    instances.hear(replace(POD, seen_at=later(20)))
    assert instances.unsaved() == []
    moved = replace(POD, running=(), seen_at=later(21))
    instances.hear(moved)
    assert instances.unsaved() == [moved]
    instances.saved([moved])
    assert instances.unsaved() == []
    heard = replace(moved, seen_at=later(60))
    instances.hear(heard)
    assert instances.unsaved() == [heard]


def test_a_late_event_of_a_finished_run_moves_nothing() -> None:
    runs = Runs()
    runs.note("desk", "r1", "started", T0)
    runs.note("desk", "r2", "said", T0)
    runs.note("desk", "r1", "finished", later(1))
    runs.note("desk", "r1", "tool_called", later(2))
    assert runs.in_flight("desk") == {"r2": T0}
    assert runs.finished("desk", "r1")


def test_what_people_do_in_shadow_mode_is_no_movement() -> None:
    runs = Runs()
    runs.note("desk", "r1", "human_acted", T0)
    assert runs.agents() == []


def test_an_idle_run_is_not_in_flight_for_ever() -> None:
    runs = Runs()
    runs.note("desk", "r1", "started", T0)
    runs.forget(later(1))
    assert runs.agents() == []


@pytest.mark.parametrize(
    ("read_at", "age", "recorded", "really"),
    [
        ("2026-11-22T01:00:00Z", 0.5, -3595.0, 4.5),  # an hour behind
        ("2026-11-22T03:00:00Z", 0.5, 3605.0, 4.5),  # an hour ahead
        ("2026-11-22T01:59:54Z", 0.5, 5.0, 5.0),  # 5.5 s old when it came: a slow way, no wrong clock
        ("2026-11-22T02:00:00Z", 1e300, 5.0, 5.0),  # no such time
    ],
)
def test_the_time_of_an_event_is_put_right_where_the_clock_of_its_instance_is_far_from_ours(
    read_at: str, age: float, recorded: float, really: float
) -> None:
    said = msgspec.json.decode(BODY) | {"control_read_at": read_at, "control_age": age}
    instances = Instances()
    instance = read_presence("midwatch.presence.desk.pod-1", msgspec.json.encode(said), T0)
    assert instance is not None
    instances.hear(instance)
    event = RunEvent("desk", "tool_called", "e1", later(recorded), "/agents/desk/pod-1", None)
    assert instances.time_of(event) == later(really)
    assert instances.time_of(event._replace(source="/agents/desk/pod-2")) == later(recorded)


def test_another_process_by_the_same_name_is_known_by_its_first_word() -> None:
    instances = Instances()
    for seconds, process in ((0.0, "a"), (1.0, "a"), (2.0, "b"), (3.0, "b")):
        body = msgspec.json.encode(msgspec.json.decode(BODY) | {"process": process})
        said = read_presence("midwatch.presence.desk.pod-1", body, later(seconds))
        assert said is not None
        instances.hear(said)
    (known,) = instances.of("desk")
    assert (known.seen_at, known.since) == (later(3), later(2))
    instances.saved([replace(known, since=T0)])
    assert instances.unsaved() == [known]
