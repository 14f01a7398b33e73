"""What docs/eval-gate.md promises is what the code does: its table, its figures, its commands."""

import re
import shlex
from pathlib import Path
from string import Template

import msgspec
import pytest
import typer
from ruamel.yaml import YAML
from typer.testing import CliRunner

from gate_helpers import AGENT, pair
from midwatch_services.commands import evals
from midwatch_services.evals import gate_files
from midwatch_services.evals.gate import POLICY, compare
from midwatch_services.evals.mcnemar import power, smallest_drop

PAGE = (Path(__file__).parents[2] / "docs" / "eval-gate.md").read_text(encoding="utf-8")
CHURN = (0.0, 0.05, 0.1, 0.2)
ROWS = re.findall(r"^\| (\d+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", PAGE, re.MULTILINE)


def test_the_table_of_power_is_what_the_code_computes() -> None:
    assert [int(row[0]) for row in ROWS] == [20, 30, 40, 50, 60, 80, 100, 150, 200]
    for cases, *said in ROWS:
        drops = [smallest_drop(int(cases), churn, POLICY.alpha, POLICY.power) for churn in CHURN]
        assert said == [f"{(drop or 0) * 100:.1f}".removesuffix(".0") for drop in drops], cases


def test_the_figures_in_the_text_are_what_the_code_does() -> None:
    assert "it takes 76 cases" in PAGE
    verdicts = [compare(*pair(1, 0, cases - 1)).verdict for cases in (75, 76)]
    assert verdicts == ["inconclusive", "passed"]
    decision = (Path(__file__).parents[2] / "docs/decisions/0020-what-the-gate-calls-worse.md").read_text()
    assert f"it fails {power(60, 0, 0.5, 0.05) * 100:.1f} %" in decision


def commands() -> list[list[str]]:
    """Each `midwatch eval` command of the page but those of the replay, as a shell would split it."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    shell = "".join(text for language, text in blocks if language != "yaml")
    lines = [re.sub(r"\s{2,}\S.*", "", line) for line in shell.splitlines()]
    [workflow] = [YAML(typ="safe").load(text) for language, text in blocks if language == "yaml"]
    lines += [step.get("run", "") for step in workflow["jobs"]["gate"]["steps"]]
    wanted = [line for line in lines if re.match(r"midwatch eval (?!run)", line)]
    here = {"GITHUB_SHA": "new", "version": "new", "GITHUB_ACTOR": "ann", "GITHUB_STEP_SUMMARY": "summary.md"}
    return [shlex.split(Template(line).substitute(here).replace("2026-11-22", "new")) for line in wanted]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_each_command_of_the_page_runs(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for found, at in zip(pair(0, 0, 80), ("2026-11-23T02:00:00Z", "2026-11-22T02:00:00Z"), strict=True):
        path = tmp_path / "evals" / AGENT / "results" / f"{found.version}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.encode(msgspec.structs.replace(found, at=at)))
    gate_files.set_baseline(tmp_path / "evals", AGENT, "old")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:1")
    app = typer.Typer()
    evals.register(app)
    done = CliRunner().invoke(app, words[1:])
    if words[2] == "history":  # which needs the bus
        assert "does not answer" in done.stderr
        return
    assert done.exit_code == 0, done.output
    for option in ("--junit", "--markdown"):
        assert option not in words or (tmp_path / words[words.index(option) + 1]).stat().st_size > 0


def test_the_page_has_the_commands_that_are_run() -> None:
    assert [words[2] for words in commands()] == ["gate", "baseline", "history", "gate", "gate"]
