"""What passes, what fails, and what decides nothing."""

from typing import Any

import pytest
from msgspec import structs

from gate_helpers import case, pair, results
from midwatch_services.evals.gate import Gate, Policy, compare
from midwatch_services.evals.outcome import Attempt, Called, CaseResult, Outcome


def judged(regressions: int, repairs: int, kept: int, failing: int = 0, **policy: Any) -> Gate:
    new, old = pair(regressions, repairs, kept, failing)
    return compare(new, old, policy=Policy(**policy))


def test_a_clearly_worse_agent_fails_with_its_regressions_named() -> None:
    gate = judged(14, 2, 15, 11)  # passes 17 of 42 where the baseline passed 29
    assert (gate.verdict, gate.reason, gate.cases, gate.passed, gate.baseline_passed) == ("failed", "worse", 42, 17, 29)
    assert gate.p_value == 137 / 65536  # (120 + 16 + 1) / 2^16
    assert [one.case for one in gate.regressions] == [f"c{n}" for n in range(14)]
    assert gate.regressions[0].finding == "lookup_order was not called"
    assert [one.case for one in gate.repaired] == ["c14", "c15"]
    assert gate.why == (
        "It got worse: of 42 cases 14 fail that passed in the baseline, 2 the other way round, which chance alone does "
        "0.21 times in 100."
    )


@pytest.mark.parametrize(("regressions", "verdict"), [(5, "failed"), (4, "inconclusive")])
def test_five_regressions_and_no_repair_are_the_fewest_that_fail(regressions: int, verdict: str) -> None:
    assert judged(regressions, 0, 55).verdict == verdict


def test_more_regressions_than_repairs_pass_only_where_the_set_would_have_seen_the_drop_that_matters() -> None:
    small = judged(3, 1, 56)
    assert (small.verdict, small.reason, small.sees) == ("inconclusive", "unseen", 0.158)
    assert small.why == (
        "It may have got worse: of 60 cases 3 fail that passed in the baseline, 1 the other way round, which chance "
        "alone does 31 times in 100; with 60 cases you could only have seen a drop of 15.8 points or more, and 10 "
        "points is the most that may go unseen."
    )
    large = judged(3, 1, 196)
    assert (large.verdict, large.reason, large.sees) == ("passed", "no_worse", 0.048)
    assert judged(3, 1, 56, max_drop=0.158).verdict == "passed"
    assert judged(3, 1, 56, max_drop=0.157).verdict == "inconclusive"


def test_where_the_baseline_passes_next_to_nothing_even_a_fall_to_nought_could_go_unseen() -> None:
    gate = judged(1, 0, 5, 54, max_drop=0.9)
    assert (gate.verdict, gate.reason, gate.sees) == ("inconclusive", "unseen", None)
    assert "with 60 cases, of which the baseline passes 6, even a fall to nought could go unseen" in gate.why


def test_no_more_regressions_than_repairs_pass_and_the_sentence_says_what_would_have_been_seen() -> None:
    gate = judged(1, 2, 57)
    assert (gate.verdict, gate.reason) == ("passed", "no_worse")
    assert gate.why == (
        "Nothing says that it got worse: of 60 cases 1 fails that passed in the baseline, 2 the other way round; with "
        "60 cases you could only have seen a drop of 14.9 points or more."
    )
    assert judged(0, 0, 60).why == (
        "Nothing says that it got worse: all 60 cases end as they did in the baseline; with 60 cases you could only "
        "have seen a drop of 11 points or more."
    )


def test_without_a_baseline_nothing_has_passed() -> None:
    gate = compare(results("ppf"), None)
    assert (gate.verdict, gate.reason, gate.p_value, gate.sees) == ("inconclusive", "no_baseline", None, None)
    assert (gate.cases, gate.passed) == (3, 2)
    assert gate.why == "There is no baseline to hold it against; 2 of 3 cases that gate pass."


def test_a_set_too_small_to_show_anything_has_not_passed() -> None:
    assert (judged(0, 0, 4).verdict, judged(0, 0, 4).reason) == ("inconclusive", "too_few")
    assert judged(0, 0, 5).verdict == "passed"
    few_to_fall_from = judged(0, 3, 4, 60)
    assert (few_to_fall_from.verdict, few_to_fall_from.reason) == ("inconclusive", "too_few")


