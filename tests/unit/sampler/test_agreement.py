"""How well reviewers agree, and how often an agent fails: by textbooks, and by simulated reviewers of known error."""

import csv
import hashlib
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from midwatch.contracts.control import ReviewRule
from midwatch.contracts.reviews import Verdict
from midwatch_services.reviewer_sampler.decide import Run, draw
from midwatch_services.reviewer_sampler.judging import agreement
from midwatch_services.reviewer_sampler.judging.agreement import Read, kappa, rate
from midwatch_services.reviewer_sampler.judging.decide import BY_HASH, Agreed, Opinion, fold

pytestmark = pytest.mark.proof


def pairs(table: dict[tuple[str, str], int]) -> list[tuple[str, str]]:
    return [pair for pair, count in table.items() for _ in range(count)]


def test_kappa_of_a_textbook() -> None:
    # 2 by 2: 20, 5, 10, 15. Observed 0.7, by chance 0.5, so 0.4 (worked by hand).
    found = kappa("x", pairs({("pass", "pass"): 20, ("pass", "fail"): 5, ("fail", "pass"): 10, ("fail", "fail"): 15}))
    assert (found.pairs, found.same) == (50, 35)
    assert found.kappa == pytest.approx(0.4)
    # By hand: A = 0.4(1 - 1.1·0.6)² + 0.3(1 - 0.9·0.6)² = 0.10972, B = 0.36(0.1·1.1² + 0.2·0.9²) = 0.10188,
    # C = (0.4 - 0.5·0.6)² = 0.01; the square root of (A + B - C)/50, over 0.5.
    assert found.error == pytest.approx(((0.10972 + 0.10188 - 0.01) / 50) ** 0.5 / 0.5)
    assert found.error is not None
    assert found.low == pytest.approx(0.4 - 1.96 * found.error, abs=1e-4)
    assert found.high == pytest.approx(0.4 + 1.96 * found.error, abs=1e-4)


def test_all_alike_is_one_and_the_opposite_is_below_chance() -> None:
    assert kappa("x", pairs({("pass", "pass"): 8, ("fail", "fail"): 8})).kappa == 1.0
    assert kappa("x", pairs({("pass", "fail"): 8, ("fail", "pass"): 8})).kappa == -1.0


def test_three_verdicts_are_told_apart() -> None:
    table = {
        ("pass", "pass"): 6, ("fail", "fail"): 3, ("unsure", "unsure"): 1, ("pass", "unsure"): 2, ("fail", "pass"): 3,
    }  # fmt: skip
    # rows 8, 3+3, 1 of 15; columns 9, 3, 3; observed 10/15, by chance (8·9 + 6·3 + 1·3)/225 = 93/225
    assert kappa("x", pairs(table)).kappa == pytest.approx((10 / 15 - 93 / 225) / (1 - 93 / 225))


def test_too_few_pairs_and_pairs_that_never_differ_say_so() -> None:
    few = kappa("x", [("pass", "fail")] * 9)
    assert (few.kappa, few.why) == (None, "too few: 9 of at least 10 runs that both judged")
    same = kappa("x", [("pass", "pass")] * 30)
    assert (same.kappa, same.why) == (None, "both said the same of every run: nothing can be told from chance")


def test_the_failure_rate_has_wilsons_interval_and_leaves_out_the_unsure() -> None:
    found = rate(["pass"] * 90 + ["fail"] * 10 + ["unsure"] * 7 + [None])
    assert (found.judged, found.failed, found.unsure) == (100, 10, 7)
    assert found.rate == 0.1
    assert (found.low, found.high) == (pytest.approx(0.0552, abs=1e-4), pytest.approx(0.1744, abs=1e-4))
    assert rate([]).rate is None


def read(agent: str, drawn: bool, verdict: str | None, *said: str, second: bool = True) -> Read:
    state = "settled" if verdict else "disputed"
    return Read(agent, drawn, second, state, verdict, dict(zip(("ann", "ben", "cid"), said, strict=False)))


def test_runs_drawn_and_others_are_counted_apart_and_fails_read_twice_tell_nothing_of_agreement() -> None:
    reads = [
        read("desk", True, "pass", "pass", second=False), read("desk", True, "fail", "fail", "fail", second=False),
        read("desk", False, "fail", "fail", "fail", second=False), read("desk", True, None, "pass", "fail"),
        read("mail", True, "pass", "pass", "pass"),
    ]  # fmt: skip
    whole, desk, mail = agreement.of(["desk", "mail"], reads)
    assert (whole.agent, desk.agent, mail.agent) == ("all agents", "desk", "mail")
    assert (desk.settled, desk.read_twice, desk.disputed) == (3, 1, 1)
    assert (desk.drawn.judged, desk.drawn.failed, desk.others.judged, desk.others.failed) == (2, 1, 1, 1)
    assert whole.by_agent.pairs == 2
    assert [(one.who, one.pairs) for one in whole.by_pair] == [("ann, ben", 2)]
    assert [(one.who, one.pairs) for one in whole.by_reviewer] == [("ann", 1), ("ben", 1)]


