"""What becomes of a run when people have judged it: one, two who agree, two who differ, a third."""

from itertools import permutations

import pytest

from midwatch.contracts.control import ReviewRule
from midwatch.contracts.reviews import Verdict
from midwatch_services.reviewer_sampler.decide import Run
from midwatch_services.reviewer_sampler.judging.decide import (
    BY_FAIL,
    BY_HASH,
    Agreed,
    Disputed,
    Opinion,
    Outcome,
    draw_second,
    fold,
    may_count,
    named,
    places,
    wants_second,
)

RULE = ReviewRule()
NAMES = ("ann", "ben", "cid", "dan")


def judged(*verdicts: Verdict, second: int = 0, rule: ReviewRule = RULE) -> list[Outcome]:
    """The outcomes of one verdict after the other, each by another person."""
    state, found, said = "waiting", [], []
    for by, verdict in zip(NAMES, verdicts, strict=False):
        one = Opinion(by, verdict)
        outcome = fold(state, said, one, rule, second)  # type: ignore[arg-type]
        said += [one] if outcome.counts else []
        state, second = outcome.state, outcome.second
        found.append(outcome)
    return found


def test_a_pass_by_one_stands_where_one_is_enough() -> None:
    [outcome] = judged("pass")
    assert outcome == Outcome("settled", 0, True, Agreed("pass", ("ann",)))


def test_a_fail_waits_for_a_second() -> None:
    assert judged("fail") == [Outcome("judged", BY_FAIL, True)]


def test_a_run_that_the_hash_draws_for_two_waits_for_a_second_whatever_the_first_says() -> None:
    for verdict in ("pass", "fail", "unsure"):
        assert judged(verdict, second=BY_HASH) == [Outcome("judged", BY_HASH, True)]  # type: ignore[arg-type]


# What each says in turn, then what stands and by whom: None is nothing.
TABLE: list[tuple[tuple[Verdict, ...], tuple[Verdict, tuple[str, ...]] | None]] = [
    (("pass", "pass"), ("pass", ("ann", "ben"))),
    (("fail", "fail"), ("fail", ("ann", "ben"))),
    (("unsure", "unsure"), ("unsure", ("ann", "ben"))),
    (("pass", "fail"), None),
    (("fail", "unsure"), None),
    (("pass", "fail", "fail"), ("fail", ("ben", "cid"))),
    (("pass", "fail", "pass"), ("pass", ("ann", "cid"))),
    (("unsure", "fail", "unsure"), ("unsure", ("ann", "cid"))),
    (("pass", "fail", "unsure"), ("unsure", ("ann", "ben", "cid"))),
]


@pytest.mark.parametrize(("verdicts", "stands"), TABLE)
def test_what_stands(verdicts: tuple[Verdict, ...], stands: tuple[Verdict, tuple[str, ...]] | None) -> None:
    last = judged(*verdicts, second=BY_HASH)[-1]
    if stands is None:
        assert (last.state, last.decision) == ("disputed", Disputed(("ann", "ben")))
    else:
        assert isinstance(last.decision, Agreed)
        assert (last.state, last.decision.verdict, last.decision.by) == ("settled", *stands)


def test_the_order_of_three_changes_nothing_of_what_stands() -> None:
    for verdicts in permutations(("pass", "fail", "unsure")):
        decision = judged(*verdicts, second=BY_HASH)[-1].decision  # type: ignore[arg-type]
        assert isinstance(decision, Agreed)
        assert (decision.verdict, decision.by) == ("unsure", ("ann", "ben", "cid"))


def test_a_judgement_of_a_settled_run_counts_for_nothing() -> None:
    assert judged("pass", "fail")[-1] == Outcome("settled", 0, False)
    assert fold("erased", [], Opinion("ann", "fail"), RULE, 0) == Outcome("erased", 0, False)


def test_what_stands_carries_reasons_in_the_cards_order_and_what_was_written() -> None:
    one = Opinion("ann", "fail", ("tone", "other"), "", "cold")
    other = Opinion("ben", "fail", ("wrong_fact", "tone"), "Five days.", "and wrong")
    decision = fold("judged", [one], other, RULE, BY_FAIL).decision
    assert decision == Agreed("fail", ("ann", "ben"), ("wrong_fact", "tone", "other"), "Five days.", "cold / and wrong")


def test_what_stands_is_the_same_in_whatever_order_it_is_read() -> None:
    said = [Opinion("ben", "fail", note="late", at=2.0), Opinion("ann", "fail", note="early", at=1.0)]
    for before, one in (said, said[::-1]):
        decision = fold("judged", [before], one, RULE, BY_FAIL).decision
        assert isinstance(decision, Agreed)
        assert (decision.by, decision.note) == (("ann", "ben"), "early / late")


def test_whoever_was_outvoted_adds_nothing_to_what_stands() -> None:
    said = [Opinion("ann", "pass"), Opinion("ben", "fail", ("tone",), "x", "y")]
    decision = fold("disputed", said, Opinion("cid", "pass", note="fine"), RULE, BY_HASH).decision
    assert decision == Agreed("pass", ("ann", "cid"), (), "", "fine")


def test_how_many_more_a_run_wants() -> None:
    table = [("waiting", 0, 1), ("waiting", 1, 2), ("judged", 1, 1), ("disputed", 2, 1), ("settled", 1, 0),
             ("erased", 0, 0)]  # fmt: skip
    assert [(state, second, places(state, second)) for state, second, _ in table] == table


def test_a_judgement_counts_where_its_judge_holds_the_run_or_nobody_takes_the_place() -> None:
    assert may_count("waiting", 0, held=0, holds=False)
    assert may_count("waiting", 0, held=1, holds=True)
    assert not may_count("waiting", 0, held=1, holds=False)
    assert may_count("waiting", 1, held=1, holds=False)
    assert not may_count("waiting", 1, held=2, holds=False)
    assert not may_count("settled", 1, held=0, holds=True)


def test_a_word_that_is_no_reason_becomes_other_and_stands_in_the_note() -> None:
    assert named(["tone", "tone", "rude"], "x", RULE) == (("tone", "other"), "rude: x")
    assert named(["rude", "slow"], "", RULE) == (("other",), "rude, slow")
    assert named(["other", "rude"], "", RULE) == (("other",), "rude")
    assert named([], "x", RULE) == ((), "x")


def test_the_second_draw_is_an_hmac_of_its_own() -> None:
    # printf 'second\0desk\0run-1' | openssl dgst -sha256 -mac HMAC -macopt hexkey:00…00 gives dc6efa13…
    assert draw_second(bytes(32), Run("desk", "run-1", "live")) == (0xDC6EFA13E1C9AC40 >> 11) / 2**53
    # printf 'replay\0second\0desk\0run-1' | openssl … gives 24bf0204…
    assert draw_second(bytes(32), Run("desk", "run-1", "replay")) == (0x24BF0204C979A4DA >> 11) / 2**53


def test_the_hash_draws_the_cards_share_for_two() -> None:
    rule = ReviewRule(second_review=0.2)
    drawn = sum(wants_second(draw_second(b"k" * 32, Run("desk", f"r-{n}", "live")), rule) for n in range(10_000))
    assert abs(drawn - 2000) < 3 * 40  # three standard errors
    assert not wants_second(0.2, rule)
