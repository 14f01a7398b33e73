"""What an attempt cost."""

from datetime import UTC, datetime

from midwatch.contracts.runs import Usage
from midwatch_services.evals.billed import Billed
from midwatch_services.evals.costs import total

NOW = datetime(2026, 11, 22, tzinfo=UTC)
TOKENS = Usage(input_tokens=1000, output_tokens=100)
PRICED = Billed(model="gpt-4.1", provider="openai", usage=TOKENS)  # $2 and $8 a million


def test_reported_costs_are_summed() -> None:
    calls = [Billed(model="m", cost_usd="0.01"), Billed(model="m", cost_usd="0.02")]
    assert total(calls, NOW) == ("0.03", "reported")


def test_a_call_without_a_reported_cost_is_priced_by_its_tokens() -> None:
    assert total([PRICED], NOW) == ("0.0028", "priced")
    assert total([Billed(model="m", cost_usd="0.01"), PRICED], NOW) == ("0.0128", "priced")


def test_one_unknown_price_leaves_the_sum_unknown() -> None:
    assert total([PRICED, Billed(model="house-model-7", usage=TOKENS)], NOW) == (None, "unpriced")


def test_a_call_that_failed_costs_nothing() -> None:
    assert total([PRICED, Billed(model="house-model-7", failed=True)], NOW) == ("0.0028", "priced")


def test_no_call_has_no_cost() -> None:
    assert total([], NOW) == (None, "none")


def test_a_tool_may_say_what_it_cost() -> None:
    assert total([Billed(cost_usd="0.5")], NOW) == ("0.5", "reported")
