"""`midwatch eval gate`: its exit codes, what it writes, and what it says on the bus, in processes of their own."""

import asyncio
import json
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError
from typer.testing import CliRunner

from gate_helpers import AGENT, case, pair, results
from helpers import all_read, eventually
from midwatch.contracts import codec, subjects
from midwatch.contracts.governance import EvalCompleted
from midwatch_services.commands import evals
from midwatch_services.evals import gate_files
from midwatch_services.evals.outcome import Results
from midwatch_services.evals.verdicts import last_gate, passed_gate
from stack import Stack, running

NOWHERE = "nats://127.0.0.1:1"


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with running(tmp_path) as whole:
        yield whole


def keep(home: Path, *found: Results) -> None:
    folder = home / "evals" / AGENT / "results"
    folder.mkdir(parents=True, exist_ok=True)
    for one in found:
        (folder / f"{one.version}.json").write_bytes(msgspec.json.encode(one))


def versions(home: Path, regressions: int, repairs: int, kept: int, failing: int = 0) -> None:
    """Results of a version `new`, and of `old`, the baseline."""
    new, old = pair(regressions, repairs, kept, failing)
    keep(home, msgspec.structs.replace(new, at="2026-11-23T02:00:00Z"), old)
    gate_files.set_baseline(home / "evals", AGENT, "old")


def run(home: Path, monkeypatch: pytest.MonkeyPatch, *words: str, nats: str = NOWHERE) -> Any:
    monkeypatch.setenv("NATS_URL", nats)
    monkeypatch.chdir(home)
    app = typer.Typer()
    evals.register(app)
    return CliRunner().invoke(app, ["eval", *words])


VERDICTS = [
    ((14, 2, 15, 11), 0.1, "failed", 1),
    ((2, 1, 57), 0.1, "inconclusive", 2),
    ((2, 1, 57), 0.2, "passed", 0),
    ((1, 2, 57), 0.1, "passed", 0),
    ((0, 0, 4), 0.1, "inconclusive", 2),
]


