"""Whether an agent did what a case asks: each criterion alone, its sentence written by hand."""

from typing import Any

import pytest

from eval_helpers import a_case, called, outcome
from midwatch_services.evals.case import CallRule, Case
from midwatch_services.evals.judge import evaluate, passed
from midwatch_services.evals.outcome import Called, Outcome


def said(case: Case, came: Outcome, judged: bool | None = None) -> list[tuple[bool, str]]:
    return [(one.ok, one.said) for one in evaluate(case, came, judged)]


def refund(**arguments: Any) -> CallRule:
    return CallRule("issue_refund", arguments)


@pytest.mark.parametrize(
    ("asked", "came", "ok", "sentence"),
    [
        ({"says": ("your  REFUND",)}, outcome(), True, "Wanted it to say “your REFUND”; it did."),
        ({"says": ("sorry",)}, outcome(), False,
         "Wanted it to say “sorry”; it ended with “Your refund is on its way.”."),
        ({"says": ("sorry",)}, Outcome(), False, "Wanted it to say “sorry”; it said nothing."),
        ({"says": ("on its way",)}, outcome(said="on\n  ITS way"), True, "Wanted it to say “on its way”; it did."),
        ({"says_not": ("guarantee",)}, outcome(), True, "Wanted it not to say “guarantee”; it did not."),
        ({"says_not": ("guarantee",)}, outcome(said="We Guarantee it."), False,
         "Wanted it not to say “guarantee”; it said “We Guarantee it.”."),
        ({"calls": (CallRule("look_up", {"id": 1}),)}, outcome(called("look_up", "read", id=1.0)), True,
         "Wanted look_up with id 1; it was called so."),
        ({"calls": (CallRule("look_up", {"id": 1}),)}, outcome(), False,
         "Wanted look_up with id 1; it was not called."),
        ({"calls": (CallRule("look_up", {"id": 1, "full": True}),)}, outcome(called("look_up", id=2, full=True)), False,
         "Wanted look_up with id 1; it was called with id 2."),
        ({"calls": (CallRule("look_up", {"id": 1}),)}, outcome(called("look_up", full=True)), False,
         "Wanted look_up with id 1; it was called without id."),
        ({"calls_not": (CallRule("issue_refund", when="amount > 50"),)}, outcome(called("issue_refund", amount=20)),
         True, "Wanted no issue_refund where amount > 50; there was none."),
        ({"calls_not": (CallRule("issue_refund", when="amount > 50"),)}, outcome(called("issue_refund", amount=60.5)),
         False, "Wanted no issue_refund where amount > 50; it was called with amount 60.5."),
        ({"hands_off": True}, outcome(), False, "Wanted a hand-off; it kept the case."),
        ({"hands_off": False}, outcome(handed_off=True), False, "Wanted no hand-off; it handed the case off."),
        ({"hands_off": False}, outcome(), True, "Wanted no hand-off; it kept the case."),
        ({"max_cost": "0.1"}, outcome(model_calls=1, cost_usd="0.1", cost_basis="priced"), True,
         "Wanted at most $0.10; it cost $0.10."),
        ({"max_cost": "0.1"}, outcome(model_calls=1, cost_usd="0.11", cost_basis="priced"), False,
         "Wanted at most $0.10; it cost $0.11."),
        ({"max_cost": "0.1"}, outcome(model_calls=1, cost_basis="unpriced"), False,
         "Wanted at most $0.10; what it cost is not known."),
        ({"max_cost": "0.1"}, outcome(model_calls=2, cost_usd="0.02", cost_basis="unpriced"), False,
         "Wanted at most $0.10; it cost at least $0.0200, and a call of it has no known price."),
        ({"max_cost": "0.1"}, outcome(), True, "Wanted at most $0.10; it called no model."),
        ({"max_steps": 2}, outcome(called("a"), model_calls=2), False, "Wanted at most 2 steps; it took 3."),
        ({"max_steps": 3}, outcome(called("a"), model_calls=2), True, "Wanted at most 3 steps; it took 3."),
    ],
)  # fmt: skip
def test_a_criterion_says_what_was_wanted_and_what_came(
    asked: dict[str, Any], came: Outcome, ok: bool, sentence: str
) -> None:
    assert said(a_case(**asked), came) == [(ok, sentence)]


@pytest.mark.parametrize(
    ("wanted", "made", "ok", "sentence"),
    [
        ([], [], True, "Wanted no write; there was none."),
        ([], [called("look_up", "read")], True, "Wanted no write; there was none."),
        ([], [called("issue_refund", amount=20)], False,
         "Nobody wanted issue_refund, which was called with amount 20."),
        ([refund(amount=20)], [called("issue_refund", amount=20, id="A")], True,
         "Wanted these writes and no others; it did issue_refund."),
        ([refund(amount=20)], [called("issue_refund", amount=25)], False,
         "Wanted issue_refund with amount 20; it was called with amount 25."),
        ([refund(amount=20)], [], False, "Wanted issue_refund with amount 20; it did not happen."),
        ([refund(amount=20)], [called("issue_refund", error="no such order", amount=20)], False,
         "Wanted issue_refund with amount 20; it did not happen (a call failed: no such order)."),
        ([refund(amount=20)], [called("issue_refund", amount=20), called("issue_refund", amount=20)], False,
         "Nobody wanted issue_refund, which was called with amount 20."),
        ([refund(amount=20), refund(amount=20)], [called("issue_refund", amount=20)], False,
         "Wanted issue_refund with amount 20; it did not happen."),
        ([refund(amount=20), CallRule("void")], [called("void"), called("issue_refund", amount=20)], True,
         "Wanted these writes and no others; it did void, issue_refund."),
    ],
)  # fmt: skip
def test_writes_are_these_and_no_others(wanted: list[CallRule], made: list[Called], ok: bool, sentence: str) -> None:
    assert said(a_case(writes=tuple(wanted)), outcome(*made)) == [(ok, sentence)]


