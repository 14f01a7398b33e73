"""Drift on published runs of real agents: another model is noticed, and a model is not said to differ from itself."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

from bench_drift import Group, flagged, groups, noticed, pairs, verdict, wilson

from midwatch_services.drift.facts import Facts

pytestmark = [pytest.mark.data, pytest.mark.proof]


@pytest.fixture(scope="module")
def found(data_dir: Path) -> dict[Group, list[Facts]]:
    return groups(data_dir)


def test_another_models_runs_are_noticed_within_sixty(found: dict[Group, list[Facts]]) -> None:
    at = {(own, other): noticed(found[own], found[other], 0) for own, other in pairs(found)}
    assert len(at) == 44
    assert {pair: run for pair, run in at.items() if run is None or run > 60} == {}


def test_halves_of_one_models_runs_are_hardly_ever_said_to_differ(found: dict[Group, list[Facts]]) -> None:
    large = [some for some in found.values() if len(some) >= 40]
    hits, splits = sum(flagged(some, 25) for some in large), 25 * len(large)
    assert len(large) == 8
    assert wilson(hits, splits)[1] <= 0.05


def test_runs_too_few_to_tell_are_no_pass(found: dict[Group, list[Facts]]) -> None:
    some = found[next(group for group in found if len(found[group]) >= 40)]
    assert verdict(some[:12], some[12:]).phase == "inconclusive"
