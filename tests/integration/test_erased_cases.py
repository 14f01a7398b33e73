"""Eval cases whose run was erased: left out, named, counted as gone by the gate, and taken out of the files."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

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


def replayed(version: str) -> Result:
    return midwatch("run", "desk", "--target", "my_agent:answer", "--version", version)


def test_an_erased_case_is_gone_for_the_gate_and_breaks_nothing(tmp_path: Path, log: Database) -> None:
    agent_file(tmp_path, ANSWERS)
    for number in range(10):
        put(Path(), f"r-{number}.yaml", CASE.format(name=f"r-{number}"))
    for case in load.load("desk")[0]:
        agreeing.agree(agreeing.agree(case, "ana", datetime.now(UTC)), "bo", datetime.now(UTC))
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