def test_rules_that_overlap_are_assigned_so_that_all_are_met() -> None:
    # The first call fits every rule; taken greedily, the third rule would find none left.
    rules = (refund(), CallRule("issue_refund", when="amount > 10"), refund(amount=20))
    calls = [called("issue_refund", amount=20), called("issue_refund", amount=15), called("issue_refund", amount=5)]
    assert [one.ok for one in evaluate(a_case(writes=rules), outcome(*calls))] == [True]
    assert [
        one.ok for one in evaluate(a_case(writes=rules), outcome(*calls[1:], called("issue_refund", amount=9)))
    ] == [False]


def test_what_the_case_says_of_a_tool_counts_before_what_the_call_says() -> None:
    case = a_case(writes=(), kinds={"issue_refund": "write", "note": "other"})
    assert not passed(evaluate(case, outcome(called("issue_refund", "other"))))
    assert passed(evaluate(case, outcome(called("note", "write"))))


@pytest.mark.parametrize(
    ("rule", "arguments", "ok"),
    [
        ({"order": {"id": 1, "lines": [1, 2]}}, {"order": {"lines": [1.0, 2], "id": 1}}, True),
        ({"order": {"lines": [1, 2]}}, {"order": {"lines": [2, 1]}}, False),
        ({"$.order.id": 1}, {"order": {"id": 1, "more": True}}, True),
        ({"$.order.id": 1}, {"order": {"id": "1"}}, False),
        ({"$.order.id": 1}, {"order": None}, False),
        ({"$.lines[*].sku": "B"}, {"lines": [{"sku": "A"}, {"sku": "B"}]}, True),
        ({"$['$odd']": 1}, {"$odd": 1}, True),
        ({"full": True}, {"full": 1}, False),
        ({"full": 1}, {"full": True}, False),
        ({"id": None}, {}, False),
        ({"id": None}, {"id": None}, True),
        ({"id": "A-1"}, {"id": "a-1"}, False),
    ],
)
def test_arguments_are_equal_as_json(rule: dict[str, Any], arguments: dict[str, Any], ok: bool) -> None:
    case = a_case(calls=(CallRule("t", rule),))
    assert passed(evaluate(case, outcome(called("t", "read", **arguments)))) is ok


def test_a_condition_that_cannot_be_answered_is_not_met_and_says_so() -> None:
    rule = CallRule("issue_refund", when="amount > 50")
    call = called("issue_refund", total=60)
    why = "its condition `amount > 50` could not be answered: `amount` is none of the call's arguments"
    assert said(a_case(calls=(rule,)), outcome(call)) == [
        (False, f"Wanted issue_refund where amount > 50; it was called with total 60 ({why}).")
    ]
    (finding,) = evaluate(a_case(calls_not=(rule,)), outcome(call))
    came = f"whether it was cannot be told: it was called with total 60, and {why}"
    assert (finding.ok, finding.said) == (False, f"Wanted no issue_refund where amount > 50; {came}.")
    assert said(a_case(writes=(rule,)), outcome(call)) == [
        (False, f"Wanted issue_refund where amount > 50; it was called with total 60 ({why}).")
    ]
    absent = CallRule("issue_refund", when="has(arguments.amount) && arguments.amount > 50")
    assert passed(evaluate(a_case(calls_not=(absent,)), outcome(call)))
    inside = CallRule("issue_refund", when="arguments.amount > 50")
    assert "`amount` is none of the call's arguments" in said(a_case(calls=(inside,)), outcome(call))[0][1]
    no_answer = CallRule("issue_refund", when="total")
    assert said(a_case(calls=(no_answer,)), outcome(call))[0][1].endswith(
        "could not be answered: it gives 60, not true or false)."
    )


def test_an_agent_that_did_not_get_to_the_end_fails_with_that_first() -> None:
    case = a_case(says_not=("guarantee",))
    assert said(case, Outcome(error="no answer within 60 s")) == [
        (False, "It did not get to the end: no answer within 60 s."),
        (True, "Wanted it not to say “guarantee”; it did not."),
    ]


@pytest.mark.parametrize(("judged", "ok", "came"), [(True, True, "it said yes"), (False, False, "it said no"),
                                                    (None, False, "it gave no answer")])  # fmt: skip
def test_a_judge_that_gives_no_answer_does_not_pass(judged: bool | None, ok: bool, came: str) -> None:
    assert said(a_case(judge="my:polite"), outcome(), judged) == [
        (ok, f"Wanted the judge my:polite to say yes; {came}.")
    ]


def test_what_agents_write_stays_on_one_line_and_is_cut() -> None:
    (finding,) = evaluate(a_case(says=("sorry",)), outcome(said="a\x1b[31m\n" + "long " * 100))
    assert "\n" not in finding.said and "\x1b" not in finding.said and len(finding.said) < 200
    (finding,) = evaluate(a_case(says_not=("word",)), outcome(said="long " * 100 + "the word is here"))
    assert "the word is here" in finding.said
