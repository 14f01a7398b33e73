"""What a run's events say, read without a database."""

from typing import Any

import msgspec

from midwatch_services.logger.search import marks
from midwatch_services.logger.search.reading import Facts, lines, read
from midwatch_services.logger.search.words import words

AT = "2026-11-22T12:00:00.000000Z"
FACTS = Facts("desk", "r-1", AT, "v1", "live", "resolved", "T-1", "c-1", "0.5", 4_000_000)


def event(kind: str, **data: Any) -> tuple[str, str]:
    return kind, msgspec.json.encode({"data": data}).decode()


def test_who_said_what_is_kept_apart_and_said_twice_is_kept_once() -> None:
    read_ = read(
        FACTS,
        [
            event("started", input="Refund me"),
            event("said", by="customer", text="Refund me"),
            event("model_called", model="m", output="I look"),
            event("tool_called", tool="get_order", arguments={"order_id": "A-7"}, result={"state": "paid"}),
            event("tool_called", tool="get_order", arguments={"order_id": "A-8"}, error="denied"),
            event("said", by="agent", text="Done"),
            event("handed_off", to="human", reason="too dear"),
            event("finished", resolution="resolved", output="Done"),
        ],
    )
    assert read_.parts == {
        "outcome": ["human", "too", "dear"],
        "customer": ["refund", "me"],
        "agent": ["i", "look", "done"],
        "tools": ["get", "order", "a", "7", "paid", "get", "order", "a", "8", "denied"],
    }
    assert (read_.tools, read_.events) == ({"get_order": 2}, 8)


def test_instructions_to_the_model_are_nobodys_words() -> None:
    told = [{"role": "system", "content": "Never refund"}, {"role": "user", "content": "Hi"}]
    assert read(FACTS, [event("started", input=told)]).parts["customer"] == ["hi"]


def test_what_is_nested_without_end_is_read_as_far_as_it_goes() -> None:
    deep: Any = "the end"
    for _ in range(500):
        deep = [deep, "a level"]
    said = read(FACTS, [event("tool_called", tool="t", arguments=deep)]).parts["tools"]
    assert (said[:3], "end" in said) == (["t", "a", "level"], False)


def test_an_erased_event_says_nothing() -> None:
    read_ = read(FACTS, [("said", '{"erased":"e-1","content":"00"}'), event("said", by="customer", text="kept")])
    assert (read_.parts["customer"], read_.events) == (["kept"], 2)


def test_a_long_run_is_cut_and_each_part_keeps_its_room() -> None:
    many = [event("said", by="customer", text=f"word{at} " * 500) for at in range(100)]
    read_ = read(FACTS, [*many, event("said", by="agent", text="at last"), event("handed_off", to="human", reason="x")])
    assert len(" ".join(read_.parts["customer"])) < 7_100
    assert (read_.parts["agent"], read_.parts["outcome"]) == (["at", "last"], ["human", "x"])


def test_the_facts_are_marks_that_no_word_can_be() -> None:
    facts = Facts("desk", "r-1", AT, "v1", "live", None, "T", None, None, None, ("budget_run", "budget_run"), "fail")
    marked = read(facts, [event("tool_called", tool="refund")]).marks
    wanted = [("a", "desk"), ("v", "v1"), ("m", "live"), ("r", "open"), ("k", "T"), ("l", "budget_run"), ("l", "any"),
              ("j", "fail"), ("j", "any"), ("t", "refund")]  # fmt: skip
    assert marked == [marks.mark(kind, value) for kind, value in wanted]
    assert all(mark not in words(mark) for mark in marked)


def test_an_unknown_cost_is_in_no_bracket() -> None:
    assert "§p57" in read(FACTS, []).marks  # half a dollar is 5 × 10⁸ billionths: from 1.41 × 2²⁸ to 2²⁹
    unknown = Facts("desk", "r-1", AT, "v1", "live", "resolved", None, None, None, 1)
    assert not [mark for mark in read(unknown, []).marks if mark.startswith("§p")]


def test_no_phrase_reaches_from_one_part_into_the_next() -> None:
    read_ = read(FACTS, [event("said", by="customer", text="good"), event("said", by="agent", text="bye")])
    assert "good § bye" in lines(read_, marks.number(AT, "desk", "r-1"))