def test_an_empty_set_has_not_passed() -> None:
    assert compare(results(""), results("", "old")).reason == "nothing_gates"


def kept(*others: CaseResult) -> list[CaseResult]:
    return [*(case(f"k{n}") for n in range(60)), *others]


def test_a_case_on_which_people_have_not_agreed_is_listed_and_decides_nothing() -> None:
    cases = [case(f"n{n}", "f", gates=False, why_not="one person agreed, two have to") for n in range(20)]
    gate = compare(results(kept(*cases)), results(kept(*(case(f"n{n}", gates=False) for n in range(20))), "old"))
    assert (gate.verdict, gate.cases) == ("passed", 60)
    assert (gate.apart[0].kind, gate.apart[0].said) == ("not_agreed", "one person agreed, two have to")
    assert len(gate.apart) == 20


def test_cases_that_are_new_gone_or_changed_are_listed_and_not_compared() -> None:
    now = results(kept(case("new", "f"), case("changed", "f", hash="other"), case("since", "f")))
    old = results(kept(case("gone"), case("changed"), case("since", gates=False)), "old")
    gate = compare(now, old)
    assert (gate.verdict, gate.cases, gate.lacking, gate.lacking_of) == ("passed", 60, 2, 62)
    assert [(one.case, one.kind, one.passed) for one in gate.apart] == [
        ("new", "new", False), ("changed", "changed", False), ("since", "new", False), ("gone", "gone", None)
    ]  # fmt: skip


@pytest.mark.parametrize("how", ["gone", "changed", "gates no more"])
def test_who_takes_failing_cases_out_of_the_set_does_not_pass(how: str) -> None:
    old = results(kept(*(case(f"x{n}") for n in range(8))), "old")
    made = {"changed": {"hash": "other"}, "gates no more": {"gates": False}}.get(how)
    now = results(kept(*(case(f"x{n}", "f", **made) for n in range(8) if made is not None)))
    gate = compare(now, old)
    assert (gate.verdict, gate.reason, gate.lacking, gate.lacking_of) == ("inconclusive", "lacking", 8, 68)
    assert compare(now, old, policy=Policy(lacking=8 / 68)).verdict == "passed"


@pytest.mark.parametrize("whole", ["neither", "the version", "the baseline"])
def test_what_was_compared_on_a_part_of_the_set_does_not_pass(whole: str) -> None:
    """60 cases gate; the version, the baseline, or both were replayed on 42 of them."""
    all_of_it, part = [case(f"c{n}") for n in range(60)], [case(f"c{n}") for n in range(42)]
    now = structs.replace(results(all_of_it if whole == "the version" else part), gating=60)
    gate = compare(now, results(all_of_it if whole == "the baseline" else part, "old"))
    assert (gate.verdict, gate.reason) == ("inconclusive", "part")
    assert gate.why == (
        "Only 42 of 60 cases that gate were compared: replay the version and the baseline on the whole set as it is "
        "now."
    )


def test_a_set_may_grow_by_a_tenth_before_the_baseline_is_replayed_on_it() -> None:
    old = results([case(f"c{n}") for n in range(54)], "old")
    grown = structs.replace(results([case(f"c{n}") for n in range(60)]), gating=60)
    assert (compare(grown, old).verdict, compare(grown, old).cases) == ("passed", 54)
    more = structs.replace(results([case(f"c{n}") for n in range(61)]), gating=61)
    assert compare(more, old).reason == "part"


def test_a_part_that_is_clearly_worse_fails() -> None:
    new, old = pair(14, 2, 26)
    assert compare(structs.replace(new, gating=60), old).verdict == "failed"


def test_a_case_that_did_not_come_to_its_end_is_not_known_to_pass() -> None:
    for now, old in (("e", "p"), ("p", "e")):
        gate = compare(results(kept(case("x", now))), results(kept(case("x", old)), "old"))
        assert (gate.verdict, gate.reason, gate.cases) == ("inconclusive", "not_run", 60)
        assert (gate.apart[0].kind, "no answer within 60 s" in gate.apart[0].said) == ("not_run", True)
    gate = compare(results(kept(CaseResult(case="x", hash="h-x", passed=False, gates=True))), results(kept(case("x"))))
    assert (gate.reason, gate.apart[0].said) == ("not_run", "it did not come to its end now: it was never replayed")


