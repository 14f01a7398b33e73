"""Where a case goes and who has it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from midwatch.contracts.governance import CaseAccepted, CaseClosed, CaseReturned
from midwatch_services.kill_switch.cases import routing
from midwatch_services.kill_switch.cases.routing import Case
from midwatch_services.kill_switch.decide import Instance, Surroundings
from midwatch_services.kill_switch.policy import Policy

NOW = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
POLICY = Policy()
NEW = Case("case-1", "desk", "r1", "open", "human", "kill-switch", NOW, NOW, reason="wrong refunds")
OFFERED = replace(NEW, state="offered", to="agent:simple", taker="simple", due_at=NOW)
WITH_AGENT = replace(OFFERED, state="taken", taken_by="simple-1", taken_run="s1", due_at=None)
TAKEN = replace(NEW, state="taken", taken_by="ann")
OWN = replace(NEW, state="claimed", to="own", opened_by="pod-1")
REVISIONS = {"fleet": 1, "agent.simple": 2}
APPLIED = {"fleet": 1, "agent.simple": 2, "tools.simple": 0, "runs.simple": 0}


def instance(**more: Any) -> Instance:
    known: dict[str, Any] = {
        "agent": "simple", "instance": "simple-1", "applied": APPLIED, "running": (), "draining": (), "seen_at": NOW,
        "lease": timedelta(seconds=5),
    }  # fmt: skip
    return Instance(**known | more)


def around(now: datetime = NOW, since: datetime = NOW - timedelta(hours=1)) -> Surroundings:
    return Surroundings(now, since, 0)


# How a case begins


@pytest.mark.parametrize(
    ("to", "refusal", "mode", "state", "goes_to", "say"),
    [
        ("human", "", "live", "open", "human", ("opened",)),
        ("agent:simple", "", "live", "offered", "agent:simple", ("offered",)),
        ("agent:simple", "simple is halted", "live", "open", "human", ("opened",)),
        ("a word", "", "live", "open", "human", ("opened",)),
        ("human", "", "drill", "closed", "human", ("opened", "closed")),
        ("agent:simple", "", "drill", "closed", "agent:simple", ("opened", "closed")),
    ],
)
def test_a_case_begins_with_whom_it_names_unless_that_agent_cannot(
    to: str, refusal: str, mode: Any, state: str, goes_to: str, say: tuple[str, ...]
) -> None:
    step = routing.begin(replace(NEW, to=to, mode=mode), refusal, NOW, POLICY)
    assert step.case is not None
    assert (step.case.state, step.case.to, step.say) == (state, goes_to, say)


def test_an_offer_has_a_time_limit() -> None:
    step = routing.begin(replace(NEW, to="agent:simple"), "", NOW, POLICY)
    assert step.case is not None
    assert (step.case.taker, step.case.due_at) == ("simple", NOW + timedelta(seconds=5))


@pytest.mark.parametrize(
    ("case", "instances", "halts", "why"),
    [
        ({}, [instance()], set(), ""),
        ({"to": "human"}, [], set(), ""),
        ({"to": "agent:No Name"}, [instance()], set(), "its fallback is no agent's name"),
        ({"to": "agent:desk"}, [instance()], set(), "desk had it before"),
        ({"chain": ("simple",)}, [instance()], set(), "simple had it before"),
        ({}, [instance()], {("agent.simple", None)}, "simple is halted"),
        ({}, [instance()], {("fleet", None)}, "simple is halted"),
        ({}, [instance()], {("runs.simple", None)}, "simple is halted"),
        ({}, [instance()], {("runs.simple", "s9"), ("tools.simple", "refund")}, ""),
        ({"to": "agent:other"}, [], set(), "other is not set running"),
        ({}, [], set(), "no instance of simple is armed"),
        ({}, [instance(left=True)], set(), "no instance of simple is armed"),
        ({}, [instance(seen_at=NOW - timedelta(seconds=4))], set(), "no instance of simple is armed"),
        ({}, [instance(applied=APPLIED | {"agent.simple": 1})], set(), "no instance of simple is armed"),
        ({}, [instance(left=True), instance(instance="simple-2")], set(), ""),
    ],
)
def test_only_an_agent_that_is_armed_runs_and_never_had_the_case_is_offered_it(
    case: dict[str, Any], instances: list[Instance], halts: set[tuple[str, str | None]], why: str
) -> None:
    asked = replace(NEW, **{"to": "agent:simple"} | case)
    assert routing.refusal(asked, instances, halts, REVISIONS, NOW) == why


# Agents


def test_whoever_creates_the_key_of_an_offer_first_decides_it() -> None:
    accepted = routing.offer_decided(OFFERED, "simple-1", NOW)
    withdrawn = routing.offer_decided(OFFERED, "kill-switch", NOW)
    assert accepted and accepted.case and withdrawn and withdrawn.case
    assert (accepted.case.state, accepted.case.taken_by, accepted.say) == ("taken", "simple-1", ())
    assert (withdrawn.case.state, withdrawn.case.to, withdrawn.say) == ("open", "human", ("opened",))
    assert routing.offer_decided(withdrawn.case, "simple-1", NOW) is None


@pytest.mark.parametrize(
    ("ended", "state"),
    [("resolved", "closed"), ("handed_off", "closed"), ("fell_back", "closed"), ("failed", "open"),
     ("abandoned", "open"), ("halted", None)],
)  # fmt: skip
def test_the_end_of_the_takers_run_decides_the_case(ended: Any, state: str | None) -> None:
    step = routing.taker_ended(WITH_AGENT, "simple", "s1", ended, NOW)
    assert (step.case.state if step and step.case else None) == state


@pytest.mark.parametrize(("agent", "run_id"), [("other", "s1"), ("simple", "s2")])
def test_no_other_run_decides_it(agent: str, run_id: str) -> None:
    assert routing.taker_ended(WITH_AGENT, agent, run_id, "resolved", NOW) is None


def test_a_case_goes_on_as_that_of_the_agent_that_was_stopped_with_it() -> None:
    child = replace(NEW, case_id="case-2", agent="simple", run_id="s1", chain=("desk",))
    step = routing.goes_on(WITH_AGENT, child, NOW)
    assert step and step.case
    assert (step.case.state, step.say) == ("closed", ("closed",))
    assert "case-2" in step.notes[0].note
    assert routing.goes_on(TAKEN, child, NOW) is None


def test_what_an_agent_gives_up_people_take_with_a_doubt() -> None:
    step = routing.given_up(WITH_AGENT, "simple vanished", NOW)
    assert step and step.case
    assert (step.case.state, step.case.to, step.case.taken_by) == ("open", "human", "")
    assert step.case.doubt == "simple had it before and may have answered"


# Its own program


@pytest.mark.parametrize(
    ("ended", "state", "say"),
    [(None, "claimed", ()), ("fell_back", "closed", ()), ("resolved", "closed", ()), ("halted", "open", ("opened",)),
     ("failed", "open", ("opened",)), ("abandoned", "open", ("opened",))],
)  # fmt: skip
def test_a_case_that_its_program_claimed_ends_with_its_run(ended: Any, state: str, say: tuple[str, ...]) -> None:
    step = routing.begin_own(OWN, ended, NOW)
    assert step.case is not None
    assert (step.case.state, step.say) == (state, say)
    assert bool(step.case.doubt) == (state == "open")


def test_an_answer_after_all_closes_what_nobody_has_taken_and_is_noted_where_somebody_has() -> None:
    closed, noted = (routing.late_answer(case, "fell_back", NOW) for case in (NEW, TAKEN))
    assert closed and closed.case and closed.case.state == "closed"
    assert noted and noted.case is None and len(noted.notes) == 1
    assert routing.late_answer(NEW, "halted", NOW) is None


# People

ANN, BOB = CaseAccepted(case_id="case-1", by="ann", reference="HD-1"), CaseAccepted(case_id="case-1", by="bob")
BACK, DONE = CaseReturned(case_id="case-1", by="ann"), CaseClosed(case_id="case-1", by="bob")


@pytest.mark.parametrize(
    ("case", "said", "state", "taken_by"),
    [
        (NEW, ANN, "taken", "ann"),
        (TAKEN, BOB, None, None),
        (TAKEN, BACK, "open", ""),
        (replace(TAKEN, taken_by="bob"), BACK, None, None),
        (NEW, BACK, None, None),
        (NEW, DONE, "closed", ""),
        (TAKEN, DONE, "closed", "ann"),
        (OFFERED, ANN, None, None),
        (OFFERED, DONE, "closed", ""),
        (OWN, ANN, None, None),
        (replace(NEW, state="closed"), DONE, None, None),
        (replace(NEW, state="closed"), ANN, None, None),
    ],
)
def test_what_people_say_counts_where_it_is_theirs_to_say(
    case: Case, said: Any, state: str | None, taken_by: str | None
) -> None:
    step = routing.spoken(case, said, NOW, agent="desk")
    assert (step.case and step.case.state, step.case and step.case.taken_by) == (state, taken_by)
    assert step.say == ()
    assert [note.what == "ignored" for note in step.notes] == [state is None]


def test_who_has_a_case_may_give_its_number_later() -> None:
    step = routing.spoken(TAKEN, ANN, NOW, agent="desk")
    assert step.case and step.case.reference == "HD-1"
    again = routing.spoken(step.case, CaseAccepted(case_id="case-1", by="ann"), NOW, agent="desk")
    assert again.case and again.case.reference == "HD-1"


def test_a_case_that_an_agent_returns_is_opened_and_one_that_people_return_is_not_opened_again() -> None:
    by_agent = routing.spoken(WITH_AGENT, CaseReturned(case_id="case-1", by="simple-1"), NOW, agent="simple")
    assert by_agent.case and (by_agent.say, by_agent.case.to) == (("opened",), "human")
    assert routing.spoken(TAKEN, BACK, NOW, agent="desk").say == ()


# Those who vanish


@pytest.mark.parametrize(
    ("seconds", "more", "carries_on", "gone"),
    [
        (4, {}, False, False),
        (6, {}, False, True),
        (6, {}, True, False),
        (599, {}, True, False),
        (601, {}, True, True),
        (4, {"left": True}, False, False),
        (6, {"left": True}, True, True),
    ],
)
def test_nothing_is_to_be_expected_of_an_instance_after_its_lease(
    seconds: float, more: dict[str, Any], carries_on: bool, gone: bool
) -> None:
    later = around(NOW + timedelta(seconds=seconds))
    assert routing.gone(instance(**more), NOW, later, carries_on, POLICY) is gone


def test_silence_counts_from_when_somebody_listened() -> None:
    later = NOW + timedelta(hours=1)
    assert not routing.gone(instance(), NOW, around(later, since=later - timedelta(seconds=4)), False, POLICY)


def test_a_process_that_never_sent_presence_is_waited_for() -> None:
    assert not routing.gone(None, NOW, around(NOW + timedelta(minutes=9)), False, POLICY)
    assert routing.gone(None, NOW, around(NOW + timedelta(minutes=11)), False, POLICY)


def test_a_run_for_which_nobody_waits_is_not_stranded() -> None:
    assert routing.stranded(instance(running=("a", "b", "c"), draining=("c", "d"), no_case=("b",))) == ["a", "c", "d"]


def test_an_agent_that_took_a_case_must_begin() -> None:
    waiting = replace(WITH_AGENT, taken_run="")
    assert not routing.overdue(waiting, NOW + timedelta(seconds=29), POLICY)
    assert routing.overdue(waiting, NOW + timedelta(seconds=31), POLICY)
    assert not routing.overdue(WITH_AGENT, NOW + timedelta(seconds=31), POLICY)
    assert not routing.overdue(TAKEN, NOW + timedelta(days=1), POLICY)
