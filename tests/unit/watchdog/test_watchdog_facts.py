"""What the rules are told of a run event."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from midwatch.contracts.codec import RunEvent
from midwatch.contracts.runs import Finished, HandedOff, ModelCalled, RunData, Said, Started, ToolCalled, Usage
from midwatch.runtime.pricing import Cost
from midwatch_services.cost_watchdog.rules.facts import call_of, facts_of, succeeded
from midwatch_services.cost_watchdog.rules.memory import Facts

AT = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
COMMON: dict[str, Any] = {"run_id": "run-1", "agent": "refund-desk", "version": "1", "mode": "live", "seq": 4}
ANSWER = "Your refund is on its way."


def facts(data: RunData, cost: Cost | None = None) -> Facts | None:
    return facts_of(RunEvent("refund-desk", "any", "id-1", AT, "/agents/refund-desk/pod-7", data), cost)


def tool(**fields: Any) -> ToolCalled:
    return ToolCalled(**COMMON, **{"tool": "issue_refund", **fields})


def text(data: RunData) -> int | None:
    found = facts(data)
    return found and found.text


def said(words: str) -> int | None:
    return text(Said(**COMMON, by="agent", text=words))


def replied(output: Any) -> int | None:
    return text(ModelCalled(**COMMON, model="m", output=output))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": [2, {"c": 3}]}, {"b": [2, {"c": 3}], "a": 1}),
        ({"a": 1}, '{"a": 1}'),
        ({"a": 1, "b": [2]}, {"a": 1.0, "b": [2.0]}),
        ({"a": 1e3}, '{"a": 1000}'),
        ({"text": "version 1.0"}, {"text": "version 1.0"}),
    ],
)
def test_the_same_call_is_the_same_however_it_is_written(one, other):
    assert call_of(tool(arguments=one)) == call_of(tool(arguments=other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": "1"}), ({"a": 1}, {"a": True}), ({"a": 1}, {"a": 1.5}), ({"a": "x"}, {"a": "X"}),
        ({"a": "x"}, {"a": "x "}), ({"a": "1.0"}, {"a": "1"}), ({"a": [1, 2]}, {"a": [2, 1]}),
    ],
)  # fmt: skip
def test_another_call_is_another(one, other):
    assert call_of(tool(arguments=one)) != call_of(tool(arguments=other))


def test_the_result_makes_no_other_call_but_the_tool_and_what_was_cut_do():
    assert call_of(tool(result="a")) == call_of(tool(result="b", error="c", full_lengths={"result": 9}))
    assert call_of(tool()) != call_of(tool(tool="other"))
    assert call_of(tool(full_lengths={"arguments": 1})) != call_of(tool(full_lengths={"arguments": 2}))


def test_arguments_nested_beyond_all_reason_are_taken_as_they_are():
    deep = "[" * 100_000 + "]" * 100_000
    assert call_of(tool(arguments=deep)) != call_of(tool(arguments=deep + " "))


@pytest.mark.parametrize(
    ("fields", "ok"),
    [
        ({"result": "Payment request sent"}, True), ({"result": None}, True), ({"result": {"status": "ok"}}, True),
        ({"result": {"error": None, "id": 1}}, True), ({"result": {"error": "no such order"}}, False),
        ({"result": {"isError": True}}, False), ({"result": '{"error": "x"}'}, False), ({"error": "x"}, False),
        ({"result": "Error: Gift card balance is not enough"}, False), ({"result": " error: x"}, False),
        ({"result": "No errors"}, True),
    ],
)  # fmt: skip
def test_a_tool_may_say_in_its_result_that_it_failed(fields, ok):
    assert succeeded(tool(**fields)) is ok


def test_a_tool_call_says_whether_it_writes_and_what_it_cost():
    found = facts(tool(kind="write"), Cost(Decimal("0.02"), "reported"))
    assert found is not None
    assert (found.write, found.ok, found.dollars, found.tokens, found.at) == (True, True, 0.02, 0.0, AT.timestamp())
    assert facts(tool(kind="read")).write is False


def test_a_model_call_says_what_it_used():
    found = facts(
        ModelCalled(**COMMON, model="m", usage=Usage(input_tokens=900, output_tokens=60, cache_read_tokens=500)),
        Cost(None, "unpriced"),
    )
    assert (found.tokens, found.dollars, found.text) == (960.0, 0.0, None)


def test_a_count_beyond_all_reason_stays_one_that_can_be_stored():
    assert facts(ModelCalled(**COMMON, model="m", usage=Usage(input_tokens=2**63))).tokens == 1e12


def test_a_text_is_the_same_whatever_its_case_and_spacing():
    assert said(ANSWER) == said("  YOUR refund\n\nis on  its way. ")
    assert said(ANSWER) != said("Your refund is on its way!")


def test_what_a_model_says_is_its_text_and_counts_apart_from_what_the_agent_says():
    assert replied(ANSWER) == replied({"text": ANSWER}) == replied({"content": ANSWER})
    assert replied(ANSWER) != said(ANSWER)


@pytest.mark.parametrize("output", [None, "", {"text": ANSWER, "tool_calls": [1]}, {"text": 3}, [ANSWER], 7])
def test_what_is_said_to_nobody_is_no_text(output):
    assert replied(output) is None


def test_a_short_text_may_be_said_again():
    assert said("You are welcome!") is None
    assert said("Thank you. " + "x" * 20) is not None


@pytest.mark.parametrize("by", ["customer", "human"])
def test_what_others_say_is_not_the_agents(by):
    assert facts(Said(**COMMON, by=by, text=ANSWER)) is None


def test_only_a_hand_off_by_the_agents_own_wish_counts():
    assert facts(HandedOff(**COMMON, to="human", reason="r")) == Facts(hand_off=True)
    assert facts(HandedOff(**COMMON, to="human", reason="r", key="runs.refund-desk")) is None


def test_the_begin_and_the_end_of_a_run_are_nothing_to_judge():
    assert facts(Started(**COMMON, input=ANSWER)) is None
    assert facts(Finished(**COMMON, resolution="resolved", output=ANSWER)) is None