def test_a_replay_that_did_not_come_to_its_end_counts_only_where_it_would_have_decided() -> None:
    for attempts, known in (
        ("ppe", True),
        ("ffe", True),
        ("pfe", False),
        ("pe", False),
        ("eee", False),
        ("ffee", True),
    ):
        gate = compare(results(kept(case("x", attempts))), results(kept(case("x", "f")), "old"))
        assert (gate.reason != "not_run") is known, attempts


def test_a_call_that_was_to_fail_the_case_is_the_agents_failure_and_no_accident() -> None:
    why = "close_account was not called in the recorded run"
    calls = [Called(tool="close_account", error=why, answered="missing")]
    failed = [Attempt(passed=False, outcome=Outcome(calls=calls, error=why))]
    new = results(kept(*(CaseResult(case=f"x{n}", hash=f"h-x{n}", passed=False, gates=True, attempts=failed)
                         for n in range(5))))  # fmt: skip
    gate = compare(new, results(kept(*(case(f"x{n}") for n in range(5))), "old"))
    assert (gate.verdict, gate.cases, gate.regressions[0].finding) == ("failed", 65, why)


def test_what_is_clearly_worse_has_failed_whatever_else_is_not_known() -> None:
    new, old = pair(10, 0, 50)
    new.results.append(case("x", "e"))
    old.results.append(case("x"))
    assert compare(new, old).verdict == "failed"


def test_a_file_that_could_not_be_read_leaves_it_open() -> None:
    for broken in ({"now": ["a.yaml: not YAML"]}, {"old": ["a.yaml: not YAML"]}):
        gate = compare(
            results(kept(), broken=broken.get("now", [])), results(kept(), "old", broken=broken.get("old", []))
        )
        assert (gate.verdict, gate.reason, gate.broken) == ("inconclusive", "broken", ["a.yaml: not YAML"])


def test_stress_twins_are_told_apart_by_perturbation_and_decide_nothing() -> None:
    def twins(typos: str, shouting: str) -> list[CaseResult]:
        letters = [("typos", n, one) for n, one in enumerate(typos)] + [
            ("shouting", n, one) for n, one in enumerate(shouting)
        ]
        return [case(f"k{n}-{how}", one, twin_of=f"k{n}", perturbation=how) for how, n, one in letters]

    gate = compare(results(kept(*twins("f" * 20, "pfp"))), results(kept(*twins("p" * 20, "fpp")), "old"))
    assert (gate.verdict, gate.cases, gate.lacking) == ("passed", 60, 0)
    shouting, typos = gate.twins
    assert (shouting.perturbation, shouting.twins, shouting.passed) == ("shouting", 3, 2)
    assert (shouting.fell, shouting.repaired, shouting.weaker) == (1, 1, 1)
    assert (typos.twins, typos.passed, typos.fell, typos.repaired, typos.weaker) == (20, 0, 20, 0, 20)


def test_unstable_cases_are_marked_and_named() -> None:
    new = results({**{f"k{n}": "ppp" for n in range(60)}, "x": "ffp", "y": "ppf"}, repeats=3)
    old = results({**{f"k{n}": "ppp" for n in range(60)}, "x": "ppp", "y": "ppp"}, "old", repeats=3)
    gate = compare(new, old)
    assert gate.unstable == ["x", "y"]
    assert [(one.case, one.unstable) for one in gate.regressions] == [("x", True)]


def test_what_a_replay_cost_is_never_nought_where_it_is_not_known() -> None:
    unpriced = [Attempt(passed=True, outcome=Outcome(cost_basis="unpriced"))]
    new = results([CaseResult(
        case="x", hash="h-x", passed=True, gates=True, attempts=unpriced)], cost_usd="1.5")  # fmt: skip
    gate = compare(new, results("p", "old"))
    assert (gate.cost.usd, gate.cost.unpriced) == ("1.5", 1)
    assert gate.baseline_cost is not None
    assert gate.baseline_cost.usd is None