# Simulated reviewers of known error over the real outcomes

SENSITIVITY, SPECIFICITY = {"ann": 0.95, "ben": 0.9, "cid": 0.95}, {"ann": 0.97, "ben": 0.95, "cid": 0.97}
REPEATS, LEAST = 100, 93


@pytest.fixture(scope="module")
def outcomes(data_dir: Path) -> dict[str, bool]:
    """Whether each published run failed, by its id."""
    with (data_dir / "agent-runs" / "index.csv").open() as file:
        return {row["run_id"]: float(row["reward"]) < 1 for row in csv.DictReader(file)}


def verdict_of(by: str, failed: bool, chance: random.Random) -> Verdict:
    if failed:
        return "fail" if chance.random() < SENSITIVITY[by] else "pass"
    return "pass" if chance.random() < SPECIFICITY[by] else "fail"


def reviewed(failed: bool, drawn: bool, chance: random.Random) -> Read:
    """A run judged by as many as it wants, through the service's own decisions."""
    state, said, verdict = "waiting", [], None
    for by in ("ann", "ben", "cid"):
        one = Opinion(by, verdict_of(by, failed, chance))
        outcome = fold(state, said, one, ReviewRule(second_review=1.0), BY_HASH)  # type: ignore[arg-type]
        state, said = outcome.state, [*said, one]
        if isinstance(outcome.decision, Agreed):
            verdict = outcome.decision.verdict
            break
    return Read("desk", drawn, True, state, verdict, {one.by: one.verdict for one in said})


def true_kappa(share: float) -> float:
    """What two reviewers of this error come to on runs of which `share` fail, by hand from the probabilities."""
    a_fail = share * SENSITIVITY["ann"] + (1 - share) * (1 - SPECIFICITY["ann"])
    b_fail = share * SENSITIVITY["ben"] + (1 - share) * (1 - SPECIFICITY["ben"])
    both_fail = share * SENSITIVITY["ann"] * SENSITIVITY["ben"]
    both_fail += (1 - share) * (1 - SPECIFICITY["ann"]) * (1 - SPECIFICITY["ben"])
    observed = both_fail + 1 - a_fail - b_fail + both_fail
    by_chance = a_fail * b_fail + (1 - a_fail) * (1 - b_fail)
    return (observed - by_chance) / (1 - by_chance)


@pytest.mark.data
def test_the_interval_of_kappa_holds_what_follows_from_the_reviewers_errors(
    outcomes: dict[str, bool], record_property: Callable[[str, object], None]
) -> None:
    share = sum(outcomes.values()) / len(outcomes)
    wanted, held, values = true_kappa(share), 0, []
    for repeat in range(REPEATS):
        chance = random.Random(repeat)
        found = agreement.agreement("desk", [reviewed(failed, True, chance) for failed in outcomes.values()])
        pair = next(one for one in found.by_pair if one.who == "ann, ben")
        assert found.by_agent.kappa == pair.kappa
        assert pair.pairs == len(outcomes) == 653
        assert pair.low is not None
        assert pair.high is not None
        held += pair.low <= wanted <= pair.high
        values.append(pair.kappa or 0.0)
    record_property("figure", f"kappa {wanted:.3f}, mean {sum(values) / REPEATS:.3f}: held in {held} of {REPEATS}")
    assert held >= LEAST
    assert abs(sum(values) / REPEATS - wanted) < 0.01


@pytest.mark.data
def test_the_rate_of_the_runs_drawn_holds_the_truth_and_that_of_all_that_was_read_does_not(
    outcomes: dict[str, bool], record_property: Callable[[str, object], None]
) -> None:
    truth = sum(outcomes.values()) / len(outcomes)
    held = naive_held = 0
    for repeat in range(REPEATS):
        chance, key = random.Random(repeat), hashlib.sha256(b"day %d" % repeat).digest()
        reads = []
        for run_id, failed in outcomes.items():
            drawn = draw(key, Run("desk", run_id, "live")) < 0.2
            besides = chance.random() < (0.6 if failed else 0.05)  # alerts, complaints: mostly where something failed
            if drawn or besides:
                reads.append(reviewed(failed, drawn, chance))
        found = agreement.agreement("desk", reads)
        naive = rate(one.verdict for one in reads)
        assert found.drawn.judged + found.others.judged == naive.judged == len(reads)
        held += _holds(found.drawn, truth)
        naive_held += _holds(naive, truth)
    record_property(
        "figure", f"failure rate {truth:.3f}: held by the drawn in {held}, by all that was read in {naive_held}"
    )
    assert held >= LEAST
    assert naive_held == 0


def _holds(found: agreement.Rate, truth: float) -> bool:
    return found.low is not None and found.high is not None and found.low <= truth <= found.high
