"""Tokens, model and cost as the common clients report them."""

from enum import Enum
from types import SimpleNamespace as Answer
from typing import Any

import pytest

from midwatch import usage
from midwatch.contracts.runs import Usage


class FinishReason(Enum):
    STOP = "stop-value"


CHAT = Answer(
    id="chatcmpl-1",
    model="gpt-4.1-2025",
    choices=[Answer(finish_reason="stop", message=Answer(content="hi", tool_calls=None))],
    usage=Answer(
        prompt_tokens=100,
        completion_tokens=20,
        prompt_tokens_details=Answer(cached_tokens=60),
        completion_tokens_details=Answer(reasoning_tokens=8),
    ),
)
RESPONSES = Answer(
    id="resp-1",
    model="gpt-5",
    status="completed",
    incomplete_details=None,
    output=[
        Answer(type="reasoning", content=None),
        Answer(
            type="message", content=[Answer(type="output_text", text="hi "), Answer(type="output_text", text="you")]
        ),
        Answer(type="function_call", name="refund", arguments='{"a":1}', content=None),
    ],
    usage=Answer(
        input_tokens=50,
        output_tokens=30,
        input_tokens_details=Answer(cached_tokens=10),
        output_tokens_details=Answer(reasoning_tokens=25),
    ),
)
ANTHROPIC = Answer(
    id="msg-1",
    model="claude-x",
    stop_reason="tool_use",
    content=[Answer(type="text", text="look"), Answer(type="tool_use", name="look_up", input={"id": 1})],
    usage=Answer(input_tokens=10, output_tokens=5, cache_read_input_tokens=70, cache_creation_input_tokens=20),
)
GOOGLE = Answer(
    response_id="g-1",
    model_version="gemini-x",
    candidates=[
        Answer(
            finish_reason=FinishReason.STOP,
            content=Answer(
                parts=[
                    Answer(text="thinking", thought=True, function_call=None),
                    Answer(text="hi", thought=None, function_call=None),
                ]
            ),
        )
    ],
    usage_metadata=Answer(
        prompt_token_count=40,
        candidates_token_count=9,
        cached_content_token_count=30,
        thoughts_token_count=6,
        tool_use_prompt_token_count=None,
    ),
)
LITELLM = Answer(
    id="l-1",
    model="claude-x",
    choices=[Answer(finish_reason="stop", message=Answer(content="hi", tool_calls=[]))],
    usage=Answer(
        prompt_tokens=100,
        completion_tokens=5,
        prompt_tokens_details=Answer(cached_tokens=70),
        cache_read_input_tokens=70,
        cache_creation_input_tokens=20,
    ),
    _hidden_params={"response_cost": 0.00123, "custom_llm_provider": "anthropic"},
)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (CHAT, Usage(input_tokens=100, output_tokens=20, cache_read_tokens=60, reasoning_tokens=8)),
        (RESPONSES, Usage(input_tokens=50, output_tokens=30, cache_read_tokens=10, reasoning_tokens=25)),
        (ANTHROPIC, Usage(input_tokens=100, output_tokens=5, cache_read_tokens=70, cache_write_tokens=20)),
        (GOOGLE, Usage(input_tokens=40, output_tokens=15, cache_read_tokens=30, reasoning_tokens=6)),
        (LITELLM, Usage(input_tokens=100, output_tokens=5, cache_read_tokens=70, cache_write_tokens=20)),
        ({"usage": {"input_tokens": 3, "output_tokens": 2}}, Usage(input_tokens=3, output_tokens=2)),
        ({"usage": {"prompt_tokens": 3, "completion_tokens": 2}}, Usage(input_tokens=3, output_tokens=2)),
    ],
    ids=["chat", "responses", "anthropic", "google", "litellm", "dictionary", "openai dictionary"],
)
def test_input_tokens_always_include_the_cached_ones(answer: Any, expected: Usage) -> None:
    assert usage.read(answer, {})["usage"] == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (CHAT, ("gpt-4.1-2025", "chatcmpl-1", "stop", "hi")),
        (
            RESPONSES,
            ("gpt-5", "resp-1", "completed",
             {"text": "hi you", "tool_calls": [{"name": "refund", "arguments": '{"a":1}'}]}),
        ),
        (
            ANTHROPIC,
            ("claude-x", "msg-1", "tool_use",
             {"text": "look", "tool_calls": [{"name": "look_up", "arguments": {"id": 1}}]}),
        ),
        (GOOGLE, ("gemini-x", "g-1", "STOP", "hi")),
        (LITELLM, ("claude-x", "l-1", "stop", "hi")),
    ],
    ids=["chat", "responses", "anthropic", "google", "litellm"],
)  # fmt: skip
def test_model_id_ending_and_text_are_read(answer: Any, expected: tuple[Any, ...]) -> None:
    fields = usage.read(answer, {"model": "asked"})
    assert tuple(fields.get(name) for name in ("model", "response_id", "finish_reason", "output")) == expected


def test_a_cost_that_the_framework_reports_is_taken() -> None:
    fields = usage.read(LITELLM, {})
    assert (fields["cost_usd"], fields["provider"]) == ("0.00123", "anthropic")


def test_a_router_reports_its_cost_in_the_usage() -> None:
    assert usage.read({"usage": {"prompt_tokens": 1, "cost": 0.5}}, {})["cost_usd"] == "0.5"


def test_no_cost_is_made_up() -> None:
    assert "cost_usd" not in usage.read(CHAT, {})


@pytest.mark.parametrize(
    ("address", "provider"),
    [
        ("https://api.openai.com/v1/", "openai"),
        ("https://shop.openai.azure.com/openai/", "azure"),
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("http://localhost:8000/v1", None),
        ("https://evilopenrouter.ai/", None),
    ],
)
def test_the_clients_address_says_who_the_provider_is(address: str, provider: str | None) -> None:
    class Completions:
        _client = Answer(base_url=address)

        def create(self) -> None: ...

    assert usage.read(CHAT, {}, Completions().create).get("provider") == provider


class Mean:
    @property
    def usage(self) -> Any:
        raise RuntimeError("no usage here")

    model = 7


@pytest.mark.parametrize(
    "answer", [None, 3, object(), [], "", iter(()), Mean(), {"usage": "none"}, {"choices": [None]}]
)
def test_an_answer_of_no_known_shape_leaves_the_model_that_was_asked(answer: Any) -> None:
    fields = usage.read(answer, {"model": "asked"})
    assert (fields["model"], fields.get("usage")) == ("asked", None)


def test_a_model_that_nobody_named_is_unknown() -> None:
    assert usage.read(None, {})["model"] == "unknown"


def test_a_plain_text_answer_is_the_output() -> None:
    assert usage.read("hello", {"model": "m"}) == {"model": "m", "output": "hello"}


def test_negative_and_boolean_counts_are_not_believed() -> None:
    assert usage.tokens({"input_tokens": -5, "output_tokens": 2}) == Usage(output_tokens=2)
