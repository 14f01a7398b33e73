"""When a halt is contained, who is named when it is not, and what revokes the proof."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from midwatch.contracts.control import SwitchRecord
from midwatch_services.kill_switch.decide import (
    NO_PRESENCE,
    Call,
    Halt,
    Instance,
    Surroundings,
    Verdict,
    began,
    judge,
    report_due,
    revokes,
)
from midwatch_services.kill_switch.policy import POLICY

T0 = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)  # when the halt was written
RECORD = SwitchRecord(state="halted")
AGENT = Halt("agent.desk", None, 5, RECORD, T0)
RUN = Halt("runs.desk", "r1", 5, RECORD, T0)
TOOL = Halt("tools.desk", "refund", 5, RECORD, T0)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def pod(name: str = "pod-1", seen: float = 0.5, applied: int = 5, **more: Any) -> Instance:
    keys = dict.fromkeys(("fleet", "agent.desk", "runs.desk", "tools.desk"), applied)
    values: dict[str, Any] = {"running": (), "draining": (), "lease": timedelta(seconds=5), **more}
    return Instance("desk", name, keys, seen_at=at(seen), **values)


def judged(halt: Halt, *pods: Instance, now: float = 1, watching: float = -60, **more: Any) -> Verdict:
    around = Surroundings(at(now), at(watching), revision=more.pop("revision", 9), **more)
    return judge(halt, pods, around, {}, POLICY)


def states(verdict: Verdict) -> dict[str, str]:
    return {report.instance: report.state for report in verdict.reports}


def test_contained_when_every_instance_has_applied_it_and_nothing_moves() -> None:
    verdict = judged(AGENT, pod("pod-1", seen=0.2), pod("pod-2", seen=0.7, applied=6))
    assert verdict.contained
    assert verdict.seconds == pytest.approx(0.7)
    assert [report.seconds for report in verdict.reports] == [pytest.approx(0.2), pytest.approx(0.7)]


def test_contained_with_no_instance_at_all() -> None:
    assert judged(AGENT).contained


@pytest.mark.parametrize("applied", [4, 0])
def test_an_instance_that_has_not_applied_it_is_unconfirmed(applied: int) -> None:
    verdict = judged(AGENT, pod("pod-1"), pod("pod-2", applied=applied))
    assert not verdict.contained
    assert verdict.seconds is None
    assert states(verdict) == {"pod-1": "applied", "pod-2": "unconfirmed"}


def test_a_revision_that_the_key_never_had_proves_nothing() -> None:
    assert not judged(AGENT, pod(applied=500), revision=9).contained


@pytest.mark.parametrize(
    ("halt", "moving", "contained"),
    [
        (AGENT, {"running": ("r2",)}, False),
        (AGENT, {"draining": ("r2",)}, False),
        (RUN, {"running": ("r2",)}, True),
        (RUN, {"running": ("r1",)}, False),
        (RUN, {"draining": ("r1",)}, False),
        (RUN, {"draining": ("r2",)}, True),
        (TOOL, {"running": ("r1", "r2")}, True),
        (TOOL, {"draining": ("r2",)}, False),
        (replace(RUN, target=None), {"running": ("r2",)}, False),
        (Halt("fleet", None, 5, RECORD, T0), {"running": ("r2",)}, False),
    ],
)
def test_what_moves_in_the_scope_of_the_halt_is_in_its_way(halt: Halt, moving: dict[str, Any], contained: bool) -> None:
    assert judged(halt, pod(**moving)).contained is contained


def test_an_instance_that_signed_off_after_the_halt_is_named_and_not_waited_for() -> None:
    verdict = judged(AGENT, pod("pod-1"), pod("pod-2", applied=0, left=True), pod("pod-3", seen=-9, left=True))
    assert verdict.contained
    assert states(verdict) == {"pod-1": "applied", "pod-2": "left"}


@pytest.mark.parametrize(
    ("now", "state"), [(0.5, "unconfirmed"), (3, "unconfirmed"), (4.4, "unconfirmed"), (4.6, "lapsed")]
)
def test_a_silent_instance_is_unconfirmed_and_lapsed_once_its_lease_is_over(now: float, state: str) -> None:
    verdict = judged(AGENT, pod(seen=-0.5, applied=4), now=now)
    assert not verdict.contained
    assert states(verdict) == {"pod-1": state}


def test_no_lease_runs_out_while_nobody_listens() -> None:
    assert states(judged(AGENT, pod(seen=-100, applied=4), now=4, watching=0)) == {"pod-1": "unconfirmed"}
    assert states(judged(AGENT, pod(seen=-100, applied=4), now=6, watching=0)) == {"pod-1": "lapsed"}


def test_an_instance_that_confirmed_and_then_went_silent_has_confirmed() -> None:
    verdict = judged(AGENT, pod(seen=0.5), now=60)
    assert verdict.contained


def test_an_instance_that_went_silent_while_it_drained_has_not() -> None:
    verdict = judged(AGENT, pod(seen=0.5, draining=("r1",)), now=60)
    assert not verdict.contained
    assert states(verdict) == {"pod-1": "lapsed"}


def test_the_time_is_that_of_the_first_word_without_movement() -> None:
    first = judged(AGENT, pod(seen=0.5), now=1)
    around = Surroundings(at(9), at(-60), 9)
    again = judge(AGENT, [pod(seen=8.9)], around, first.cleared, POLICY)
    assert again.seconds == pytest.approx(0.5)


def test_what_the_process_before_it_under_its_name_confirmed_is_not_its_own() -> None:
    first = judged(AGENT, pod(seen=0.5, since=at(-9)), now=1)
    around = Surroundings(at(9), at(-60), 9)
    again = judge(AGENT, [pod(seen=8.9, since=at(8.5))], around, first.cleared, POLICY)
    assert again.seconds == pytest.approx(8.9)


def test_every_process_of_a_name_has_to_confirm_until_its_lease_is_over() -> None:
    idle, busy = pod(seen=0.9, process="a"), pod(seen=0.5, applied=4, running=("r-b",), process="b")
    verdict = judged(AGENT, idle, busy)
    assert (verdict.contained, states(verdict), verdict.shared) == (
        False, {"pod-1": "unconfirmed"}, {("desk", "pod-1")},
    )  # fmt: skip
    assert verdict.reports[0].running == ["r-b"]
    assert judged(AGENT, idle, busy, now=5.4).contained is False
    assert judged(AGENT, idle, busy, now=5.6).contained is True
    assert judged(AGENT, replace(idle, left=True), busy).contained is False


def test_times_that_nobody_saw_are_not_made_up() -> None:
    verdict = judged(AGENT, pod(seen=90), now=91, watching=30)
    assert verdict.contained
    assert verdict.seconds is None
    assert verdict.reports[0].seconds is None


def test_runs_of_an_agent_without_presence_are_named() -> None:
    verdict = judged(AGENT, strays={"desk": ["r1"], "other": ["r7"]})
    assert not verdict.contained
    assert [(report.agent, report.instance, report.running) for report in verdict.reports] == [
        ("desk", NO_PRESENCE, ["r1"])
    ]
    assert judged(RUN, strays={"desk": ["r2"]}).contained


def due(halt: Halt, *pods: Instance, now: float, watching: float = -60) -> str | None:
    around = Surroundings(at(now), at(watching), 9)
    return report_due(halt, judge(halt, pods, around, {}, POLICY), around, POLICY)


def test_the_report_comes_when_contained_or_when_the_limit_is_over() -> None:
    late = pod(seen=4.9, applied=4)
    assert due(AGENT, pod(), now=1) == "contained"
    assert due(AGENT, late, now=4.9) is None
    assert due(AGENT, late, now=5) == "unconfirmed"
    assert due(replace(AGENT, phase="unconfirmed"), pod(), now=60) == "contained"


def test_no_instance_is_late_before_it_could_be_heard() -> None:
    assert due(AGENT, pod(seen=-1, applied=4), now=63, watching=60) is None


def test_an_instance_that_lapses_later_is_reported_once_more() -> None:
    unconfirmed = replace(AGENT, phase="unconfirmed")
    silent = pod(seen=0.5, applied=4, lease=timedelta(seconds=30))
    assert due(unconfirmed, silent, now=20) is None
    assert due(unconfirmed, silent, now=31) == "unconfirmed"
    assert due(replace(unconfirmed, lapsed=frozenset({("desk", "pod-1")})), silent, now=40) is None


CONTAINED = {"phase": "contained", "contained_at": T0}


def call(seconds: float = 3, run_id: str = "r1", tool: str | None = None, agent: str = "desk") -> Call:
    return Call(agent, run_id, tool, at(seconds), "e1", 4)


@pytest.mark.parametrize(
    ("halt", "made", "revoked"),
    [
        (AGENT, call(), True),
        (AGENT, call(tool="lookup"), True),
        (AGENT, call(seconds=1.9), False),
        (AGENT, call(agent="other"), False),
        (Halt("fleet", None, 5, RECORD, T0), call(agent="other"), True),
        (RUN, call(), True),
        (RUN, call(run_id="r2"), False),
        (replace(RUN, target=None), call(run_id="r2"), True),
        (TOOL, call(tool="refund"), True),
        (TOOL, call(tool="lookup"), False),
        (TOOL, call(), False),
    ],
)
def test_a_call_that_began_in_scope_after_containment_revokes_the_proof(halt: Halt, made: Call, revoked: bool) -> None:
    assert revokes(replace(halt, **CONTAINED), made, POLICY) is revoked


@pytest.mark.parametrize("phase", ["pending", "unconfirmed", "revoked"])
def test_without_a_proof_there_is_nothing_to_revoke(phase: Any) -> None:
    assert not revokes(replace(AGENT, phase=phase, contained_at=T0), call(), POLICY)


@pytest.mark.parametrize(
    ("recorded", "stored", "latency_ms", "expected"),
    [
        (10, 10.2, None, 10),
        (10, 10.2, 4000, 6),  # recorded when it ended
        (10, 70, None, 10),  # late: the spool had it
        (3610, 10.2, None, 10.2),  # a clock an hour ahead
    ],
)
def test_a_call_began_when_its_event_says_but_not_after_it_was_stored(
    recorded: float, stored: float, latency_ms: float | None, expected: float
) -> None:
    assert began(at(recorded), at(stored), latency_ms) == at(expected)


def test_a_halt_does_not_wait_for_the_instance_of_a_drill_that_died() -> None:
    dead = pod("drill-20261122-a1b2c3", seen=-10, applied=0)
    around = Surroundings(at(1), at(-60), 5)
    assert judge(AGENT, [pod(), dead], around, {}, POLICY).contained
    assert not judge(AGENT, [pod(), replace(dead, instance="drill-press-7")], around, {}, POLICY).contained
    assert not judge(AGENT, [pod(), replace(dead, seen_at=at(-3))], around, {}, POLICY).contained
