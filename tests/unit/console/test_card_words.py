"""What differs between two versions of a card."""

from midwatch.contracts.control import BudgetRule, ToolRule
from midwatch.testing import card
from midwatch_services.console.card_words import changes, lines


def test_a_change_says_where_it_is_what_it_was_and_what_it_is_now() -> None:
    before = card("desk", can=["Look up", "Refund"], tools={"a.b_c": ToolRule(kind="read")}, purpose="Old")
    after = card(
        "desk", can=["Refund", "Cancel"], tools={"a.b_c": ToolRule(kind="write")}, purpose="Old",
        budget=BudgetRule(run="0.50", day="40"),
    )  # fmt: skip
    found = [(one.kind, one.where, one.was, one.now) for one in changes(before, after)]
    assert found == [
        ("removed", "What it may do", "Look up", ""), ("added", "What it may do", "", "Cancel"),
        ("changed", "tools, a.b_c", "read", "write"), ("changed", "budget, run", "$1", "$0.50"),
        ("added", "budget, day", "", "$40"),
    ]  # fmt: skip
    assert changes(before, before) == []


def test_the_rest_of_a_card_is_told_without_its_lists() -> None:
    told = dict(lines(card("desk", tools={"look_up": ToolRule(kind="read")})))
    assert told["tools, look_up"] == "read"
    assert told["budget, run"] == "$1"
    assert told["switch, lease"] == "5s"
    assert not {"can", "purpose", "owner", "agent"} & told.keys()
