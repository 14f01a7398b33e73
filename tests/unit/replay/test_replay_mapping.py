"""What a run file says becomes what its agent would have published; what it does not say stays out."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from midwatch.contracts.runs import Usage
from midwatch_services.replay.mapping import (
    HandOffStep,
    ModelStep,
    PlayedRun,
    SaidStep,
    ToolStep,
    agent_name,
    to_played,
)
from midwatch_services.replay.source import SourceRun


def played(*messages: dict[str, Any], **fields: Any) -> PlayedRun:
    run = {"run_id": "run-1", "agent": {"name": "desk", "model": "azure/m-1"}, "domain": "shop", "task_id": "7"}
    return to_played(msgspec.convert({**run, "messages": list(messages), **fields}, SourceRun))


def called(*calls: tuple[str, str], content: str | None = None, requestor: str = "assistant") -> dict[str, Any]:
    tool_calls = [{"id": call_id, "name": name, "args": {}, "requestor": requestor} for call_id, name in calls]
    return {"role": requestor, "content": content, "tool_calls": tool_calls}


def result(call_id: str, content: str, **fields: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content, "requestor": "assistant", **fields}


def tools(run: PlayedRun) -> list[tuple[str, Any, str | None]]:
    return [(step.tool, step.result, step.error) for step in run.steps if isinstance(step, ToolStep)]


def test_each_message_with_text_is_said_and_the_system_prompt_is_not() -> None:
    run = played(
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "assistant", "content": " "},
        {"role": "assistant", "content": None},
    )
    assert run.steps == [SaidStep("customer", "Hello", None), SaidStep("agent", "Hi", None)]
    assert (run.input, run.output) == ("Hello", "Hi")


def test_the_input_is_the_customers_first_message_after_the_greeting() -> None:
    assert played({"role": "assistant", "content": "Hi!"}, {"role": "user", "content": "Refund"}).input == "Refund"


def test_a_run_without_a_customer_says_so_as_its_input() -> None:
    assert played({"role": "assistant", "content": "Done"}).input == "(no customer message in the file: task 7)"


def test_a_model_call_carries_what_was_recorded() -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 5, "provider_usage": {"cache_read_input_tokens": 40}}
    message = {"role": "assistant", "content": "Hi", "cost_usd": 0.1, "usage": usage, "finish_reason": "stop"}
    usage_read = Usage(input_tokens=100, output_tokens=5, cache_read_tokens=40)
    (model, said) = played({**message, "generation_s": 1.5}).steps
    assert model == ModelStep("azure", "m-1", usage_read, "0.1", 1500.0, "stop", None)
    assert isinstance(said, SaidStep)


def test_the_model_that_answered_goes_before_the_one_that_was_asked() -> None:
    (model, _) = played({"role": "assistant", "content": "Hi", "model": "m-1-2025", "cost_usd": 1.0}).steps
    assert isinstance(model, ModelStep)
    assert (model.provider, model.model) == ("azure", "m-1-2025")


def test_a_cost_of_nothing_beside_tokens_is_no_reported_cost() -> None:
    (model, _) = played(
        {"role": "assistant", "content": "Hi", "cost_usd": 0.0, "usage": {"prompt_tokens": 9, "completion_tokens": 1}}
    ).steps
    assert isinstance(model, ModelStep)
    assert model.cost_usd is None


def test_a_canned_greeting_is_no_model_call() -> None:
    assert played({"role": "assistant", "content": "Hi", "cost_usd": 0.0}).steps == [SaidStep("agent", "Hi", None)]


def test_a_result_goes_to_the_open_call_of_its_id() -> None:
    run = played(called(("a", "one"), ("b", "two")), result("b", "second"), result("a", "first"))
    assert tools(run) == [("two", "second", None), ("one", "first", None)]


def test_calls_that_share_an_id_are_paired_in_order() -> None:
    run = played(called(("x", "one"), ("x", "two")), result("x", "first"), result("x", "second"))
    assert tools(run) == [("one", "first", None), ("two", "second", None)]


def test_a_failed_call_has_its_error_and_no_result() -> None:
    run = played(called(("a", "one")), result("a", "Error: no such order", error=True))
    assert tools(run) == [("one", None, "Error: no such order")]


def test_a_call_that_was_never_answered_is_published_without_result() -> None:
    run = played(called(("a", "one")), {"role": "user", "content": "Well?"}, called(("b", "two")))
    assert [type(step).__name__ for step in run.steps] == ["ToolStep", "SaidStep", "ToolStep"]


def test_the_customers_own_device_is_no_tool_of_the_agent_and_is_counted() -> None:
    run = played(
        called(("d", "toggle_wifi"), requestor="user"),
        {"role": "tool", "tool_call_id": "d", "content": "on", "requestor": "user"},
    )
    assert run.steps == []
    assert run.labels["customer_device_calls"] == "1"


def test_the_transfer_tool_hands_off_with_its_summary() -> None:
    call = called(("t", "transfer_to_human_agents"))
    call["tool_calls"][0]["args"] = {"summary": "Wants a person"}
    run = played(call, result("t", "Transfer successful"))
    assert run.steps[1] == HandOffStep("the agent called transfer_to_human_agents", "Wants a person", None)
    assert run.resolution == "handed_off"


def test_a_transfer_that_failed_hands_nothing_off() -> None:
    run = played(called(("t", "transfer_to_human_agents")), result("t", "Error: closed", error=True))
    assert [type(step) for step in run.steps] == [ToolStep]


TRANSFER = (called(("t", "transfer_to_human_agents")), result("t", "Transfer successful"))


@pytest.mark.parametrize(
    ("messages", "reason", "resolution"),
    [
        ([], "user_stop", "resolved"),
        ([], "agent_stop", "resolved"),
        ([{"role": "user", "content": "Thanks ###STOP###"}], None, "resolved"),
        ([{"role": "user", "content": "Hm"}], None, "abandoned"),
        ([*TRANSFER], None, "handed_off"),
        ([*TRANSFER, {"role": "user", "content": "###TRANSFER###"}], "user_stop", "handed_off"),
        ([{"role": "user", "content": "###TRANSFER###"}], "user_stop", "abandoned"),
        ([{"role": "user", "content": "###OUT-OF-SCOPE###"}], "user_stop", "abandoned"),
        ([*TRANSFER], "max_steps", "failed"),
        ([], "agent_error", "failed"),
    ],
)
def test_how_a_run_ended_is_what_was_known_then(messages: list[Any], reason: str | None, resolution: str) -> None:
    run = played(*messages, termination_reason=reason, outcome={"reward": 0.0})
    assert run.resolution == resolution
    assert (run.error == f"stopped by the harness: {reason}") == (resolution == "failed")
    assert run.labels["reward"] == "0.0"


def test_recorded_times_are_kept_in_utc_and_never_run_backwards() -> None:
    run = played(
        {"role": "user", "content": "a", "ts": "2025-01-01T10:00:05"},
        {"role": "user", "content": "b", "ts": "2025-01-01T10:00:03"},
        {"role": "user", "content": "c"},
        timing="recorded",
        started_at="2025-01-01T12:00:00+02:00",
        ended_at="2025-01-01T10:00:09",
    )
    five = datetime(2025, 1, 1, 10, 0, 5, tzinfo=UTC)
    assert run.started_at == datetime(2025, 1, 1, 10, tzinfo=UTC)
    assert [step.at for step in run.steps] == [five, five, five]
    assert run.ended_at == datetime(2025, 1, 1, 10, 0, 9, tzinfo=UTC)
    assert run.labels["times"] == "recorded"


def test_placeholder_times_are_not_used() -> None:
    run = played({"role": "user", "content": "a"}, timing="placeholder", started_at="2025-01-01T00:00:00")
    assert (run.started_at, run.ended_at, run.steps[0].at) == (None, None, None)
    assert run.labels["times"] == "of publishing (placeholder in the file)"


def test_runs_of_one_task_are_tickets_of_their_own() -> None:
    first, second = played(), played(run_id="run-2")
    assert first.ticket.startswith("shop-7-")
    assert first.ticket != second.ticket


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("llm_agent", "shop-llm_agent"),
        ("My Agent (v2)", "shop-my-agent-v2"),
        ("x" * 80, "shop-" + "x" * 58),
        ("é", "shop"),
    ],
)
def test_an_agents_name_fits_the_contract(name: str, slug: str) -> None:
    assert agent_name("shop", name) == slug
