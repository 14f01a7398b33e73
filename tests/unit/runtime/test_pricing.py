"""What a model call cost, and how sure that is. Prices in dollars a million tokens, as published."""

import warnings
from datetime import UTC, date, datetime
from decimal import Decimal
from time import perf_counter

import pytest
from genai_prices import Usage as ListUsage
from genai_prices.data_snapshot import get_snapshot

from midwatch.contracts.money import to_money
from midwatch.contracts.runs import Usage
from midwatch.runtime import pricing
from midwatch.runtime.pricing import CEILING, PROVIDERS, Cost, price, worst

AT = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
MILLION = Usage(input_tokens=1_000_000)


def test_the_captured_support_conversation_costs_what_its_source_says():
    # 2,040 input tokens of which 1,152 came from the cache: 888 x 0.15 + 1,152 x 0.075 + 135 x 0.60, by the million.
    usage = Usage(input_tokens=2040, output_tokens=135, cache_read_tokens=1152)
    cost = price("openai", "gpt-4o-mini", usage, None, AT)
    assert cost.basis == "priced"
    assert to_money(cost.amount) == "0.0003006"


def test_a_reported_cost_wins_over_the_price_list():
    cost = price("openai", "gpt-4o-mini", MILLION, "0.5", AT)
    assert (cost.amount, cost.basis) == (Decimal("0.5"), "reported")


@pytest.mark.parametrize("zero", ["0", "0.0", "0.000000"])
def test_a_reported_zero_beside_tokens_is_not_believed(zero):
    assert price("openai", "gpt-4o-mini", MILLION, zero, AT) == Cost(Decimal("0.15"), "priced")
    assert price("ollama", "qwen2.5:7b", MILLION, zero, AT) == Cost(None, "unpriced")


def test_a_reported_zero_without_tokens_stands():
    assert price("openai", "gpt-4o-mini", Usage(), "0", AT) == Cost(Decimal(0), "reported")
    assert price("openai", "gpt-4o-mini", None, "0", AT) == Cost(Decimal(0), "reported")


@pytest.mark.parametrize("usage", [None, Usage()])
def test_a_call_without_tokens_or_report_is_unpriced_not_free(usage):
    assert price("openai", "gpt-4o-mini", usage, None, AT) == Cost(None, "unpriced")


@pytest.mark.parametrize(
    ("provider", "model", "amount", "basis"),
    [
        ("openai", "gpt-4o-mini", "0.15", "priced"),
        ("OpenAI", " GPT-4o-mini ", "0.15", "priced"),
        ("anthropic", "claude-3-5-haiku-20241022", "0.8", "priced"),
        ("aws.bedrock", "anthropic.claude-3-5-sonnet-20241022-v2:0", "3", "priced"),
        ("gcp.gemini", "gemini-2.0-flash", "0.1", "priced"),
        ("gcp.vertex_ai", "gemini-2.0-flash", "0.1", "priced"),
        ("gcp.gen_ai", "gemini-2.0-flash", "0.1", "priced"),
        ("groq", "openai/gpt-oss-120b", "0.15", "priced"),
        ("mistral_ai", "mistral-large-latest", "2", "priced"),
        ("x_ai", "grok-3-mini", "0.3", "priced"),
        ("cohere", "command-r-plus", "2.5", "priced"),
        ("openrouter", "openai/gpt-4o-mini", "0.15", "priced"),
        # LiteLLM puts the provider into the model's name
        (None, "openai/gpt-4o-mini", "0.15", "priced"),
        ("litellm", "groq/openai/gpt-oss-120b", "0.15", "priced"),
        ("openai", "openai/gpt-4o-mini", "0.15", "priced"),
        # Azure lists no price of its own for these: OpenAI's is borrowed, and that is said
        ("azure.ai.openai", "gpt-4o", "2.5", "estimated"),
        ("azure.ai.inference", "gpt-4o-mini", "0.15", "estimated"),
        (None, "azure/gpt-4o-2024-11-20", "2.5", "estimated"),
        ("azure.ai.openai", "o3-mini", "1.1", "priced"),
        # no provider, an unknown one, or another than the model's name says: the maker's price
        (None, "gpt-4o-mini", "0.15", "estimated"),
        ("", "gpt-4o-mini", "0.15", "estimated"),
        ("ibm.watsonx.ai", "gpt-4o-mini", "0.15", "estimated"),
        ("deepseek", "gpt-4o-mini", "0.15", "estimated"),
        ("openai", "groq/llama-3.3-70b-versatile", "0.59", "estimated"),
    ],
)
def test_a_million_input_tokens_cost_the_providers_price(provider, model, amount, basis):
    assert price(provider, model, MILLION, None, AT) == Cost(Decimal(amount), basis)


