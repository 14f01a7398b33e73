"""The loop rule on published runs of real agents, as the replay would publish them."""

import csv
import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from midwatch.contracts.runs import ToolCalled
from midwatch_services.cost_watchdog.alerts import HaltRun, RaiseAlert
from midwatch_services.cost_watchdog.observe import pair_of
from midwatch_services.replay.mapping import ToolStep, to_played
from midwatch_services.replay.source import SourceRun

pytestmark = pytest.mark.data


class Real:
    """One run, its tool calls as digests, and what the file says of how it ended."""

    def __init__(self, run: SourceRun) -> None:
        self.run_id = run.run_id
        self.passed = bool(run.outcome and run.outcome.reward and run.outcome.reward > 0)
        self.pairs = [_pair(step) for step in to_played(run).steps if isinstance(step, ToolStep)]


def longest_streak(pairs: Sequence[int]) -> int:
    """Counted anew, in one pass, without the service's code."""
    seen: set[int] = set()
    streak = longest = 0
    for pair in pairs:
        streak = streak + 1 if pair in seen else 0
        seen.add(pair)
        longest = max(longest, streak)
    return longest


def _pair(step: ToolStep) -> int:
    return pair_of(
        ToolCalled(
            run_id="r", agent="a", version="1", mode="replay", seq=0, tool=step.tool, arguments=step.arguments,
            result=step.result, error=step.error,
        )
    )  # fmt: skip


def _runs(folder: Path) -> Iterator[Real]:
    with gzip.open(folder / "agent-runs" / "runs.jsonl.gz") as lines:
        for line in lines:
            yield Real(msgspec.json.decode(line, type=SourceRun))


@pytest.fixture(scope="module")
def real_runs(data_dir: Path) -> list[Real]:
    return list(_runs(data_dir))


@pytest.fixture(scope="module")
def verdicts(real_runs: list[Real], played: Any) -> dict[str, list[Any]]:
    """What was decided of each run."""
    result = {}
    for run in real_runs:
        play = played(mode="live")
        play.calls(run.pairs, run.run_id)
        result[run.run_id] = play.decisions
    return result


def _halted(verdicts: dict[str, list[Any]]) -> set[str]:
    return {run_id for run_id, said in verdicts.items() if any(isinstance(one, HaltRun) for one in said)}


def test_all_runs_are_there(real_runs):
    assert len(real_runs) == 653
    assert sum(run.passed for run in real_runs) == 343


def test_every_run_with_a_streak_of_six_is_halted_at_its_fifth(real_runs, verdicts):
    long = [run for run in real_runs if longest_streak(run.pairs) >= 6]
    assert len(long) == 9
    for run in long:
        page = next(one for one in verdicts[run.run_id] if isinstance(one, RaiseAlert) and one.severity == "page")
        assert page.value == 5
        assert longest_streak(run.pairs[: page.seq]) == 4
        assert longest_streak(run.pairs[: page.seq + 1]) == 5


def test_no_run_with_a_shorter_streak_than_five_is_halted(real_runs, verdicts):
    assert _halted(verdicts) == {run.run_id for run in real_runs if longest_streak(run.pairs) >= 5}


def test_at_most_one_in_a_hundred_passed_runs_is_halted(real_runs, verdicts):
    passed = {run.run_id for run in real_runs if run.passed}
    assert len(passed & _halted(verdicts)) / len(passed) <= 0.01


def test_whatever_is_halted_repeated_a_call_with_the_same_result(data_dir, verdicts):
    lines = (data_dir / "agent-runs" / "pathologies.jsonl").read_text().splitlines()
    repeated = {found["run_id"] for found in map(json.loads, lines) if found["kind"] == "same_call_same_result_3plus"}
    assert _halted(verdicts) <= repeated


def test_calls_of_the_customers_device_are_not_the_agents(data_dir, real_runs):
    with (data_dir / "agent-runs" / "index.csv").open() as rows:
        counted = {row["run_id"]: int(row["n_agent_calls"]) for row in csv.DictReader(rows)}
    assert {run.run_id: len(run.pairs) for run in real_runs} == counted
