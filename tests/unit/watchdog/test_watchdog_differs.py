"""One alert for a model of an agent whose reported cost is not what its price makes of it."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from midwatch.contracts.codec import RunEvent
from midwatch.contracts.runs import ModelCalled, ToolCalled, Usage
from midwatch_services.cost_watchdog import differs
from midwatch_services.cost_watchdog.alerts import Decision, RaiseAlert, ResolveAlert
from midwatch_services.cost_watchdog.differs import AGREEING, ModelState
from midwatch_services.cost_watchdog.observe import observe

AT = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
MILLION = Usage(input_tokens=1_000_000)  # $0.15 at gpt-4o-mini
ALIKE, APART, DUST = ("0.15", MILLION), ("0.30", MILLION), ("0.00016", Usage(input_tokens=1_000))


class Play:
    """The calls of one agent's models, judged one by one; every decision is kept."""

    def __init__(self, mode: str = "live") -> None:
        self.mode = mode
        self.states: dict[Any, ModelState] = {}
        self.decisions: list[Decision] = []
        self._calls = 0

    def call(self, usd: str, usage: Usage = MILLION, model: str = "gpt-4o-mini", **fields: Any) -> list[Decision]:
        self._calls += 1
        data = ModelCalled(
            run_id="run-1", agent="refund-desk", version="1", mode=self.mode, seq=self._calls,
            provider=fields.pop("provider", "openai"), model=model, usage=usage, cost_usd=usd, **fields,
        )  # fmt: skip
        event = RunEvent("refund-desk", "model_called", f"e{self._calls}", AT, "/agents/refund-desk/pod-7", data)
        call = differs.compared(event, observe(event))
        if call is None:
            return []
        state, decisions = differs.judge(self.states.get(call.model, ModelState()), call)
        self.states[call.model] = state
        self.decisions += decisions
        return decisions


@pytest.fixture
def play() -> Play:
    return Play()


def test_the_first_call_that_differs_raises_a_ticket_with_both_figures(play: Play) -> None:
    (alert,) = play.call(*APART, ticket="T-1")
    assert isinstance(alert, RaiseAlert)
    assert (alert.rule, alert.severity, alert.action, alert.basis) == ("cost_differs", "ticket", "none", "reported")
    assert (alert.value, alert.limit) == ("0.3", "0.15")
    assert (alert.agent, alert.run_id, alert.ticket, alert.event_id, alert.seq) == (
        "refund-desk", "run-1", "T-1", "e1", 1,
    )  # fmt: skip
    assert alert.title == (
        "A call of gpt-4o-mini (openai) by refund-desk is reported to cost $0.30, by its price it costs $0.15"
    )


def test_where_cached_tokens_that_are_not_reported_would_explain_it_the_alert_says_so(play: Play) -> None:
    (alert,) = play.call("0.10")
    assert isinstance(alert, RaiseAlert)
    assert alert.title.endswith("it costs $0.15; cached tokens that it does not report would explain it")


def test_a_price_that_is_borrowed_is_said_to_be_about_so_much(play: Play) -> None:
    (alert,) = play.call(*APART, provider=None)
    assert isinstance(alert, RaiseAlert)
    assert alert.title == (
        "A call of gpt-4o-mini by refund-desk is reported to cost $0.30, by its price it costs about $0.15"
    )


def test_further_calls_are_counted_on_the_one_alert(play: Play) -> None:
    for _ in range(5):
        play.call(*APART)
    assert len(play.decisions) == 1
    (state,) = play.states.values()
    assert state.differing == 5
    for _ in range(AGREEING):
        play.call(*ALIKE)
    resolved = play.decisions[-1]
    assert isinstance(resolved, ResolveAlert)
    assert resolved.repeats == 4


def test_it_is_resolved_by_twenty_calls_in_a_row_that_agree(play: Play) -> None:
    play.call(*APART)
    for _ in range(AGREEING - 1):
        assert play.call(*ALIKE) == []
    (resolved,) = play.call(*ALIKE)
    assert isinstance(resolved, ResolveAlert)
    assert resolved.reason == "20 calls in a row cost what they are reported to cost"


def test_one_that_differs_among_them_begins_the_count_anew(play: Play) -> None:
    play.call(*APART)
    for _ in range(AGREEING - 1):
        play.call(*ALIKE)
    play.call(*APART)
    for _ in range(AGREEING - 1):
        assert play.call(*ALIKE) == []
    assert len(play.call(*ALIKE)) == 1


def test_dust_counts_neither_way(play: Play) -> None:
    assert play.call(*DUST) == []
    play.call(*APART)
    for _ in range(3 * AGREEING):
        assert play.call(*DUST) == []


def test_after_its_end_the_next_difference_is_a_new_alert(play: Play) -> None:
    (first,) = play.call(*APART)
    for _ in range(AGREEING):
        play.call(*ALIKE)
    (second,) = play.call(*APART)
    assert isinstance(first, RaiseAlert) and isinstance(second, RaiseAlert)
    assert first.alert_id != second.alert_id
    assert first.dedupe_key == second.dedupe_key


def test_each_model_and_each_provider_has_an_alert_of_its_own(play: Play) -> None:
    play.call(*APART)
    play.call("9", model="gpt-4o")
    play.call(*APART, provider="azure")
    assert len({alert.dedupe_key for alert in play.decisions if isinstance(alert, RaiseAlert)}) == 3


def test_a_replay_is_counted_by_itself_and_only_informs() -> None:
    (alert,) = Play("replay").call(*APART)
    assert isinstance(alert, RaiseAlert)
    assert (alert.severity, alert.mode) == ("info", "replay")


def test_a_model_that_agrees_leaves_no_state_behind(play: Play) -> None:
    for _ in range(3):
        play.call(*ALIKE)
    assert list(play.states.values()) == [ModelState()]


def test_what_cannot_be_computed_is_not_compared(play: Play) -> None:
    assert play.call("0.30", model="no-such-model") == []
    assert play.call("0") == []
    assert play.states == {}
    tool = ToolCalled(run_id="r", agent="refund-desk", version="1", mode="live", seq=0, tool="pay", cost_usd="1")
    event = RunEvent("refund-desk", "tool_called", "t", AT, "/agents/refund-desk/pod-7", tool)
    assert differs.compared(event, observe(event)) is None


def test_the_alert_of_a_model_that_nobody_calls_any_more_ends_with_its_state(play: Play) -> None:
    play.call(*APART)
    ((model, state),) = play.states.items()
    (resolved,) = differs.lapse(state, model)
    assert isinstance(resolved, ResolveAlert)
    assert resolved.reason == "it has not been called for a long time"


def test_what_an_agent_calls_its_model_cannot_disturb_who_reads_the_alert(play: Play) -> None:
    (alert,) = play.call("3", model="openai/gpt-4o-mini", provider="open\x1b[2Jai\0" + "x" * 100)
    assert isinstance(alert, RaiseAlert)
    assert "\x1b" not in alert.title and len(alert.title) < 300
    assert "\0" not in alert.dedupe_key
    assert Decimal(alert.value) == 3
