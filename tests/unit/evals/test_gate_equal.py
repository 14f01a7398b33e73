"""An equal agent is let through, a worse one is caught: coins thrown a thousand times, the same each time."""

import random
from functools import lru_cache

import pytest

from gate_helpers import results
from midwatch_services.evals import gate, mcnemar
from midwatch_services.evals.gate import compare
from midwatch_services.evals.outcome import Results

pytestmark = pytest.mark.proof

CASES, REPEATS, ONE_IN_TWENTY = 60, 1_000, 50


@pytest.fixture(autouse=True)
def _remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same sets come up again and again: what each would have seen is worked out once."""
    monkeypatch.setattr(gate, "smallest_drop", lru_cache(maxsize=None)(mcnemar.smallest_drop))


def replay(rates: list[float], draw: random.Random, version: str) -> Results:
    return results("".join("p" if draw.random() < rate else "f" for rate in rates), version)


def verdicts(before: list[float], now: list[float], repeats: int = REPEATS) -> list[str]:
    draw = random.Random(653)
    return [compare(replay(now, draw, "new"), replay(before, draw, "old")).verdict for _ in range(repeats)]


@pytest.mark.parametrize("rate", [0.5, 0.7, 0.9, 0.97])
def test_an_equal_agent_whose_cases_all_flip_fails_in_at_most_one_repeat_of_twenty(rate: float) -> None:
    assert verdicts([rate] * CASES, [rate] * CASES).count("failed") <= ONE_IN_TWENTY


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_an_equal_agent_of_which_some_cases_flip_fails_in_at_most_one_repeat_of_twenty(share: float) -> None:
    flips = round(CASES * share)
    rates = [0.5] * flips + [1.0] * (CASES - flips - 10) + [0.0] * 10
    assert verdicts(rates, rates).count("failed") <= ONE_IN_TWENTY


def test_an_agent_that_is_the_same_to_the_letter_always_passes() -> None:
    rates = [1.0] * 40 + [0.0] * 20
    assert verdicts(rates, rates, repeats=100) == ["passed"] * 100


def test_a_clearly_worse_agent_is_caught_nearly_always_and_never_passes() -> None:
    found = verdicts([0.9] * CASES, [0.55] * CASES, repeats=100)
    assert found.count("failed") >= 95
    assert "passed" not in found


def test_a_drop_that_the_set_could_just_have_seen_is_caught_four_times_in_five() -> None:
    drop = mcnemar.smallest_drop(CASES, 0.1, 0.05, 0.8)
    assert drop is not None
    draw = random.Random(653)
    caught = 0
    for _ in range(REPEATS):  # of each case: 5 % are repaired by chance, 5 % and the drop fall
        throws = [draw.random() for _ in range(CASES)]
        was = "".join("f" if throw < 0.05 else "p" for throw in throws)
        now = "".join("p" if throw < 0.95 - drop else "f" for throw in throws)
        caught += compare(results(now), results(was, "old")).verdict == "failed"
    assert 0.77 <= caught / REPEATS <= 0.84
