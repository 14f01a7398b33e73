"""What of a logged run becomes a case: its conversation up to a point, its calls, and what may be asked."""

from typing import Any

import pytest

from midwatch_services.evals.case import CallRule, Expect, Message, Recorded
from midwatch_services.evals.logged import Part, Review, case_of, conversation_of, name_of, notes_of, outcome_of
from midwatch_services.evals.published import rule_of


def event(kind: str, seq: int, /, **data: Any) -> dict[str, Any]:
    return {"event": kind, "seq": seq, "data": {"version": "7", **data}}


def said(seq: int, by: str, text: str) -> dict[str, Any]:
    return event("said", seq, by=by, text=text)


def tool(seq: int, name: str, kind: str = "other", error: str | None = None, **arguments: Any) -> dict[str, Any]:
    return event("tool_called", seq, tool=name, kind=kind, arguments=arguments, result="ok", error=error)


RUN = [
    event("started", 0, input="Refund me"),
    tool(1, "look_up", "read", id=1),
    said(2, "agent", "Which order?"),
    said(3, "customer", "A-1001"),
    tool(4, "issue_refund", id="A-1001", amount=20),
    tool(5, "issue_refund", error="twice", id="A-1001", amount=20),
    said(6, "agent", "Done."),
    said(7, "customer", "And the other one?"),
    event("handed_off", 8, to="human", reason="asks twice"),
    event("finished", 9, resolution="handed_off", output="A person will write."),
]
KINDS = {"issue_refund": "write", "close_account": "write"}


def made(events: list[dict[str, Any]], part: Part = Part(), review: Review = Review()) -> Any:  # noqa: B008
    return case_of("desk", "r-1", "r-1", events, KINDS, part, review)  # type: ignore[arg-type]


def test_a_run_becomes_a_case_that_asks_what_it_did() -> None:
    case = made(RUN)
    assert case.turns == ("Refund me", "A-1001", "And the other one?")
    assert (case.run_id, case.version, case.earlier) == ("r-1", "7", ())
    assert case.recorded == (
        Recorded("look_up", {"id": 1}, "ok", kind="read"),
        Recorded("issue_refund", {"id": "A-1001", "amount": 20}, "ok", kind="write"),
        Recorded("issue_refund", {"id": "A-1001", "amount": 20}, "ok", "twice", kind="write"),
    )
    assert case.kinds == {"close_account": "write", "issue_refund": "write", "look_up": "read"}
    # The call that failed changed nothing, so one refund is asked for.
    assert case.expect == Expect(writes=(CallRule("issue_refund", {"id": "A-1001", "amount": 20}),), hands_off=True)


@pytest.mark.parametrize(
    ("part", "turns", "calls", "expect"),
    [
        (Part(turn=1), ("Refund me",), 1, Expect(writes=(), hands_off=False)),
        (Part(turn=2), ("Refund me", "A-1001"), 3,
         Expect(writes=(CallRule("issue_refund", {"id": "A-1001", "amount": 20}),), hands_off=False)),
        (Part(turn=9), ("Refund me", "A-1001", "And the other one?"), 3,
         Expect(writes=(CallRule("issue_refund", {"id": "A-1001", "amount": 20}),), hands_off=True)),
        (Part(until=3), ("Refund me", "A-1001"), 1, Expect(writes=(), hands_off=False)),
        (Part(until=0), ("Refund me",), 0, Expect(writes=(), hands_off=False)),
    ],
)  # fmt: skip
def test_it_ends_where_it_is_told(part: Part, turns: tuple[str, ...], calls: int, expect: Expect) -> None:
    case = made(RUN, part)
    assert (case.turns, len(case.recorded), case.expect) == (turns, calls, expect)


def test_of_a_failed_run_nothing_is_asked_and_the_reviewers_words_are_comments() -> None:
    review = Review(True, "Two refunds:\nA-1001\nand A-1002", "ana", ("wrong_write",), ("only one of two",))
    case = made(RUN, review=review)
    assert case.expect == Expect() and len(case.recorded) == 3
    assert notes_of(review, case, cut=True) == [
        "A reviewer failed this run, so nothing that it did is asked for: write here what should happen.",
        "Reasons: wrong_write",
        "Note: only one of two",
        "The answer as it should have been by ana:",
        "  Two refunds:",
        "  A-1001",
        "  and A-1002",
        "A result was longer than the log keeps, and stands cut below.",
    ]


@pytest.mark.parametrize(
    ("events", "earlier", "turns"),
    [
        # The input that is said again stands once, after the greeting.
        ([event("started", 0, input="Hello"), said(1, "agent", "Hi!"), said(2, "customer", "Hello"),
          said(3, "customer", "More")], (Message("agent", "Hi!"),), ("Hello", "More")),
        ([event("started", 0, input=[{"role": "system", "content": "be kind"}, {"role": "user", "content": "a"},
                                     {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"},
                                     {"role": "user", "content": [{"type": "text", "text": "d"}]}]),
          said(1, "agent", "e"), said(2, "customer", "f")],
         (Message("customer", "a"), Message("agent", "b")), ("c\n\nd", "f")),
        ([event("started", 0, input=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]),
          said(1, "customer", "c")], (Message("customer", "a"), Message("agent", "b")), ("c",)),
        # What the customer says to a person is not for the agent.
        ([event("started", 0, input="a"), said(1, "human", "I take over"), said(2, "customer", "thanks")], (), ("a",)),
        ([said(1, "agent", "Hi!"), said(2, "customer", "  "), said(3, "customer", "x")],
         (Message("agent", "Hi!"),), ("x",)),
        # Of a replayed run, without the words by which a simulated customer leaves.
        ([event("started", 0, input="a"), said(1, "customer", "###STOP###"),
          event("said", 2, by="customer", text="Bye ###STOP###", mode="replay"),
          event("said", 3, by="customer", text="###STOP###", mode="replay")], (), ("a", "###STOP###", "Bye")),
        ([event("started", 0, input="")], (), ()),
        ([event("finished", 0, resolution="failed")], (), ()),
    ],
)  # fmt: skip
def test_the_customers_words_are_the_turns(events: Any, earlier: Any, turns: Any) -> None:
    case = made(events)
    assert (case.earlier, case.turns) == (earlier, turns)


def test_what_a_judge_is_shown_of_a_run() -> None:
    assert [one["role"] for one in conversation_of(RUN)] == ["customer", "agent", "customer", "agent", "customer"]
    brief = [event("started", 0, input="a"), event("finished", 1, resolution="resolved", output="b")]
    assert conversation_of(brief) == [{"role": "customer", "text": "a"}, {"role": "agent", "text": "b"}]
    came = outcome_of(RUN, KINDS)  # type: ignore[arg-type]
    assert (came.said, came.handed_off, [one.kind for one in came.calls]) == (
        ["Which order?", "Done."], True, ["read", "write", "write"]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("run_id", "name"),
    [
        ("run-8c1f", "run-8c1f"), ("../../etc/passwd", "etc-passwd"), ("A B\n#c: {}", "a-b-c"), ("🙂", "run"),
        ("-x-", "x"), ("x" * 300, "x" * 100), ("CON.yaml", "con-yaml"),
    ],
)  # fmt: skip
def test_a_runs_id_makes_a_name_that_a_file_may_have(run_id: str, name: str) -> None:
    assert name_of(run_id) == name


def test_an_argument_that_looks_like_a_path_is_asked_for_by_its_name() -> None:
    assert rule_of("t", {"$it's": 1, "a": 2}) == CallRule("t", {"$['$it\\'s']": 1, "a": 2})
    assert rule_of("t", "text") == CallRule("t")
