"""What answers an agent's tools in a replay."""

from typing import Any

import pytest

from eval_replay_helpers import REFUNDED, case
from midwatch_services.evals.case import Recorded
from midwatch_services.evals.desk import MISSING, NO_RESULT, Desk, NoAnswer


def recorded(*results: Any, tool: str = "lookup_order", **arguments: Any) -> tuple[Recorded, ...]:
    return tuple(Recorded(tool, arguments, result) for result in results)


def test_a_recorded_call_gets_what_it_got() -> None:
    desk = Desk(case(recorded=recorded("one", order_id="A-1") + recorded("two", order_id="A-2")))
    assert desk.answer("lookup_order", {"order_id": "A-2"}) == ("two", None, "recorded")


def test_a_repeated_call_gets_the_recorded_answers_in_order_and_then_the_last() -> None:
    desk = Desk(case(recorded=recorded("open", "paid", order_id="A-1")))
    answers = [desk.answer("lookup_order", {"order_id": "A-1"}).result for _ in range(4)]
    assert answers == ["open", "paid", "paid", "paid"]


def test_a_recorded_error_is_the_answer() -> None:
    desk = Desk(case(recorded=(Recorded("lookup_order", {"order_id": "A-1"}, None, "no such order"),)))
    assert desk.answer("lookup_order", {"order_id": "A-1"}) == (None, "no such order", "recorded")


@pytest.mark.parametrize(
    "arguments",
    [{"amount": 20, "order_id": "A-1"}, {"order_id": "A-1", "amount": 20.0}, '{"amount": 20, "order_id": "A-1"}'],
)
def test_arguments_are_the_same_as_json_has_them(arguments: Any) -> None:
    desk = Desk(case(recorded=recorded("ok", tool="refund", order_id="A-1", amount=20.0)), "fail")
    assert desk.answer("refund", arguments).answered == "recorded"


@pytest.mark.parametrize(("recorded_one", "asked"), [(1, True), ("1", 1), (None, "")])
def test_what_json_tells_apart_is_not_the_same(recorded_one: Any, asked: Any) -> None:
    desk = Desk(case(recorded=recorded("ok", flag=recorded_one)))
    assert desk.answer("lookup_order", {"flag": asked}).answered == "nearest"


def test_another_call_gets_what_the_one_with_the_most_equal_arguments_got() -> None:
    desk = Desk(
        case(
            recorded=recorded("paris", frm="LON", to="PAR", day=1)
            + recorded("rome", frm="LON", to="ROM", day=2)
            + recorded("rome later", frm="LON", to="ROM", day=3)
        )
    )
    assert desk.answer("lookup_order", {"frm": "LON", "to": "ROM", "day": 9}) == ("rome", None, "nearest")


def test_a_write_that_was_not_recorded_is_marked() -> None:
    desk = Desk(case(recorded=(REFUNDED,)))
    answer = desk.answer("issue_refund", {"order_id": "A-1001", "amount": 500})
    assert (answer.result, answer.answered) == ("refunded", "nearest")


def test_a_tool_that_was_never_called_fails_for_the_agent() -> None:
    assert Desk(case()).answer("close_account", {}) == (None, MISSING, "missing")


def test_a_recorded_call_that_never_came_back_is_no_answer() -> None:
    lost = (Recorded("lookup_order", {"order_id": "A-1"}, None, NO_RESULT), *recorded("two", order_id="A-2"))
    asked = {"order_id": "A-1"}
    assert Desk(case(recorded=lost)).answer("lookup_order", asked) == (None, NO_RESULT, "missing")
    assert Desk(case(recorded=lost)).answer("lookup_order", {"order_id": "A-9"}) == ("two", None, "nearest")
    with pytest.raises(NoAnswer, match=r"^the recording holds no answer to lookup_order\(order_id='A-1'\)$"):
        Desk(case(recorded=lost), "fail").answer("lookup_order", asked)


@pytest.mark.parametrize("tool", ["lookup_order", "close_order"])
def test_a_case_can_fail_for_a_call_that_is_not_recorded(tool: str) -> None:
    with pytest.raises(NoAnswer, match=rf"^the recording holds no answer to {tool}\(order_id='A-9'\)$"):
        Desk(case(missing="fail")).answer(tool, {"order_id": "A-9"})


def test_the_command_overrules_the_case() -> None:
    assert Desk(case(missing="fail"), "nearest").answer("lookup_order", {"order_id": "A-9"}).answered == "nearest"


def test_a_long_call_is_cut_in_its_message() -> None:
    with pytest.raises(NoAnswer) as found:
        Desk(case(), "fail").answer("lookup_order", {"text": "x" * 5000})
    assert len(str(found.value)) < 300


def test_a_tools_kind_is_the_cases_word_then_the_recordings() -> None:
    desk = Desk(case(kinds={"lookup_order": "other"}))
    assert [desk.kind(tool) for tool in ("lookup_order", "issue_refund", "unknown")] == ["other", "write", "other"]
