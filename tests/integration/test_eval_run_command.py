"""`midwatch eval run` as it is typed: what it prints, what it writes, and its exit code."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from eval_replay_helpers import agent_file, case
from midwatch.errors import BadAgentName
from midwatch_services.commands import evals
from midwatch_services.evals import judges, keep, load
from midwatch_services.evals.case import Agreed, Case, Expect
from midwatch_services.evals.outcome import CaseResult, Outcome, Results, set_hash

AGENT = """
import os

async def answer(run, turn):
    if "crash" in turn.text:
        os._exit(9)
    print("I was asked", turn.text)
    order = await run.tool("lookup_order", print, order_id="A-1001")
    await run.model(complete, model="gpt-4.1", messages=[])
    return f"Your {order['charges'][0]} dollars are on their way."

def complete(*, model, messages):
    return {"model": model, "usage": {"prompt_tokens": 1000, "completion_tokens": 100}}
"""
SAYS, ASKS = Expect(says=("on their way",)), Expect(says=("by Friday",))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the command is typed, with the user's code in it."""
    monkeypatch.chdir(tmp_path)
    agent_file(tmp_path, AGENT)
    (tmp_path / "evals" / "refund-desk").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def holds(here: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the eval set holds: its cases, and a line for each file that cannot be read."""

    async def ask(judge: str, case: Case, outcome: Outcome, timeout: float) -> Any:
        print("a judge that prints")
        return SimpleNamespace(ok=judge == "judges:kind", said=f"says {judge}")

    def hold(*cases: Case, broken: tuple[str, ...] = ()) -> None:
        found = load.EvalSet(list(cases), [[line] for line in broken])
        monkeypatch.setattr(load, "read", lambda *_: found)
        monkeypatch.setattr(judges, "load_judge", lambda spec: spec)
        monkeypatch.setattr(judges, "ask", ask)

    return hold


def midwatch(*words: object) -> Result:
    app = typer.Typer()
    evals.register(app)
    given = ["eval", "run", "refund-desk", "--target", "my_agent:answer", "--version", "2026-11-22", *map(str, words)]
    return CliRunner().invoke(app, given)


def written(path: str = "evals/refund-desk/results/2026-11-22.json") -> Results:
    return msgspec.json.decode(Path(path).read_bytes(), type=Results)


def test_it_says_what_passed_what_it_cost_and_where_the_results_are(holds: Any) -> None:
    cases = [case("a", expect=SAYS), case("b", expect=ASKS), case("c", expect=SAYS)]
    holds(*cases)
    done = midwatch()
    assert done.exit_code == 0, done.output
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[:3] == [
        "3 cases, 2 passed",
        "case passed why",
        "b 0 of 1 Wanted it to say “by Friday”; it ended with “Your 19.5 dollars are on their way.”.",
    ]
    assert lines[3].startswith("cost $0.0084; ") and lines[3].endswith(
        "results in evals/refund-desk/results/2026-11-22.json"
    )
    assert "the target wrote to standard output: I was asked I was charged twice for order A-1001." in done.stderr
    found = written()
    assert (found.agent, found.version, found.target, found.repeats) == (
        "refund-desk",
        "2026-11-22",
        "my_agent:answer",
        1,
    )
    assert (found.cost_usd, found.eval_set) == ("0.0084", set_hash(one.hash for one in cases))
    assert [(one.case, one.passed, one.hash) for one in found.results] == [
        ("a", True, cases[0].hash), ("b", False, cases[1].hash), ("c", True, cases[2].hash)]  # fmt: skip


def test_a_case_that_cannot_be_run_is_said_and_the_rest_still_run(holds: Any) -> None:
    holds(case("a", expect=SAYS), case("dies", turns=("crash",)), broken=("evals/refund-desk/x.yaml:3: no `turns`",))
    done = midwatch()
    assert done.exit_code == 1
    assert "midwatch: evals/refund-desk/x.yaml:3: no `turns`\n" in done.stderr
    assert "midwatch: dies: the agent's process ended with exit code 9\n" in done.stderr
    assert written().broken == ["evals/refund-desk/x.yaml:3: no `turns`"]
    assert [(one.case, one.passed) for one in written().results] == [("a", True), ("dies", False)]


def test_json_is_one_line_a_case_whatever_a_judge_or_the_agent_prints(holds: Any) -> None:
    holds(*(case(f"c{n}", expect=Expect(judge="judges:kind" if n % 2 else "judges:stern")) for n in range(10)))
    done = midwatch("--json")
    assert done.exit_code == 0
    found = [msgspec.json.decode(line, type=CaseResult) for line in done.stdout.splitlines()]
    assert {one.case: one.passed for one in found} == {f"c{n}": bool(n % 2) for n in range(10)}
    assert "a judge that prints" in done.stderr


def test_twins_are_reported_apart_and_can_be_left_out(holds: Any) -> None:
    one = case("a", expect=SAYS)
    holds(
        one, replace(one, name="a-shouting", twin_of="a", perturbation="shouting", expect=ASKS), case("b", expect=SAYS)
    )
    assert [line for line in midwatch().stdout.splitlines() if line.endswith("passed") and line[0].isdigit()] == [
        "2 cases, 2 passed",
        "1 perturbed twin, 0 passed",
    ]
    assert "perturbed" not in midwatch("--no-stress").stdout
    assert [one.case for one in written().results] == ["a", "b"]
    midwatch("--only", "a")
    assert [one.case for one in written().results] == ["a", "a-shouting"]


def test_results_of_a_part_tell_how_many_cases_of_the_set_gate(holds: Any) -> None:
    two = tuple(Agreed(by, "2026-11-22T02:00:00Z", SAYS.hash) for by in ("ana", "ben"))
    holds(*(case(name, expect=SAYS, agreed=two) for name in "abc"), case("new", expect=SAYS))
    midwatch("--only", "a")
    assert len(written().results) == 1
    assert written().gating == 3


def test_repeats_are_attempts_of_the_same_case(holds: Any) -> None:
    holds(case("a", expect=SAYS))
    assert midwatch("--repeats", 3, "--out", "there.json").exit_code == 0
    assert [len(one.attempts) for one in written("there.json").results] == [3]
    assert not Path("evals/refund-desk/results").exists()


def test_a_missing_answer_can_be_made_to_fail_the_case(holds: Any) -> None:
    holds(case("a", recorded=()))
    done = midwatch("--missing", "fail")
    assert done.exit_code == 0, "the case ran, and failed"
    assert "the recording holds no answer to lookup_order(order_id='A-1001')" in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--only", "z"], 2, "there is no case 'z' in evals/refund-desk: `midwatch eval list` names them"),
        (["--missing", "guess"], 2, "--missing 'guess': choose nearest or fail"),
        (
            ["--evals", "nowhere"],
            1,
            "there is no eval set in nowhere/refund-desk: make cases with `midwatch eval add`",
        ),
    ],
)
def test_a_mistake_is_one_line(words: list[str], code: int, said: str, holds: Any) -> None:
    holds(case("a"))
    done = midwatch(*words)
    assert done.exit_code == code
    assert f"midwatch: {said}" in done.stderr


def test_a_target_that_is_not_there_is_one_line_and_writes_nothing(holds: Any) -> None:
    holds(case("a"))
    done = midwatch("--target", "my_agent:anser")
    assert str(done.exception) == "--target my_agent:anser: my_agent has no 'anser': did you mean 'answer'?"
    assert not Path("evals/refund-desk/results").exists()


def test_results_that_stood_there_are_replaced_whole(holds: Any) -> None:
    holds(case("a", expect=SAYS))
    path = Path("evals/refund-desk/results/2026-11-22.json")
    path.parent.mkdir()
    path.write_text("what was there before")
    midwatch()
    assert json.loads(path.read_bytes())["schema"] == "midwatch.eval/1"
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_where_nothing_can_be_written_nothing_is_replayed(holds: Any) -> None:
    holds(case("a", turns=("crash",)))
    Path("file").touch()
    done = midwatch("--out", "file/results.json")
    assert str(done.exception) == "the results cannot be written to file/results.json: File exists"
    assert "exit code 9" not in done.stderr


def test_a_long_list_of_what_failed_is_cut(holds: Any) -> None:
    holds(*(case(f"c{number:02}", turns=("x" * 1_000,), expect=ASKS) for number in range(60)))
    lines = midwatch().stdout.splitlines()
    assert lines[0] == "60 cases, 0 passed"
    assert sum(line.startswith("c") and "0 of 1" in line for line in lines) == 50
    assert "… and 10 more: the results file has all" in lines
    assert len(written().results) == 60


def test_versions_do_not_share_a_file() -> None:
    folder = Path("evals")
    assert keep.usual_path(folder, "desk", "2026-11-22") == folder / "desk" / "results" / "2026-11-22.json"
    odd = {
        keep.usual_path(folder, "desk", version).name for version in ("main/1", "main 1", "main-1", "../main-1", "…")
    }
    assert len(odd) == 5
    assert all(name.endswith(".json") and "/" not in name for name in odd)


def test_a_password_in_the_target_is_not_kept(holds: Any, unused_tcp_port: int) -> None:
    holds(case("a"))
    done = midwatch("--target", f"http://me:secret@127.0.0.1:{unused_tcp_port}/?key=secret")
    assert done.exit_code == 1
    assert "midwatch: a: the agent cannot be asked: [Errno 111] Connection refused" in done.stderr
    assert "secret" not in done.output + Path("evals/refund-desk/results/2026-11-22.json").read_text()
    assert written().target == f"http://127.0.0.1:{unused_tcp_port}/"


def test_an_unknown_price_is_never_nothing(holds: Any, here: Path) -> None:
    agent_file(here, AGENT.replace("gpt-4.1", "house-model-7"))
    holds(case("a", expect=SAYS), case("b", expect=SAYS))
    assert midwatch().stdout.splitlines()[-1].startswith("cost unknown, of 2 attempts whose price nobody knows; ")
    assert written().cost_usd is None


def test_a_name_that_is_no_agents_is_one_line(holds: Any) -> None:
    holds(case("a"))
    app = typer.Typer()
    evals.register(app)
    done = CliRunner().invoke(app, ["eval", "run", "../desk", "--target", "nats", "--version", "1"])
    assert isinstance(done.exception, BadAgentName)
