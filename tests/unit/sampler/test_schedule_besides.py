"""Which runs are read though they were not drawn."""

from typing import Any

import pytest

from midwatch.contracts.control import BesidesRule
from midwatch.contracts.governance import AlertRaised
from midwatch.contracts.runs import HandedOff, Message, Said, Started, ToolCalled
from midwatch_services.reviewer_sampler.schedule import policy
from midwatch_services.reviewer_sampler.schedule.besides import Found, alerted, cause_of

RULE = policy.besides(BesidesRule(tools=["pay"], complaints=("lawyer", "Not OK", "lawyers guild", "façade")))
HEAD: dict[str, Any] = {"run_id": "r", "agent": "desk", "version": "1", "mode": "live", "seq": 0}


def said(text: str, by: Any = "customer") -> Said:
    return Said(**HEAD, by=by, text=text)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("My LAWYER will write.", "lawyer"),
        ("lawyer", "lawyer"),
        ("the lawyers guild", "lawyers guild"),
        ("lawyers", None),
        ("outlawyered", None),
        ("this is not ok!", "not ok"),
        ("FAÇADE", "façade"),
        ("a_lawyer_", None),
        ("", None),
    ],
)
def test_a_complaint_is_a_whole_word_in_any_case(text: str, word: str | None) -> None:
    assert cause_of(said(text), RULE) == (Found("complaint", word) if word else None)


def test_only_the_customer_complains() -> None:
    assert cause_of(said("ask a lawyer", "agent"), RULE) is None
    assert cause_of(said("ask a lawyer", "human"), RULE) is None
    messages = [Message(role="system", content="lawyer"), Message(role="assistant", content="lawyer")]
    assert cause_of(Started(**HEAD, input=messages), RULE) is None


@pytest.mark.parametrize(
    "asked",
    [
        "I call my lawyer",
        [Message(role="user", content="I call my lawyer")],
        [Message(role="user", content=[{"type": "image"}, {"type": "text", "text": "I call my lawyer"}])],
        [Message(role="user", content=None), Message(role="customer", content="lawyer")],
    ],
)
def test_what_a_run_begins_with_is_the_customers_word(asked: Any) -> None:
    assert cause_of(Started(**HEAD, input=asked), RULE) == Found("complaint", "lawyer")


def test_a_risky_tool_is_a_cause_and_another_is_none() -> None:
    assert cause_of(ToolCalled(**HEAD, tool="pay"), RULE) == Found("tool", "pay")
    assert cause_of(ToolCalled(**HEAD, tool="look_up"), RULE) is None


@pytest.mark.parametrize(
    ("fields", "is_cause"),
    [
        ({}, True),
        ({"summary": " ", "context": {}}, True),
        ({"summary": "wants a refund"}, False),
        ({"context": [1]}, False),
        ({"key": "agent.desk"}, False),  # a halt: the case has the whole run
    ],
)
def test_a_hand_off_without_a_word_is_a_cause(fields: dict[str, Any], is_cause: bool) -> None:
    found = cause_of(HandedOff(**HEAD, to="human", reason="asked", **fields), RULE)
    assert found == (Found("hand_off", "to human, without a word") if is_cause else None)


def test_what_the_card_switches_off_is_no_cause() -> None:
    off = policy.besides(BesidesRule(alerts=False, hand_offs=False, complaints=()))
    assert cause_of(HandedOff(**HEAD, to="human", reason="asked"), off) is None
    assert cause_of(said("lawyer, complaint"), off) is None
    assert alerted(alert(), off) is None


def alert(**fields: Any) -> AlertRaised:
    given = {
        "alert_id": "a", "rule": "loop_text", "severity": "ticket", "title": "t", "agent": "desk", "dedupe_key": "k",
        "run_id": "r",
    }  # fmt: skip
    return AlertRaised(**{**given, **fields})


@pytest.mark.parametrize(
    ("fields", "is_cause"),
    [({}, True), ({"severity": "page"}, True), ({"severity": "info"}, False), ({"run_id": None}, False),
     ({"run_id": ""}, False), ({"run_id": "r" * 129}, False),
     ({"mode": "replay"}, False), ({"mode": "drill"}, False), ({"mode": "eval"}, False)],
)  # fmt: skip
def test_a_live_alert_that_names_a_run_is_a_cause(fields: dict[str, Any], is_cause: bool) -> None:
    assert alerted(alert(**fields), RULE) == (Found("alert", "loop_text") if is_cause else None)
