"""Our prices beside what was published, for real calls: 653 runs, and the bodies that frameworks sent."""

import gzip
import json
from collections import Counter, defaultdict
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from midwatch.contracts.runs import Usage
from midwatch.runtime import price_file, pricing

pytestmark = [pytest.mark.data, pytest.mark.proof]

AT = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
SUPPORT = Decimal("0.0003006")
AZURE = "azure:\n  gpt-4o-2024-11-20: {input: 2.75, output: 11, cache_read: 1.25}\n"
# Tokens' prices as published, in dollars a million: input, from the cache, output.
PUBLISHED = {
    "azure/gpt-4o-2024-11-20": ("2.75", "1.25", "11"),
    "claude-sonnet-4-5-20250929": ("3", "0.30", "15"),
    "gpt-4.1": ("2", "0.50", "8"),
    "gpt-4.1-2025-04-14": ("2", "0.50", "8"),
    "gpt-4o": ("2.50", "1.25", "10"),
    "gpt-4o-2024-08-06": ("2.50", "1.25", "10"),
    "gpt-5.4": ("2.50", "0.25", "15"),
}


def usage_of(message: dict[str, Any]) -> Usage:
    usage = message["usage"]
    theirs = usage.get("provider_usage") or {}
    read = theirs.get("cache_read_input_tokens") or theirs.get("prompt_tokens_details.cached_tokens") or 0
    return Usage(input_tokens=usage["prompt_tokens"], output_tokens=usage["completion_tokens"], cache_read_tokens=read)


def test_every_published_cost_is_ours_once_the_cached_tokens_are_counted_that_its_usage_leaves_out(data_dir, tmp_path):
    own = tmp_path / "prices.yaml"
    own.write_text(AZURE, encoding="utf-8")
    pricing.use(price_file.read(own).overrides)
    try:
        found = compared(data_dir)
    finally:
        pricing.use(())
    # Calls whose tokens all cost their full price, and calls in which whole blocks of 128 came from the cache.
    assert found == {
        "azure/gpt-4o-2024-11-20": {"same": 271, "cached": 355},
        "claude-sonnet-4-5-20250929": {"same": 402},
        "gpt-4.1": {"same": 823, "cached": 2283},
        "gpt-4.1-2025-04-14": {"same": 248, "cached": 168},
        "gpt-4o": {"same": 23, "cached": 407},
        "gpt-4o-2024-08-06": {"same": 31},
        "gpt-5.4": {"same": 7, "cached": 498},
    }


def compared(folder: Path) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    with gzip.open(folder / "agent-runs" / "runs.jsonl.gz") as lines:
        for run in map(json.loads, lines):
            for message in run["messages"]:
                if message["role"] not in ("assistant", "user") or not message.get("usage"):
                    continue
                if not message.get("cost_usd"):
                    continue
                teller = "agent" if message["role"] == "assistant" else "user_simulator"
                model = message.get("model") or run[teller]["model"]
                at = datetime.fromisoformat(message.get("ts") or run["started_at"]).replace(tzinfo=UTC)
                found[model][judged(model, usage_of(message), Decimal(repr(message["cost_usd"])), at)] += 1
    return dict(found)


def judged(model: str, usage: Usage, published: Decimal, at: datetime) -> str:
    provider = None if "/" in model else "anthropic" if model.startswith("claude") else "openai"
    cost = pricing.price(provider, model, usage, None, at)
    assert cost.basis == "priced" and cost.amount is not None
    if abs(cost.amount / published - 1) <= Decimal("0.005"):
        return "same"
    plain, cached, _ = (Decimal(rate) / 1_000_000 for rate in PUBLISHED[model])
    blocks = (cost.amount - published) / (plain - cached) / 128
    whole = abs(blocks - round(blocks)) < Decimal("0.001") and 0 < round(blocks) * 128 <= usage.input_tokens
    return "cached" if whole and not usage.cache_read_tokens else "unexplained"


def spans(path: Path) -> list[dict[str, Any]]:
    """The attributes of every span in a decoded body."""
    body = json.loads(path.read_text(encoding="utf-8"))
    return [
        {one["key"]: next(iter(one["value"].values())) for one in span.get("attributes", [])}
        for resource in body["resourceSpans"] for scope in resource["scopeSpans"] for span in scope["spans"]
    ]  # fmt: skip


def model_calls(path: Path) -> list[tuple[str, str, Usage]]:
    """Provider, model and usage of each model call; spans above them repeat their sums and are left out."""
    calls = []
    for span in spans(path):
        if span.get("openinference.span.kind") == "LLM" and "llm.model_name" in span:
            usage = Usage(
                input_tokens=int(span["llm.token_count.prompt"]),
                output_tokens=int(span["llm.token_count.completion"]),
                cache_read_tokens=int(span.get("llm.token_count.prompt_details.cache_read", 0)),
            )
            calls.append((span["llm.system"], span["llm.model_name"], usage))
        elif span.get("gen_ai.operation.name") == "chat":
            usage = Usage(
                input_tokens=int(span["gen_ai.usage.input_tokens"]),
                output_tokens=int(span["gen_ai.usage.output_tokens"]),
                cache_read_tokens=int(span.get("gen_ai.usage.cache_read.input_tokens", 0)),
            )
            provider = span.get("gen_ai.provider.name") or span["gen_ai.system"]
            calls.append((provider, span["gen_ai.response.model"], usage))
    return calls


@pytest.mark.parametrize(
    "name",
    ["langchain-openinference", "pydantic_ai-native-v5", "pydantic_ai-native-v5-nocontent",
     "pydantic_ai-native-v5-stream", "pydantic_ai-native-v6"],
)  # fmt: skip
def test_the_captured_support_conversation_costs_what_its_source_says(data_dir, name):
    calls = model_calls(data_dir / "otlp" / f"{name}.support.json")
    costs = [pricing.price(*call, None, AT) for call in calls]
    assert [cost.basis for cost in costs] == ["priced"] * 4
    assert sum(cost.amount for cost in costs) == SUPPORT


@pytest.mark.parametrize("name", ["openai_v2", "openai_v2-latest", "openai_v2-latestevent", "openai_v2-nocontent"])
def test_a_source_that_sends_no_cached_tokens_costs_the_full_price(data_dir, name):
    # 2,040 x 0.15 + 135 x 0.60, by the million: 1,152 cached tokens are charged as if they were not.
    calls = model_calls(data_dir / "otlp" / f"openai_client-{name}.support.json")
    assert sum(pricing.price(*call, None, AT).amount for call in calls) == Decimal("0.000387")


def test_what_a_framework_reports_beside_is_what_we_compute(data_dir):
    found = 0
    for span in spans(data_dir / "otlp" / "pydantic_ai-native-v6.support.json"):
        if "operation.cost" in span:
            usage = Usage(
                input_tokens=int(span["gen_ai.usage.input_tokens"]),
                output_tokens=int(span["gen_ai.usage.output_tokens"]),
                cache_read_tokens=int(span.get("gen_ai.usage.cache_read.input_tokens", 0)),
            )
            reported = format(Decimal(repr(span["operation.cost"])), "f")
            cost = pricing.price("openai", span["gen_ai.response.model"], usage, reported, AT)
            assert cost.amount == cost.computed
            found += 1
    assert found == 4
