"""Who is armed, from when on an instance counts as not armed, and what the pager says."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from midwatch_services.kill_switch.armed import Fault, ended_unheard, evidence, judge, title, why_not
from midwatch_services.kill_switch.decide import Instance

T0 = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
AFTER = timedelta(seconds=3.5)
REVISIONS = {"fleet": 1, "agent.desk": 5, "tools.desk": 3}
APPLIED = {"fleet": 1, "agent.desk": 5, "tools.desk": 3, "runs.desk": 0}
WHO = ("desk", "pod-1")


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def pod(name: str = "pod-1", seen_at: datetime = T0, **more: Any) -> Instance:
    known = {"applied": APPLIED, "running": (), "draining": (), "lease": timedelta(seconds=5)} | more
    return Instance("desk", name, seen_at=seen_at, **known)


def judged(
    *instances: Instance, now: float, listening: float = -60, since: dict[tuple[str, str], datetime] | None = None
) -> Any:
    return judge(instances, REVISIONS, at(now), at(listening), since or {}, AFTER)


@pytest.mark.parametrize(
    ("instance", "age", "why"),
    [
        (pod(), 0.5, ""),
        (pod(control_age=1.2), 0.5, ""),
        (pod(), 4, "silent for 4 s"),
        (pod(), 7, "silent for 7 s, longer than its lease of 5 s"),
        (pod(applied=APPLIED | {"agent.desk": 3}), 0, "has not yet obeyed the last change of the switch"),
        (pod(applied=APPLIED | {"agent.desk": 9}), 0, "has not yet obeyed the last change of the switch"),
        (pod(applied={}), 0, "has not yet obeyed the last change of the switch"),
        (pod(control_age=4.1), 0, "has not been able to read the switch for 4 s"),
        (pod(lost_control=True, without_control="carry_on", control_age=9.0), 0, "has lost control and carries on"),
        (pod(lost_control=True, without_control="fall_back", control_age=9.0), 0, "has lost control and falls back"),
        (pod(lost_control=True), 0, "has lost control"),
    ],
)
def test_why_an_instance_is_not_armed_is_said_in_words(instance: Instance, age: float, why: str) -> None:
    assert why_not(instance, age, REVISIONS) == why


def test_silence_is_a_fault_once_it_is_too_long_and_no_proof_of_anything_before() -> None:
    assert judged(pod(), now=2.9).armed
    early = judged(pod(), now=3.4)
    assert (early.faults, early.armed) == ((), False)
    assert judged(pod(), now=3.5).faults == (Fault("pod-1", "silent for 4 s"),)


def test_silence_from_before_anyone_listened_does_not_count_and_is_told() -> None:
    deaf = judged(pod(), now=60, listening=58)
    assert (deaf.faults, deaf.armed) == ((), False)
    (fault,) = judged(pod(), now=62, listening=58).faults
    assert fault == Fault("pod-1", "silent for 62 s, longer than its lease of 5 s")


def test_who_ended_before_anyone_listened_with_nothing_under_way_is_told_from_who_did_not() -> None:
    some = [
        pod("over"), pod("at-work", running=("r-1",)), pod("writes", draining=("r-2",)), pod("heard", at(50)),
        pod("leased", lease=timedelta(minutes=5)),
    ]  # fmt: skip
    assert [one.instance for one in ended_unheard(some, at(60), at(40))] == ["over"]


def test_a_write_that_is_being_applied_is_no_fault_and_one_that_never_is_becomes_one() -> None:
    behind = {"applied": APPLIED | {"agent.desk": 4}}
    first = judged(pod(**behind), now=0)
    assert (first.faults, first.since) == ((), {WHO: T0})
    assert judged(pod(seen_at=at(3), **behind), now=3.4, since=first.since).faults == ()
    assert judged(pod(seen_at=at(3), **behind), now=3.5, since=first.since).faults == (
        Fault(
            "pod-1",
            "has not yet obeyed the last change of the switch",
            "has applied agent.desk at epoch 4, which stands at 5",
        ),
    )
    assert judged(pod(seen_at=at(3)), now=3.5, since=first.since).armed


def test_readings_that_stopped_count_from_when_they_stopped() -> None:
    assert judged(pod(control_age=3.2), now=0).faults == ()
    assert judged(pod(control_age=3.6), now=0).faults == (
        Fault("pod-1", "has not been able to read the switch for 4 s"),
    )


def test_those_who_left_need_not_be_armed() -> None:
    assert judged(pod(left=True), now=600).armed
    assert judged(now=600).armed


def test_one_fault_is_enough() -> None:
    verdict = judged(pod("a", at(10)), pod("b"), now=10)
    assert (verdict.total, verdict.armed) == (2, False)
    assert verdict.faults == (Fault("b", "silent for 10 s, longer than its lease of 5 s"),)


def test_the_title_says_how_many_of_how_many_and_names_three() -> None:
    one = Fault("pod-1", "silent for 4 s")
    assert title("desk", 3, [one]) == "1 of 3 instances of desk is not armed: pod-1 silent for 4 s"
    assert title("desk", 1, [one]) == "1 of 1 instance of desk is not armed: pod-1 silent for 4 s"
    some = [Fault(f"pod-{n}", "has not read fleet") for n in range(5)]
    assert title("desk", 9, some) == (
        "5 of 9 instances of desk are not armed: pod-0 has not read fleet; pod-1 has not read fleet; "
        "pod-2 has not read fleet; and 2 more"
    )


def test_the_evidence_says_where_each_runs_and_which_key_it_lacks() -> None:
    lacks = judged(
        pod(seen_at=at(9), applied=APPLIED | {"agent.desk": 4}, process="host-1/4711/abc"), now=9, since={WHO: T0}
    )
    assert evidence(lacks.faults) == (
        "midwatch switch; pod-1: process 4711 on host-1, has applied agent.desk at epoch 4, which stands at 5"
    )
    assert evidence([Fault("pod-1", "silent for 4 s")]) == "midwatch switch"


def test_a_name_cannot_steer_a_terminal() -> None:
    assert "\x1b" not in title("desk", 1, [Fault("\x1b[2Jpod", "silent for 4 s")])