def test_a_model_whose_maker_only_gives_it_away_is_estimated():
    assert price(None, "openai/gpt-oss-120b", MILLION, None, AT).basis == "estimated"
    assert price("openai", "gpt-oss-120b", MILLION, None, AT).basis == "estimated"


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        (None, "ollama_chat/qwen2.5:7b"),
        ("ollama", "gpt-4o-mini"),
        ("vllm", "gpt-4o-mini"),
        ("openai", "no-such-model"),
        (None, "llama-3.3-70b"),
        ("openai", "m" * 257),
        ("p" * 257, "gpt-4o-mini"),
        ("openai", ""),
        ("groq", "whisper-large-v3"),  # priced by the hour: its tokens have no price
    ],
)
def test_what_nobody_lists_is_unpriced(provider, model):
    assert price(provider, model, MILLION, None, AT) == Cost(None, "unpriced")


def test_the_price_is_that_of_the_day():
    # o3 was cut to a fifth on 2025-06-10.
    before = price("openai", "o3", MILLION, None, datetime(2025, 6, 9, tzinfo=UTC))
    after = price("openai", "o3", MILLION, None, datetime(2025, 6, 11, tzinfo=UTC))
    assert (before.amount, after.amount) == (Decimal(10), Decimal(2))


def test_writing_to_the_cache_has_its_own_price_and_is_not_counted_twice():
    # Of a million: 200,000 written at 3.75, 300,000 read at 0.30, 500,000 plain at 3.
    usage = Usage(input_tokens=1_000_000, cache_write_tokens=200_000, cache_read_tokens=300_000)
    cost = price("aws.bedrock", "anthropic.claude-3-5-sonnet-20241022-v2:0", usage, None, AT)
    assert cost == Cost(Decimal("0.75") + Decimal("0.09") + Decimal("1.5"), "priced")


def test_reasoning_is_part_of_the_output():
    usage = Usage(output_tokens=1_000_000, reasoning_tokens=900_000)
    assert price("openai", "o3-mini", usage, None, AT) == Cost(Decimal("4.4"), "priced")


def test_a_source_that_counts_input_without_the_cache_is_charged_for_both():
    # 100 plain tokens at 0.15 beside a million cached ones at 0.075: a part cannot be larger than its whole.
    usage = Usage(input_tokens=100, cache_read_tokens=1_000_000)
    assert price("openai", "gpt-4o-mini", usage, None, AT) == Cost(Decimal("0.075015"), "estimated")


def test_a_source_that_counts_output_without_reasoning_is_charged_for_both():
    usage = Usage(output_tokens=100, reasoning_tokens=1_000_000)
    assert price("openai", "gpt-4o-mini", usage, None, AT) == Cost(Decimal("0.60006"), "estimated")


def test_past_a_tier_every_token_costs_its_price():
    below = price("gcp.gemini", "gemini-2.5-pro", Usage(input_tokens=200_000), None, AT)
    above = price("gcp.gemini", "gemini-2.5-pro", Usage(input_tokens=400_000), None, AT)
    assert (below.amount, above.amount) == (Decimal("0.25"), Decimal("1"))


def test_nonsense_stays_a_number():
    assert price("openai", "gpt-4o-mini", None, "9" * 10_000, AT).amount == CEILING
    tokens = Usage(input_tokens=10**40)
    assert price("openai", "gpt-4o-mini", tokens, None, AT).amount == CEILING
    assert to_money(CEILING) == "1000000000000"


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("reported", "reported", "reported"),
        ("reported", "priced", "priced"),
        ("estimated", "priced", "estimated"),
        ("unpriced", "estimated", "unpriced"),
        ("reported", "unpriced", "unpriced"),
    ],
)
def test_a_sum_is_as_sure_as_its_least_sure_part(a, b, expected):
    assert worst(a, b) == worst(b, a) == expected


def test_every_provider_of_ours_is_in_the_price_list():
    assert set(PROVIDERS.values()) <= {provider.id for provider in get_snapshot().providers}


