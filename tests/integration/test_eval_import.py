"""`midwatch eval import`: cases made of the published runs, held against a count that shares nothing with ours."""

import csv
import gzip
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from eval_helpers import counted, midwatch, writes_of
from midwatch_services.evals import judge, kinds, load, published
from midwatch_services.evals.case import Case
from midwatch_services.evals.recorded import outcome_of
from midwatch_services.replay.formats import Found, read
from midwatch_services.replay.source import SourceRun

pytestmark = pytest.mark.proof

CASES = 60


@pytest.fixture(scope="module")
def agent_runs(data_dir: Path) -> Path:
    return data_dir / "agent-runs"


@pytest.fixture(scope="module")
def sources(agent_runs: Path) -> dict[str, dict[str, Any]]:
    with gzip.open(agent_runs / "runs.jsonl.gz", "rt", encoding="utf-8") as file:
        return {run["run_id"]: run for run in map(json.loads, file)}


@pytest.fixture(scope="module")
def index(agent_runs: Path) -> dict[str, dict[str, str]]:
    with (agent_runs / "index.csv").open(encoding="utf-8") as file:
        return {row["run_id"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def runs(agent_runs: Path) -> dict[str, SourceRun]:
    return {one.run.run_id: one.run for one in read(agent_runs / "runs.jsonl.gz") if isinstance(one, Found)}


@pytest.fixture(scope="module")
def tools(agent_runs: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((agent_runs / "policies" / "tools.json").read_bytes())
    return found


def verdict(case: Case, run: SourceRun) -> bool:
    return judge.passed(judge.evaluate(case, outcome_of(run, case.kinds)))


def by_index(row: dict[str, str], run: dict[str, Any]) -> bool:
    """The same by the figures that came with the runs."""
    basis = ((run["outcome"] or {}).get("reward_info") or {}).get("reward_basis") or []
    expected = {one["name"] for one in run["gold_actions"]}
    hand_off = "ACTION" in basis and "transfer_to_human_agents" in expected
    ended = row["term"] in ("", "user_stop", "agent_stop")
    writes = row["n_unexpected_writes"] == row["n_missing_gold_writes"] == "0"
    return ended and writes and (not hand_off or row["n_transfers"] != "0")


@pytest.mark.data
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_sixty_cases_have_the_verdict_of_an_independent_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, agent_runs: Path, runs: dict[str, SourceRun],
    sources: dict[str, dict[str, Any]], tools: dict[str, Any], seed: int,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    spoken = [run_id for run_id, run in runs.items() if any(one.role == "user" and one.content for one in run.messages)]
    named = random.Random(seed).sample(spoken, CASES)
    done = midwatch("import", str(agent_runs / "runs.jsonl.gz"), "--agent", "desk", "--runs", ",".join(named),
                    "--tools", str(agent_runs / "policies" / "tools.json"))  # fmt: skip
    assert done.exit_code == 0, done.output
    cases, broken = load.load("desk")
    assert (len(cases), broken) == (CASES, [])
    ours = {case.run_id: verdict(case, runs[case.run_id]) for case in cases}
    assert ours == {one: counted(sources[one], writes_of(tools, sources[one]["domain"])) for one in ours}
    rewarded = sum(ours[one] == (sources[one]["outcome"]["reward"] > 0) for one in ours)
    print(f"seed {seed}: {sum(ours.values())} of {CASES} pass; {rewarded} agree with the published reward")
    assert {True, False} == set(ours.values())


@pytest.mark.data
def test_every_run_has_the_verdict_of_both_counts_and_what_differs_is_known(
    runs: dict[str, SourceRun], sources: dict[str, dict[str, Any]], index: dict[str, dict[str, str]],
    tools: dict[str, Any], agent_runs: Path,
) -> None:  # fmt: skip
    known = kinds.of_file(agent_runs / "policies" / "tools.json")
    silent, agreed, total, differ = 0, 0, 0, []
    for run_id, run in runs.items():
        try:
            case = published.case_of(run, "desk", kinds.in_domain(known, run.domain))
        except published.NoCase:
            silent += 1
            continue
        ours = verdict(case, run)
        assert ours == counted(sources[run_id], writes_of(tools, run.domain)), run_id
        total += 1
        agreed += ours == (sources[run_id]["outcome"]["reward"] > 0)
        differ += [run_id] if ours != by_index(index[run_id], sources[run_id]) else []
    # Where the agent works alone no customer says anything. The index counts a write that was made twice as expected,
    # where the task's author expects it once.
    assert silent == 31
    assert all(int(index[one]["dup_writes"]) > 0 for one in differ) and len(differ) == 2
    print(f"{agreed} of {total} runs ({agreed / total:.1%}) have the verdict of their published reward")
    assert 0.75 < agreed / total < 0.85


@pytest.mark.data
def test_tasks_are_chosen_evenly_and_one_run_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, agent_runs: Path, runs: dict[str, SourceRun]
) -> None:
    monkeypatch.chdir(tmp_path)
    file, tools = str(agent_runs / "runs.jsonl.gz"), ("--tools", str(agent_runs / "policies" / "tools.json"))
    assert midwatch("import", file, "--agent", "desk", *tools).exit_code == 0
    cases, _ = load.load("desk")
    assert len(cases) == CASES == len({case.task for case in cases})
    assert min(Counter(case.task.split("/")[0] for case in cases).values()) >= 10
    done = midwatch("import", file, "--agent", "old", *tools, "--model", "gpt-4o", "--tasks", "airline/3,13",
                    "--json")  # fmt: skip
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {runs[row["run_id"]].task_id for row in rows} == {"3", "13"} and len(rows) == 8  # four trials of each
    assert {runs[row["run_id"]].agent.model for row in rows} == {"gpt-4o"}


@pytest.mark.data
def test_raw_result_files_bring_their_expected_actions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, agent_runs: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (
        "tau2_results_gpt-4.1_airline.old-format.json.gz",
        "tau2_results_whissle_retail_n5.new-format.json.gz",
    ):
        done = midwatch("import", str(agent_runs / "raw" / name), "--agent", "desk",
                        "--tools", str(agent_runs / "policies" / "tools.json"))  # fmt: skip
        assert done.exit_code == 0, done.output
    cases, broken = load.load("desk")
    assert (len(cases), broken) == (23, [])
    assert all(case.expect.writes is not None for case in cases) and any(case.expect.writes for case in cases)


def a_file(folder: Path, **fields: Any) -> Path:
    """One run of a task that expects a refund of 20 and reads an order."""
    run = {
        "schema": "agentrun/1", "run_id": "r-1", "agent": {"name": "a", "model": "m"}, "domain": "shop",
        "task_id": "7", "termination_reason": "user_stop",
        "messages": [
            {"role": "assistant", "content": "Hi!"},
            {"role": "user", "content": "Refund A-1 please"},
            {"role": "assistant", "tool_calls": [{"id": "x", "name": "look_up", "args": {"id": "A-1"}},
                                                 {"id": "x", "name": "refund", "args": {"id": "A-1", "amount": 20.0}}]},
            {"role": "tool", "tool_call_id": "x", "content": "paid"},
            {"role": "tool", "tool_call_id": "x", "content": "done"},
            {"role": "user", "content": "Thanks! ###STOP###"},
        ],
        "gold_actions": [{"name": "look_up", "args": {"id": "A-1"}}, {"name": "refund", "args": {"id": "A-1",
                         "amount": 20, "note": "as asked"}, "compare_args": ["id", "amount"]},
                         {"name": "reboot", "args": {}, "requestor": "user"}],
        **fields,
    }  # fmt: skip
    path = folder / "runs.jsonl"
    path.write_text(json.dumps(run) + "\n")
    (folder / "tools.json").write_text('{"look_up": "read", "refund": "write", "reboot": "write"}')
    return path


def imported(folder: Path, monkeypatch: pytest.MonkeyPatch, **fields: Any) -> Case:
    monkeypatch.chdir(folder)
    done = midwatch("import", str(a_file(folder, **fields)), "--agent", "desk", "--tools", "tools.json")
    assert done.exit_code == 0, done.output
    ((case,), broken) = load.load("desk")
    assert broken == []
    return case


def test_a_published_run_becomes_a_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = imported(tmp_path, monkeypatch)
    assert (case.task, case.version, case.run_id) == ("shop/7", "m", "r-1")
    assert ([one.text for one in case.earlier], case.turns) == (["Hi!"], ("Refund A-1 please", "Thanks!"))
    # Ids repeat, so results are paired in order.
    assert [(one.tool, one.result) for one in case.recorded] == [("look_up", "paid"), ("refund", "done")]
    assert case.expect.writes is not None and case.expect.hands_off is None
    assert [(one.tool, one.arguments) for one in case.expect.writes] == [("refund", {"id": "A-1", "amount": 20})]


@pytest.mark.parametrize(
    ("basis", "asked"), [(["ENV_ASSERTION", "ACTION"], True), (["DB", "COMMUNICATE"], None), (None, None)]
)
def test_a_hand_off_is_asked_where_the_reward_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, basis: list[str] | None, asked: bool | None
) -> None:
    hand_off = {"name": "transfer_to_human_agents", "args": {"summary": "x"}, "compare_args": []}
    case = imported(tmp_path, monkeypatch, gold_actions=[hand_off],
                    outcome={"reward": 1.0, "reward_info": {"reward_basis": basis}})  # fmt: skip
    assert (case.expect.hands_off, case.expect.writes) == (asked, ())


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["--tools", "tools.json", "--runs", "r-1,r-2"], 1, "The files hold no run r-2"),
        (["--tools", "tools.json", "--tasks", "none"], 1, "no run of the file is of these tasks"),
        (["--tools", "nowhere.json"], 1, "nowhere.json does not say what tools do"),
        (["--tools", "odd.json"], 1, "look_up is 'reads', not read, write, other or generic"),
        (["--tools", "odd.yaml"], 2, "odd.yaml:1:1: `owner` is missing"),
        ([], 2, "nobody says which tools write: give --tools FILE, or apply a scope card of desk"),
    ],
)
def test_what_cannot_be_imported_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:1")
    (tmp_path / "odd.json").write_text('{"look_up": "reads"}')
    (tmp_path / "odd.yaml").write_text("agent: desk\npurpose: x\ncan: [x]\n")
    told = midwatch("import", str(a_file(tmp_path)), "--agent", "desk", *arguments)
    assert told.exit_code == code and line in told.output


def test_a_run_that_makes_no_case_keeps_no_other_and_tools_of_no_kind_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = a_file(tmp_path)
    good = json.loads(path.read_text())
    silent = {**good, "run_id": "r-2", "messages": []}
    path.write_text("\n".join([json.dumps(silent), "{broken", json.dumps(good)]))
    (tmp_path / "tools.json").write_text('{"refund": "write"}')
    told = midwatch("import", str(path), "--agent", "desk", "--tools", "tools.json", "--runs", "r-1,r-2")
    assert told.exit_code == 1
    assert "1 case written to evals/desk" in told.output
    assert "Run r-2 makes no case: its customer says nothing." in told.output
    assert "note: nobody says what these tools do, so they count as no writes: look_up" in told.output
    assert f"{path}:2: " in told.output
