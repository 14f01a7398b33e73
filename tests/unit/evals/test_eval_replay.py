"""The replay of many cases: repeats, what counts as passed, what is kept."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from eval_replay_helpers import case, evaluate, gates, results
from midwatch_services.evals.case import Case, Expect
from midwatch_services.evals.outcome import Called, CaseResult, Outcome, broke
from midwatch_services.evals.replay import Judging, first_failing, lean
from midwatch_services.evals.replay import replay as replay_all
from midwatch_services.evals.totals import Totals


class Says:
    """Gives one outcome after another, whatever it is asked."""

    history = False

    def __init__(self, *outcomes: Outcome) -> None:
        self._outcomes = outcomes
        self.under_way = self.most = 0

    async def replay(self, case: Case, attempt: int) -> Outcome:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        return self._outcomes[attempt % len(self._outcomes)]


def totals_of(*found: CaseResult) -> Totals:
    made = Totals()
    for one in found:
        made.add(one)
    return made


GOOD, BAD = Outcome(said=["Refunded."]), Outcome(said=["No."])
WANTED = Expect(says=("refunded",))


@pytest.mark.parametrize(
    ("outcomes", "passed"),
    [((GOOD,), True), ((GOOD, BAD), False), ((GOOD, BAD, GOOD), True), ((BAD, BAD, GOOD), False)],
)
async def test_a_case_passes_if_more_than_half_of_its_attempts_do(outcomes: tuple[Outcome, ...], passed: bool) -> None:
    found = await results([case(expect=WANTED)], Says(*outcomes), repeats=len(outcomes))
    assert found["twice"].passed is passed
    assert [one.outcome for one in found["twice"].attempts] == list(outcomes), "in their order"


async def test_no_more_than_so_many_are_under_way() -> None:
    target = Says(GOOD)
    assert len(await results([case(f"c{n}") for n in range(50)], target, concurrency=3)) == 50
    assert target.most == 3


async def test_cases_are_taken_as_they_are_needed() -> None:
    taken = 0

    def many() -> Iterator[Case]:
        nonlocal taken
        for number in range(1_000):
            taken += 1
            yield case(f"c{number}")

    going = replay_all(many(), Says(GOOD), Judging(evaluate, gates), concurrency=2)
    await anext(going)
    assert taken < 20, "not all of them at once"
    await going.aclose()


async def test_an_attempt_that_broke_fails_with_its_own_words_and_no_other() -> None:
    outcome = Outcome(error="the agent's process ended with exit code 3")
    found = (await results([case(expect=WANTED)], Says(outcome)))["twice"]
    assert [(one.ok, one.said) for one in found.attempts[0].findings] == [
        (False, "the agent's process ended with exit code 3")]  # fmt: skip
    assert totals_of(found).broken == ["twice: the agent's process ended with exit code 3"]


async def test_a_call_without_an_answer_fails_its_case_and_breaks_nothing() -> None:
    words = "the recording holds no answer to lookup_order(order_id='A-9')"
    outcome = Outcome(error=words, calls=[Called(tool="lookup_order", error=words, answered="missing")])
    found = (await results([case()], Says(outcome)))["twice"]
    assert (found.passed, first_failing(found), broke(found.attempts[0])) == (False, words, False)


async def test_a_judge_is_asked_where_the_case_names_one() -> None:
    asked = []

    async def judge(case: Case, outcome: Outcome) -> tuple[bool | None, str]:
        asked.append(case.name)
        return {"likes": True, "dislikes": False}.get(case.name), f"{case.name}, says the judge"

    wanted = Expect(judge="judges:polite")
    cases = [case(name, expect=wanted) for name in ("likes", "dislikes", "is silent")] + [case("asks no judge")]
    found = await results(cases, Says(GOOD), judging=Judging(evaluate, gates, judge))
    assert sorted(asked) == ["dislikes", "is silent", "likes"]
    assert {name: (one.passed, first_failing(one)) for name, one in found.items()} == {
        "likes": (True, ""),
        "dislikes": (False, "dislikes, says the judge"),
        "is silent": (False, "is silent, says the judge"),
        "asks no judge": (True, ""),
    }


async def test_a_run_that_was_stopped_when_it_happened_is_judged_by_the_criteria() -> None:
    target = Says(Outcome(said=["Refunded."], error="stopped by the harness: max_steps"))
    target.history = True
    found = (await results([case(expect=WANTED)], target))["twice"]
    assert [one.criterion for one in found.attempts[0].findings] == ["says"]
    assert totals_of(found).broken == []


def test_what_is_long_is_cut_and_says_so() -> None:
    call = Called(tool="search", arguments={"q": "y" * 3_000}, result=["x" * 9_000], answered="recorded")
    kept = lean(Outcome(said=["z" * 9_000, "short"], calls=[call, Called(tool="search", result={"a": 1})]))
    assert kept.calls[0].result == '["' + "x" * 1_998 + "… (9,004 characters)"
    assert kept.calls[0].arguments.endswith("… (3,008 characters)")
    assert kept.calls[1].result == {"a": 1}
    assert kept.said == ["z" * 8_000 + "… (9,000 characters)", "short"]


async def test_costs_are_summed_and_an_unknown_one_is_said() -> None:
    known = Outcome(cost_usd="0.25", cost_basis="reported")
    found = totals_of(*(await results([case("a"), case("b")], Says(known))).values())
    assert (found.cost_usd, found.unknown, found.billed) == ("0.5", 0, 2)
    mixed = Says(known, Outcome(cost_basis="unpriced"), Outcome())
    found = totals_of(*(await results([case("a")], mixed, repeats=3)).values())
    assert (found.cost_usd, str(found.known), found.unknown, found.billed) == (None, "0.25", 1, 2)


async def test_twins_are_apart() -> None:
    cases = [case("a", expect=WANTED), case("a-shouting", expect=WANTED, twin_of="a", perturbation="shouting")]
    found = totals_of(*(await results(cases, Says(BAD))).values())
    assert (found.cases.count, found.twins.count) == (1, 1)
    assert [(one.case, one.passed, one.attempts) for one in found.twins.failed] == [("a-shouting", 0, 1)]


async def test_the_result_is_of_the_case_as_it_stands() -> None:
    one = case("a")
    found = (await results([one], Says(GOOD)))["a"]
    assert found.hash == one.hash != replace(one, turns=("Another question",)).hash
    assert (found.gates, found.why_not) == (False, "two people have to agree")
