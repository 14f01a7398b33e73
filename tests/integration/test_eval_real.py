"""The whole way with real runs: cases made, agreed, replayed against what agents once did, and judged by the gate."""

import gzip
import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from eval_helpers import counted, midwatch, writes_of
from midwatch_services.evals import judge, kinds, published
from midwatch_services.evals.gate import compare
from midwatch_services.evals.outcome import Attempt, CaseResult, Outcome, Results
from midwatch_services.evals.recorded import outcome_of
from midwatch_services.replay.formats import Found, read
from midwatch_services.replay.source import SourceRun

pytestmark = [pytest.mark.data, pytest.mark.proof]
REPEATS = 100
GOOD, WORSE = "claude-sonnet-4-5", "ollama_chat/qwen2.5:7b"  # 42 runs of the same tasks each


@pytest.fixture(scope="module")
def agent_runs(data_dir: Path) -> Path:
    return data_dir / "agent-runs"


@pytest.fixture(scope="module")
def sources(agent_runs: Path) -> dict[str, dict[str, Any]]:
    with gzip.open(agent_runs / "runs.jsonl.gz", "rt", encoding="utf-8") as file:
        return {run["run_id"]: run for run in map(json.loads, file)}


def ran(*arguments: str) -> str:
    done = midwatch(*arguments)
    assert done.exit_code == 0, done.output
    return done.output


def chosen(sources: dict[str, dict[str, Any]]) -> list[str]:
    """Sixty runs, one of a task: those of the good model, then of other domains."""
    spoken = [run for run in sources.values() if any(one["role"] == "user" for one in run["messages"])]
    first = [run["run_id"] for run in spoken if run["agent"]["model"] == GOOD]
    more = {run["task_id"]: run["run_id"] for run in spoken if run["domain"] == "retail"}
    return [*first, *list(more.values())[: 60 - len(first)]]


def test_sixty_cases_replayed_have_the_verdict_of_a_count_and_a_worse_model_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, agent_runs: Path, sources: dict[str, dict[str, Any]]
) -> None:
    monkeypatch.chdir(tmp_path)
    file, tools = str(agent_runs / "runs.jsonl.gz"), agent_runs / "policies" / "tools.json"
    ran("import", file, "--agent", "desk", "--tools", str(tools), "--runs", ",".join(chosen(sources)))
    names = [json.loads(line)["case"] for line in ran("list", "desk", "--json").splitlines()]
    assert len(names) == 60
    for person in ("ana", "ben"):
        ran("agree", *names, "--by", person, "--yes")
    ran("run", "desk", "--target", f"recorded:{file}", "--version", "1")
    before = json.loads((tmp_path / "evals/desk/results/1.json").read_bytes())
    cases = {case["case"]: case for case in map(json.loads, ran("list", "desk", "--json").splitlines())}
    verdicts = {row["case"]: row["passed"] for row in before["results"]}
    known = json.loads(tools.read_bytes())
    assert all(case["gates"] for case in cases.values())
    by_run = {run_of(tmp_path / case["path"], name): name for name, case in cases.items()}
    assert verdicts == {
        name: counted(sources[run_id], writes_of(known, sources[run_id]["domain"])) for run_id, name in by_run.items()
    }

    ran("baseline", "desk", "1")
    ran("run", "desk", "--target", f"recorded:{file}", "--version", "the same again")
    ran("gate", "desk", "--no-publish")
    midwatch("run", "desk", "--target", f"recorded:{file}", "--version", "2", "--model", WORSE)
    judged = midwatch("gate", "desk", "--version", "2", "--no-publish")
    assert judged.exit_code == 1, judged.output


def run_of(path: Path, name: str) -> str:
    """The run that the case of this name was made from, by its file."""
    lines = path.read_text(encoding="utf-8").split(f"case: {name}\n", 1)[1].splitlines()
    return next(line.split("run:", 1)[1] for line in lines if "run:" in line).strip(" {}'\"").split(",")[0].strip("'\"")


def test_an_equal_agent_fails_in_at_most_five_of_a_hundred_repeats(
    agent_runs: Path, sources: dict[str, dict[str, Any]]
) -> None:
    """Four trials of the same model at each task: two of them, drawn anew each time, are the two versions."""
    known = kinds.of_file(agent_runs / "policies" / "tools.json")
    trials: dict[str, list[bool]] = defaultdict(list)
    for found in read(agent_runs / "runs.jsonl.gz"):
        if isinstance(found, Found) and found.run.agent.model == "gpt-4o" and found.run.domain == "airline":
            trials[found.run.task_id].append(passed(found.run, kinds.in_domain(known, "airline")))
    assert [len(some) for some in trials.values()] == [4] * 42
    draw, verdicts = random.Random(2026), []
    for _ in range(REPEATS):
        pairs = {task: draw.sample(some, 2) for task, some in trials.items()}
        old, new = ({task: pair[place] for task, pair in pairs.items()} for place in (0, 1))
        verdicts.append(compare(results(new, "2"), results(old, "1")).verdict)
    print({verdict: verdicts.count(verdict) for verdict in set(verdicts)})
    assert verdicts.count("failed") <= 5


def passed(run: SourceRun, known: Any) -> bool:
    case = published.case_of(run, "desk", known)
    return judge.passed(judge.evaluate(case, outcome_of(run, case.kinds)))


def results(verdicts: dict[str, bool], version: str) -> Results:
    rows = [
        CaseResult(case=task, hash=task, passed=ok, gates=True, attempts=[Attempt(passed=ok, outcome=Outcome())])
        for task, ok in verdicts.items()
    ]
    return Results(agent="desk", version=version, target="recorded", at="2026-11-26T00:00:00Z", results=rows)
