"""What of a run event is judged: its cost and the digest of its call."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from midwatch.contracts.codec import RunEvent
from midwatch.contracts.control import BudgetRule, Card, ToolRule
from midwatch.contracts.runs import Finished, HumanActed, ModelCalled, RunData, Said, ToolCalled, Usage
from midwatch.runtime.pricing import Cost
from midwatch_services.cost_watchdog.observe import observe, pair_of
from midwatch_services.cost_watchdog.trial import Trial

COMMON: dict[str, Any] = {"run_id": "run-1", "agent": "refund-desk", "version": "1", "mode": "live", "seq": 4}


def event(data: RunData) -> RunEvent:
    at = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
    return RunEvent("refund-desk", "any", "id-1", at, "/agents/refund-desk/pod-7", data)


def pair(**fields: Any) -> int:
    return pair_of(ToolCalled(**COMMON, **{"tool": "lookup_order", **fields}))


def test_a_model_call_is_priced():
    usage = Usage(input_tokens=1_000_000)
    seen = observe(event(ModelCalled(**COMMON, provider="openai", model="gpt-4o-mini", usage=usage)))
    assert seen.cost == Cost(Decimal("0.15"), "priced")
    assert (seen.run, seen.seq, seen.pair) == (("live", "refund-desk", "run-1"), 4, None)


def test_a_tools_own_cost_counts():
    assert observe(event(ToolCalled(**COMMON, tool="pay", cost_usd="0.02"))).cost == Cost(Decimal("0.02"), "reported")
    assert observe(event(ToolCalled(**COMMON, tool="pay"))).cost is None


def test_a_tool_call_that_reports_no_cost_is_charged_what_the_card_says():
    tools = {"search": ToolRule(kind="read", cost="0.01"), "look": ToolRule(kind="read")}
    assert observe(event(ToolCalled(**COMMON, tool="search")), tools).cost == Cost(Decimal("0.01"), "estimated")
    assert observe(event(ToolCalled(**COMMON, tool="search", error="no answer")), tools).cost.basis == "estimated"
    assert observe(event(ToolCalled(**COMMON, tool="search", cost_usd="0.02")), tools).cost == Cost(
        Decimal("0.02"), "reported"
    )
    assert observe(event(ToolCalled(**COMMON, tool="look")), tools).cost is None


def test_what_costs_nothing_has_no_cost():
    seen = observe(event(Said(**COMMON, by="agent", text="hello")))
    assert (seen.cost, seen.pair, seen.finished) == (None, None, None)


def test_the_end_is_seen():
    assert observe(event(Finished(**COMMON, resolution="failed"))).finished == "failed"


def test_what_people_do_has_no_place_in_the_agents_order():
    assert observe(event(HumanActed(**COMMON, action="refunded"))).seq is None


def test_a_very_long_ticket_is_cut_and_still_told_apart():
    long = observe(event(Said(**COMMON, by="agent", text="", ticket="T" * 5000))).ticket
    other = observe(event(Said(**COMMON, by="agent", text="", ticket="T" * 5001))).ticket
    assert long is not None and len(long) < 230
    assert long != other
    assert observe(event(Said(**COMMON, by="agent", text="", ticket=""))).ticket is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"arguments": {"a": 1, "b": {"c": 2, "d": 3}}}, {"arguments": {"b": {"d": 3, "c": 2}, "a": 1}}),
        ({"arguments": {"a": 1}}, {"arguments": '{"a": 1}'}),
        ({"result": "x", "call_id": "c1"}, {"result": "x", "call_id": "c2"}),
        ({"result": "x", "latency_ms": 1.0}, {"result": "x", "latency_ms": 2.0}),
    ],
)
def test_the_same_call_with_the_same_result_is_the_same(one, other):
    assert pair(**one) == pair(**other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"tool": "a"}, {"tool": "b"}),
        ({"arguments": {"a": 1}}, {"arguments": {"a": 2}}),
        ({"arguments": {"a": 1}}, {"result": {"a": 1}}),
        ({"result": "x"}, {"result": "y"}),
        ({"result": "x"}, {"error": "x"}),
        ({"result": "cut", "full_lengths": {"result": 900}}, {"result": "cut", "full_lengths": {"result": 901}}),
        ({"arguments": "not json {"}, {"arguments": "not json }"}),
    ],
)
def test_another_call_or_another_result_is_another(one, other):
    assert pair(**one) != pair(**other)


@pytest.mark.parametrize(("reported", "estimate", "cost"), [
    ("0.02", "0.18", Cost(Decimal("0.02"), "reported")), (None, "0.18", Cost(Decimal("0.18"), "estimated")),
    (None, None, Cost(None, "unpriced")),
])  # fmt: skip
def test_what_the_agent_counted_a_call_as_stands_where_nobody_knows_its_price(
    reported: str | None, estimate: str | None, cost: Cost
) -> None:
    data = ModelCalled(
        run_id="r", agent="desk", version="1", mode="live", seq=0, model="m", cost_usd=reported, estimate_usd=estimate
    )
    event = RunEvent("desk", "model_called", "e", datetime(2026, 11, 22, tzinfo=UTC), "/agents/desk/1", data)
    assert observe(event).cost == cost


def test_a_trial_charges_tools_as_the_card_says_that_is_tried():
    card = Card(
        agent="refund-desk", owner="o", purpose="p", can=["c"], budget=BudgetRule(run="1"),
        tools={"search": ToolRule(kind="read", cost="0.60")},
    )  # fmt: skip
    trial = Trial(card)
    for seq in range(3):
        call = ToolCalled(**{**COMMON, "seq": seq}, tool="search", result=seq)
        trial.feed(event(call), datetime(2026, 11, 22, 2, 0, tzinfo=UTC))
    assert (trial.spent.amount, trial.spent.basis) == (Decimal("1.80"), "estimated")
    assert trial.stopped["run-1"].rule == "budget_run"