@pytest.mark.parametrize(("counts", "max_drop", "verdict", "code"), VERDICTS)
def test_the_exit_code_is_the_verdict(
    counts: tuple[int, ...], max_drop: float, verdict: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions(tmp_path, *counts)
    done = run(tmp_path, monkeypatch, "gate", AGENT, "--max-drop", f"{max_drop:.0%}", "--no-publish", "--json")
    said = json.loads(done.stdout)
    assert (done.exit_code, said["verdict"], said["version"], said["baseline"]) == (code, verdict, "new", "old")
    assert done.stderr == ""


async def test_without_a_server_it_judges_all_the_same_and_says_in_one_line_that_nobody_was_told(stack: Stack) -> None:
    versions(stack.home, 0, 0, 60)
    code, [said], errors = await stack.attempt("eval", "gate", AGENT, "--json", NATS_URL=NOWHERE)
    assert (code, said["verdict"], errors.count("\n")) == (0, "passed", 1)
    assert errors.endswith("The verdict was not published.\n")


@pytest.mark.parametrize(("counts", "code"), [((0, 0, 60), 2), ((20, 0, 40), 1)])
def test_a_verdict_that_had_to_be_published_and_was_not_does_not_ship(
    counts: tuple[int, ...], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions(tmp_path, *counts)
    assert run(tmp_path, monkeypatch, "gate", AGENT, "--publish").exit_code == code


def test_it_is_told_to_people_regressions_first_and_hostile_text_cleaned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, old = pair(14, 2, 15, 11)
    new = msgspec.structs.replace(
        new, cost_usd="1.25", at="2026-11-23T02:00:00Z",
        results=[*new.results, case("c0-typos", "f", twin_of="c0", perturbation="typos"), case("[red]x\x1b[31m", "f")],
    )  # fmt: skip
    keep(tmp_path, new, old)
    gate_files.set_baseline(tmp_path / "evals", AGENT, "old")
    done = run(tmp_path, monkeypatch, "gate", AGENT, "--no-publish")
    lines = done.stdout.splitlines()
    assert lines[0] == "refund-desk new against old: FAILED"
    assert lines[1].startswith("  It got worse: of 42 cases 14 fail that passed in the baseline, 2 the other way round")
    assert lines[2:4] == ["Fell (14):", "  c0: lookup_order was not called"]
    assert lines[17:19] == ["Repaired (2):", "  c14: before: lookup_order was not called"]
    assert lines[-3:] == [
        "1 case new to the set, not compared: [red]x [31m",
        "Stress twins, typos: 0 of 1 pass, 0 fell, 0 repaired, 0 fail where their case passes",
        "Cost of the replay: $1.25; the baseline: not known",
    ]


def test_junit_and_markdown_are_written_and_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions(tmp_path, 14, 2, 15, 11)
    done = run(
        tmp_path, monkeypatch, "gate", AGENT, "--no-publish", "--junit", "out/gate.xml", "--markdown", "out/gate.md"
    )
    assert done.exit_code == 1
    told = {one.get("name"): one.get("value") for one in ET.parse(tmp_path / "out/gate.xml").iter("property")}
    assert (told["verdict"], told["regressions"], told["compared"]) == ("failed", "14", "42")
    assert (tmp_path / "out/gate.md").read_text().startswith("## ❌ Failed: ` refund-desk ` ` new ` against ` old `\n")


@pytest.mark.parametrize(("counts", "code"), [((0, 0, 60), 2), ((20, 0, 40), 1)])
def test_what_cannot_be_written_is_said_and_does_not_ship(
    counts: tuple[int, ...], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions(tmp_path, *counts)
    (tmp_path / "file").write_text("")
    done = run(tmp_path, monkeypatch, "gate", AGENT, "--no-publish", "--junit", "file/x.xml", "--markdown", "gate.md")
    assert (done.exit_code, done.stderr.count("\n"), "file/x.xml cannot be written" in done.stderr) == (code, 1, True)
    assert (tmp_path / "gate.md").is_file()


NOT_JUDGED = [
    (["--version", "v9"], "holds no results of version 'v9'"),
    (["--baseline", "v9"], "holds no results of version 'v9'"),
    (["--result", "none.json"], "none.json is not there"),
    (["--result", "bad.json"], "bad.json is no file of results"),
    (["--baseline", "bad.json"], "bad.json is no file of results"),
    (["--result", "other.json"], "is of agent 'other', not of 'refund-desk'"),
    (["--result", "."], "cannot be read"),
    (["--max-drop", "10"], "is no share: write 10%"),
    (["--max-drop", "0%"], "is no share"),
    (["--max-drop", "nan%"], "is no share"),
    (["--version", "new", "--result", "bad.json"], "not both"),
    (["--version", "old"], "are the baseline itself"),
    (["--evals", "nowhere"], "holds no results: replay with `midwatch eval run refund-desk` first"),
    (["--no-such-option"], "No such option"),
]


@pytest.mark.parametrize(("words", "said"), NOT_JUDGED)
def test_whatever_is_no_verdict_exits_with_two_and_one_line(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions(tmp_path, 0, 0, 60)
    (tmp_path / "bad.json").write_text('{"agent": "refund-desk"')
    (tmp_path / "other.json").write_bytes(msgspec.json.encode(results("p", agent="other")))
    done = run(tmp_path, monkeypatch, "gate", AGENT, *words)
    assert (done.exit_code, said in done.stderr) == (2, True), done.stderr
    assert done.stderr.count("\n") == 1 or words == ["--no-such-option"]
    assert done.stdout == ""


def test_a_name_that_is_no_agents_is_not_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (("gate", "../x"), ("baseline", "../x"), ("history", "../x")):
        done = run(tmp_path, monkeypatch, *words)
        assert (done.exit_code, "is no agent's name" in done.stderr) == (2, True)


def test_a_mistake_of_ours_is_not_taken_for_a_failed_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions(tmp_path, 0, 0, 60)

    def mistaken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("midwatch_services.evals.gate.compare", mistaken)
    done = run(tmp_path, monkeypatch, "gate", AGENT, "--no-publish")
    assert (done.exit_code, "ZeroDivisionError" in done.stderr) == (2, True)


def test_the_baseline_is_set_shown_and_may_be_named_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new, old = pair(20, 0, 40)
    keep(tmp_path, msgspec.structs.replace(new, at="2026-11-23T02:00:00Z"), old)
    assert (done := run(tmp_path, monkeypatch, "baseline", AGENT)).exit_code == 2
    assert "refund-desk has no baseline" in done.stderr
    assert run(tmp_path, monkeypatch, "gate", AGENT, "--no-publish").exit_code == 2
    assert run(tmp_path, monkeypatch, "gate", AGENT, "--no-publish", "--baseline", "old").exit_code == 1
    file = f"evals/{AGENT}/results/old.json"
    assert run(tmp_path, monkeypatch, "gate", AGENT, "--no-publish", "--baseline", file).exit_code == 1
    assert run(tmp_path, monkeypatch, "baseline", AGENT, "v9").exit_code == 2
    assert run(tmp_path, monkeypatch, "baseline", AGENT, "old").exit_code == 0
    assert run(tmp_path, monkeypatch, "baseline", AGENT).stdout == "old\n"
    assert run(tmp_path, monkeypatch, "gate", AGENT, "--no-publish").exit_code == 1


async def test_a_verdict_is_published_once_however_often_it_is_reached(stack: Stack) -> None:
    versions(stack.home, 14, 2, 15, 11)
    for by in ("ci", "ann", "ci"):
        await stack.run("eval", "gate", AGENT, "--publish", "--by", by, "--json", expect=1)
    [(subject, body)] = await stack.messages(subjects.GOVERNANCE, "midwatch.eval.>")
    said = codec.decode(subject, body).data
    assert isinstance(said, EvalCompleted)
    assert (subject, said.version, said.verdict, said.baseline) == (
        f"midwatch.eval.{AGENT}.completed",
        "new",
        "failed",
        "old",
    )
    assert (said.cases, said.passed, said.baseline_passed, said.by) == (42, 17, 29, "ci")
    assert (len(said.regressions), said.repaired, said.p_value) == (14, ["c14", "c15"], 137 / 65536)
    await stack.run("eval", "gate", AGENT, "--max-drop", "20%", "--json", expect=1)  # judged otherwise: another event
    assert len(await stack.messages(subjects.GOVERNANCE, "midwatch.eval.>")) == 2


async def test_the_history_lists_the_newest_first(stack: Stack) -> None:
    assert await stack.run("eval", "history", AGENT, "--json") == []
    versions(stack.home, 14, 2, 15, 11)
    await stack.run("eval", "gate", AGENT, "--json", expect=1)
    versions(stack.home, 0, 2, 58)
    await stack.run("eval", "gate", AGENT, "--by", "ann", "--json")
    newest, oldest = await stack.run("eval", "history", AGENT, "--json")
    assert (newest["verdict"], newest["by"], newest["cases"], oldest["verdict"]) == ("passed", "ann", 60, "failed")
    assert newest["at"] > oldest["at"]
    assert await stack.run("eval", "history", "other", "--json") == []
    code, _, errors = await stack.attempt("eval", "history", AGENT, NATS_URL=NOWHERE)
    assert (code, errors.count("\n"), "Nothing was read" in errors) == (1, 1, True)


async def say(
    js: JetStreamContext, verdict: str, version: str = "v1", id: str | None = None, agent: str = AGENT
) -> None:
    data = EvalCompleted(agent=agent, version=version, verdict=verdict, why="because")  # type: ignore[arg-type]
    body = codec.encode(codec.envelope("eval", "completed", data, source="/people/command-line", id=id))
    await js.publish(subjects.evaluated(AGENT, "completed"), body)


async def test_a_version_has_passed_if_the_last_gate_of_that_very_version_did(nc: Client, js: JetStreamContext) -> None:
    assert await passed_gate(nc, AGENT, "v1") is None
    await say(js, "passed", id="first")
    await say(js, "failed", version="v2")
    found = await passed_gate(nc, AGENT, "v1")
    assert found is not None
    assert (found.version, found.verdict) == ("v1", "passed")
    assert await passed_gate(nc, AGENT, "v2") is None
    assert await passed_gate(nc, "other", "v1") is None
    await say(js, "failed")
    assert await passed_gate(nc, AGENT, "v1") is None
    await say(js, "passed", id="first")  # what was said before, said again
    assert await passed_gate(nc, AGENT, "v1") is None
    await say(js, "inconclusive")
    last = await last_gate(nc, AGENT, "v1")
    assert last is not None
    assert last.verdict == "inconclusive"
    assert await passed_gate(nc, AGENT, "v1") is None
    await say(js, "passed")
    assert await passed_gate(nc, AGENT, "v1") is not None


async def test_what_breaks_the_contract_lets_no_version_pass(nc: Client, js: JetStreamContext) -> None:
    subject = subjects.evaluated(AGENT, "completed")
    await say(js, "passed", agent="other")
    for body in (b"", b"{}", b'{"verdict": "passed", "version": "v1"}'):
        await js.publish(subject, body)
    assert await passed_gate(nc, AGENT, "v1") is None


async def test_the_logger_reads_past_a_verdict(stack: Stack) -> None:
    await stack.start("logger")
    js = stack.client.jetstream()
    await say(js, "passed")
    await js.publish(subjects.evaluated(AGENT, "completed"), b"no event at all")

    await eventually(lambda: all_read(js, subjects.GOVERNANCE, subjects.LOGGER_GOVERNANCE))
    with pytest.raises(NotFoundError):
        await js.get_last_msg(subjects.DEAD, subjects.dead(subjects.LOGGER))
    assert await asyncio.to_thread(stack.processes[0].complaint) == ""
