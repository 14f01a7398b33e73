"""A run as people read it, and two of them side by side."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from logged import NOON
from midwatch.contracts.control import ToolRule
from midwatch_services.console.compare import align
from midwatch_services.console.run_story import SHOWN, Step, along, chart, steps, uses
from midwatch_services.logger.decide import text_of

START = text_of(NOON)


def event(place: int, name: str, **data: Any) -> dict[str, Any]:
    at = text_of(NOON + timedelta(seconds=place))
    return {"id": f"e-{place}", "event": name, "seq": place, "time": at, "note": None, "data": data}


def told(*events: dict[str, Any], **more: Any) -> list[Step]:
    return steps(events, START, {"refund": ToolRule(kind="write", cost="0.02")}, **more)


SOME = (
    event(0, "started", input=[{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]),
    event(1, "model_called", model="m", cost_usd="0.10", usage={"input_tokens": 10, "output_tokens": 2}, output="Yes"),
    event(2, "tool_called", tool="look_up", kind="read", arguments={"id": 7}, result={"state": "paid"}),
    event(3, "model_called", model="nobody-knows-it"),
    event(4, "tool_called", tool="refund", error="denied", latency_ms=1500),
    event(5, "handed_off", to="agent:second", reason="too dear"),
    event(6, "finished", resolution="handed_off"),
)


def test_what_was_said_stands_on_one_side_and_what_was_done_on_the_other() -> None:
    found = told(*SOME)
    assert [(step.side, step.what, step.tone) for step in found] == [
        ("talk", "asked", ""), ("work", "model_counted", ""), ("work", "read", ""), ("work", "model", ""),
        ("work", "write_failed", "failed"), ("talk", "handed_to_agent", "end"), ("talk", "ended_handed_off", "end"),
    ]  # fmt: skip
    assert found[0].texts == [("customer", "Hello"), ("agent", "Hi")]
    assert found[2].texts == [("given", "id: 7"), ("came", "state: paid")]
    assert (found[4].texts, found[4].took) == ([("failed", "denied")], 1.5)
    assert [(one.tool, one.count, one.failed) for one in uses(found)["write"]] == [("refund", 1, 1)]


def test_what_an_agent_logs_twice_is_told_once() -> None:
    found = told(
        event(0, "started", input="Where is it?"), event(1, "said", by="customer", text="Where is it? "),
        event(2, "said", by="customer", text="Where is it?"), event(3, "said", by="agent", text="Here."),
        event(4, "finished", resolution="resolved", output="Here.\n"),
    )  # fmt: skip
    assert [(step.number, step.what, step.texts) for step in found] == [
        (0, "asked", [("", "Where is it?")]), (2, "said_customer", [("", "Where is it?")]),
        (3, "said_agent", [("", "Here.")]), (4, "ended_resolved", []),
    ]  # fmt: skip


CHAT = [{"role": "user", "content": "Cancel?"}, {"role": "assistant", "content": "Yes"}]


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (event(0, "started", input=CHAT), event(1, "said", by="customer", text="Yes")),
        (event(0, "started", input="Where?"), event(61, "said", by="customer", text="Where?")),
        (event(0, "started", input="a\nb"), event(1, "said", by="customer", text="a b")),
        (event(0, "said", by="agent", text="Here."), event(1, "finished", resolution="resolved", output="There.")),
        (event(0, "said", by="agent", text="Down."), event(1, "finished", resolution="failed", error="Down.")),
        (event(0, "said", by="customer", text="Yes"), event(1, "finished", resolution="resolved", output="Yes")),
    ],
)
def test_what_is_not_said_twice_is_told(first: dict[str, Any], then: dict[str, Any]) -> None:
    found = told(first, then)
    assert [step.id for step in found] == [first["id"], then["id"]]
    assert found[1].texts


def test_what_is_said_again_after_something_was_done_is_told_again() -> None:
    began, asked = event(0, "started", input="Where?"), event(2, "said", by="customer", text="Where?")
    assert len(told(began, event(1, "tool_called", tool="look_up"), asked)) == 3


def test_a_message_in_parts_is_told_as_its_text() -> None:
    parts = [{"type": "text", "text": "Hello, you."}, {"type": "text", "text": "Where is it?"}]
    calls = {"role": "assistant", "content": None, "tool_calls": [{"id": "c-1"}]}
    (found,) = told(event(0, "started", input=[{"role": "user", "content": parts}, calls]))
    assert found.texts == [("customer", "Hello, you.\nWhere is it?")]


def test_of_long_data_there_is_the_beginning_until_all_of_it_is_asked_for() -> None:
    long = event(0, "tool_called", tool="look_up", result=[{"number": number} for number in range(9_000)])
    (cut,), (whole,) = told(long), told(long, whole="e-0")
    assert len(cut.texts[0][1]) < SHOWN + 100
    assert whole.texts[0][1].endswith("– number: 8999")
    assert whole.texts[0][1].startswith(cut.texts[0][1])


def test_the_cost_along_the_way_says_what_nobody_knows() -> None:
    rows = along(told(*SOME))
    assert [(row.step.number, row.total, row.unknown) for row in rows] == [
        (1, Decimal("0.10"), 0), (3, Decimal("0.10"), 1), (4, Decimal("0.12"), 1),
    ]  # fmt: skip
    assert chart(told(*SOME)) == {"seconds": [0.0, 1.0, 3.0, 4.0, 6.0], "dollars": [0.0, 0.1, 0.1, 0.12, 0.12]}
    assert chart(told(*SOME[:2])) == {}


def test_an_alert_stands_with_the_event_that_raised_it_or_came_before_it() -> None:
    of_event = {"event_id": "e-4", "raised_at": text_of(NOON + timedelta(hours=1))}
    by_time = {"event_id": None, "raised_at": text_of(NOON + timedelta(seconds=2.5))}
    found = told(*SOME, alerts=[of_event, by_time])
    assert [(step.number, step.alerts) for step in found if step.alerts] == [(2, [by_time]), (4, [of_event])]
    # On a part of a long run stands only what belongs to it.
    later = told(*SOME[5:], alerts=[by_time], first=5, before=SOME[4]["time"])
    assert [step.alerts for step in later] == [[], []]
    earlier = told(*SOME[:2], alerts=[by_time], is_last=False)
    assert [step.alerts for step in earlier] == [[], []]


def test_what_was_erased_is_told_as_erased_and_what_nobody_knows_as_unknown() -> None:
    gone = {**event(0, "said"), "erased": "er-1", "data": {"erased": "er-1"}}
    assert [step.what for step in told(gone, event(1, "danced"))] == ["erased_said", "unknown"]


def test_steps_of_two_runs_stand_beside_each_other_and_what_differs_is_marked() -> None:
    left = told(
        event(0, "started", input="Order A-1, please"), event(1, "tool_called", tool="look_up", kind="read"),
        event(2, "finished", resolution="resolved"),
    )  # fmt: skip
    right = told(
        event(0, "started", input="Order B-2, please"), event(1, "tool_called", tool="refund"),
        event(2, "finished", resolution="failed"),
    )  # fmt: skip
    pairs = align(left, right)
    assert [(pair.state, bool(pair.left), bool(pair.right)) for pair in pairs] == [
        ("differs", True, True), ("left", True, False), ("right", False, True), ("differs", True, True),
    ]  # fmt: skip
    assert [piece for piece, differs in pairs[0].texts[0].left if differs] == ["A", "1"]
    assert [pair.state for pair in align(left, left)] == ["same"] * 3


def test_texts_that_take_long_to_tell_apart_are_marked_as_one_piece_once_it_is_late() -> None:
    left, right = told(event(0, "started", input="abc xyz")), told(event(0, "started", input="abd xyz"))
    (pair,) = align(left, right, lambda: True)
    assert pair.texts[0].left == [("ab", False), ("c", True), (" xyz", False)]
    assert pair.texts[0].right == [("ab", False), ("d", True), (" xyz", False)]
