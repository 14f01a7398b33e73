"""Eval cases whose run was erased: left out, named, counted as gone by the gate, and taken out of the files."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from eval_helpers import midwatch, put
from eval_replay_helpers import agent_file
from midwatch.contracts import subjects
from midwatch.contracts.erasure import ErasedRun
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.settings import Settings
from midwatch_services.commands import erase
from midwatch_services.evals import agreeing, load
from midwatch_services.logger.erasure import store as erasures

ANSWERS = "async def answer(run, turn):\n    return 'A refund: ' + turn.text\n"
CASE = "case: {name}\nfrom: {{run: {name}}}\nconversation: [words of {name}]\nexpect: {{says: refund}}\n"


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """The run log, as the commands find it."""
    monkeypatch.chdir(tmp_path)
    url = Settings().database_for(subjects.LOGGER)
    migrate(url, subjects.LOGGER)
    database = Database(url, name="test")
    yield database
    database.close()


def erased(log: Database, *runs: str) -> None:
    """As `midwatch erase` leaves them."""
    some = [ErasedRun(agent="desk", run_id=run) for run in runs]
    log.write_now(lambda conn: erasures.remember(conn, "er-1", some))


def cases(*words: str) -> Result:
    """`midwatch erase cases`."""
    app = typer.Typer()
    erase.register(app)
    app.command()(lambda: None)
    return CliRunner().invoke(app, ["erase", "cases", "--yes", *words])


def ten_that_gate(tmp_path: Path) -> None:
    agent_file(tmp_path, ANSWERS)
    for number in range(10):
        put(Path(), f"r-{number}.yaml", CASE.format(name=f"r-{number}"))
    for case in load.load("desk")[0]:
        agreeing.agree(agreeing.agree(case, "ana", datetime.now(UTC)), "bo", datetime.now(UTC))


def replayed(version: str) -> Result:
    return midwatch("run", "desk", "--target", "my_agent:answer", "--version", version)


def test_an_erased_case_is_gone_for_the_gate_and_breaks_nothing(tmp_path: Path, log: Database) -> None:
    ten_that_gate(tmp_path)
    assert replayed("old").exit_code == 0
    midwatch("baseline", "desk", "old")
    erased(log, "r-3")

    again = replayed("new")
    assert (again.exit_code, "r-3.yaml:1: `r-3` is left out: the run that it was made of" in again.output) == (0, True)
    judged = midwatch("gate", "desk", "--no-publish")
    assert (judged.exit_code, "1 case gone from the set: r-3" in judged.output) == (0, True)
    assert "could not be read" not in judged.output
    told = midwatch("check", "desk")
    assert (told.exit_code, "desk: 9 cases ok, 0 not, 1 of erased runs" in told.output) == (1, True)


def test_a_twin_with_an_erased_cases_request_goes_and_its_own_case_stays(log: Database) -> None:
    for name in ("r-1", "r-2"):
        put(Path(), f"{name}.yaml", CASE.format(name=name))
    assert midwatch("stress", "desk", "--kinds", "several,shouting").exit_code == 0
    old = Path("evals/desk/stress/r-1--several.yaml").read_text().replace(", runs: [r-1, r-2]", "")
    put(Path(), "stress/old.yaml", old.replace("case: r-1--several", "case: old"))
    erased(log, "r-2")

    told = midwatch("list", "desk")
    assert all(f"`{name}` is left out" in told.output for name in ("r-1--several", "r-2--several", "old", "r-2"))
    gone = cases()
    assert (gone.exit_code, "5 files removed, 0 left" in gone.output) == (0, True), gone.output
    assert sorted(path.name for path in Path("evals/desk").rglob("*.yaml")) == ["r-1--shouting.yaml", "r-1.yaml"]


def test_a_twin_whose_case_is_gone_is_found_by_its_run_or_named_as_left(log: Database) -> None:
    twin = "case: {name}\ntwin: {{of: gone, how: typos, hash: {hash}{runs}}}\nconversation: [wrods]\n"
    put(Path(), "stress/new.yaml", twin.format(name="new", hash="a" * 64, runs=", runs: [r-1]"))
    put(Path(), "stress/other.yaml", twin.format(name="other", hash="a" * 64, runs=", runs: [r-2]"))
    put(Path(), "stress/old.yaml", twin.format(name="old", hash="a" * 64, runs=""))
    erased(log, "r-1")

    told = cases()
    assert (told.exit_code, "1 file removed, 1 left" in told.output) == (4, True)
    assert "stress/old.yaml may hold what an erased run said: its case is not there" in told.output
    assert sorted(path.name for path in Path("evals/desk/stress").iterdir()) == ["old.yaml", "other.yaml"]


def test_twins_are_removed_before_the_case_that_tells_whose_they_are(log: Database) -> None:
    put(Path(), "r-1.yaml", CASE.format(name="r-1"))
    assert midwatch("stress", "desk", "--kinds", "shouting").exit_code == 0
    erased(log, "r-1")
    told = cases("--dry-run").output
    assert told.index("stress/r-1--shouting.yaml: of r-1") < told.index("desk/r-1.yaml: of r-1")


def test_results_lose_what_an_erased_run_said_and_still_judge(tmp_path: Path, log: Database) -> None:
    ten_that_gate(tmp_path)
    for version in ("old", "new"):
        assert replayed(version).exit_code == 0
    midwatch("baseline", "desk", "old")
    erased(log, "r-3")

    told = cases()
    assert (told.exit_code, "1 file removed, 2 files of results blanked, 0 left" in told.output) == (0, True)
    for path in Path("evals/desk/results").iterdir():
        assert ("words of r-3" in path.read_text(), "words of r-4" in path.read_text()) == (False, True)
    judged = midwatch("gate", "desk", "--version", "new", "--no-publish")
    assert (judged.exit_code, "all 10 cases end as they did in the baseline" in judged.output) == (0, True)
    assert "0 files removed, 0 left" in cases().output


def test_a_link_is_not_removed_as_if_what_it_leads_to_were(tmp_path: Path, log: Database) -> None:
    kept = tmp_path / "kept.yaml"
    kept.write_text(CASE.format(name="r-1"))
    link = put(Path(), "other.yaml", CASE.format(name="r-2")).with_name("r-1.yaml")
    link.symlink_to(kept)
    erased(log, "r-1")
    told = cases()
    assert (told.exit_code, "0 files removed, 1 left" in told.output) == (4, True)
    assert "desk/r-1.yaml holds what an erased run said: it is a link: remove it, and what it leads to" in told.output
    assert link.is_symlink()