def test_the_arithmetic_agrees_with_the_price_lists_own_for_every_model():
    usage = Usage(
        input_tokens=250_000, output_tokens=1_000, cache_read_tokens=40_000, cache_write_tokens=10_000,
        reasoning_tokens=300,
    )  # fmt: skip
    theirs = ListUsage(
        input_tokens=250_000, output_tokens=1_000, cache_read_tokens=40_000, cache_write_tokens=10_000,
        output_reasoning_tokens=300,
    )  # fmt: skip
    compared = 0
    for provider in get_snapshot().providers:
        for model in provider.models:
            amount = pricing.Tariff(model.prices, "priced", "").cost(usage, AT).amount
            if amount is None:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    listed = model.calc_price(theirs, provider, genai_request_timestamp=AT).total_price
                except ValueError:  # its list wants counts by kind of input, which nobody reports
                    continue
            assert amount == listed, (provider.id, model.id)
            compared += 1
    assert compared > 1_000


def test_a_warm_call_takes_less_than_20_microseconds():
    usage = Usage(input_tokens=2040, output_tokens=135, cache_read_tokens=1152)
    price("openai", "gpt-4o-mini", usage, None, AT)
    times = []
    for _ in range(200):
        began = perf_counter()
        price("openai", "gpt-4o-mini", usage, None, AT)
        times.append(perf_counter() - began)
    assert sorted(times)[100] < 20e-6


def test_a_date_in_the_list_holds_from_utc_midnight():
    early = datetime.fromisoformat("2025-06-10T01:00:00+02:00")  # still the 9th in UTC
    assert early.date() == date(2025, 6, 10)
    assert price("openai", "o3", MILLION, None, early).amount == Decimal(10)


def reported(usd: str, usage: Usage = MILLION, model: str = "gpt-4o-mini") -> Cost:
    return price("openai", model, usage, usd, AT)


def test_beside_what_was_reported_stands_what_we_compute():
    assert reported("0.5") == Cost(Decimal("0.5"), "reported", Decimal("0.15"), "priced")
    assert reported("0.5", model="no-such-model") == Cost(Decimal("0.5"), "reported")
    assert reported("0.5", usage=Usage()) == Cost(Decimal("0.5"), "reported")
    assert price(None, "gpt-4o-mini", MILLION, "0.5", AT).computed_basis == "estimated"


@pytest.mark.parametrize(
    ("usd", "expected"),
    [
        ("0.15", "agrees"),
        ("0.157894", "agrees"),  # 0.15 is 5 % less than it, to the last digit
        ("0.157895", "differs"),
        ("0.142858", "agrees"),  # 0.15 is 5 % more
        ("0.142857", "differs"),
        ("99", "differs"),
    ],
)
def test_more_than_five_percent_of_what_was_reported_is_a_difference(usd, expected):
    assert pricing.agreement(reported(usd)) == expected


def test_a_difference_of_a_hundredth_of_a_cent_is_dust():
    # A thousand tokens cost $0.00015.
    thousand = Usage(input_tokens=1_000)
    assert pricing.agreement(reported("0.00025", thousand)) is None
    assert pricing.agreement(reported("0.000251", thousand)) == "differs"
    assert pricing.agreement(reported("0.00015", thousand)) == "agrees"


def test_where_nothing_is_computed_or_reported_there_is_nothing_to_compare():
    assert pricing.agreement(reported("0.5", model="no-such-model")) is None
    assert pricing.agreement(price("openai", "gpt-4o-mini", MILLION, None, AT)) is None
    assert pricing.agreement(reported("0")) is None


def test_cached_tokens_that_are_not_reported_explain_a_cost_between_theirs_and_the_full_one():
    # A million tokens: $0.15, or $0.075 where all of them come from the cache.
    def explained(usd: str, usage: Usage = MILLION) -> bool:
        return pricing.cached_would_explain("openai", "gpt-4o-mini", usage, reported(usd, usage), AT)

    assert explained("0.075")
    assert explained("0.10")
    assert not explained("0.07")
    assert not explained("0.16")
    assert not explained("0.10", Usage(input_tokens=1_000_000, cache_read_tokens=1))


def test_a_tool_call_costs_what_it_reports_else_what_the_card_says():
    assert pricing.tool_cost("0.02", "0.01") == Cost(Decimal("0.02"), "reported")
    assert pricing.tool_cost("0", "0.01") == Cost(Decimal(0), "reported")
    assert pricing.tool_cost(None, "0.01") == Cost(Decimal("0.01"), "estimated")
    assert pricing.tool_cost(None, None) is None
