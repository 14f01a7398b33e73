"""`midwatch hold` and `keep` as they are typed, beside a logger that runs, or does not."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from helpers import eventually
from kept import NOW, place_hold, save, sqlite_url, whole_run
from midwatch.contracts.envelope import utc_now
from midwatch.runtime.database import Database, migrate
from midwatch_services.cli import app
from midwatch_services.logger.keeping import hold_store
from stack import Stack, running


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with running(tmp_path) as whole:
        yield whole


@pytest.fixture
def log(stack: Stack) -> Database:
    """The log of the stack with an old run and a new one; the logger is not started."""
    url = f"sqlite:///{stack.home}/data/logger.db"
    (stack.home / "data").mkdir()
    migrate(url, "logger")
    database = Database(url, name="logger")
    days = (utc_now() - NOW).total_seconds() / 86_400
    save(database, [*whole_run("old", 500 - days, ticket="T-1"), *whole_run("new", -days)])
    return database


async def test_a_hold_is_in_force_once_the_command_has_said_so(stack: Stack, log: Database) -> None:
    await stack.start("logger")
    [placed] = await stack.run("hold", "add", "--ticket", "T-1", "--reason", "claim 1184", "--by", "sam", "--json")
    assert (placed["confirmed"], placed["in_force"], placed["runs"], placed["placed_by"]) == (True, True, 1, "sam")
    assert log.read_now(lambda conn: hold_store.held(conn, "desk", ["old", "new"])).keys() == {"old"}
    [listed] = await stack.run("hold", "list", "--json")
    assert (listed["hold_id"], listed["reason"], listed["ticket"]) == (placed["hold_id"], "claim 1184", "T-1")
    [dry] = await stack.run("keep", "run", "--dry-run", "--json")
    assert (dry["runs"], dry["held"]) == (0, 1)
    [lifted] = await stack.run("hold", "lift", placed["hold_id"][:9], "--reason", "settled", "--json")
    assert (lifted["in_force"], lifted["lifted_reason"]) == (False, "settled")
    assert await stack.run("hold", "list", "--json") == []
    [kept] = await stack.run("hold", "list", "--all", "--json")
    assert (kept["reason"], kept["lifted_reason"]) == ("claim 1184", "settled")
    [gone] = await stack.run("keep", "run", "--json")
    assert (gone["agent"], gone["runs"], gone["events"], gone["held"]) == ("desk", 1, 3, 0)
    [left] = await stack.run("runs", "--json")
    assert left["run_id"] == "new"
    log.close()


async def test_without_a_logger_a_hold_is_recorded_and_said_not_to_be_in_force(stack: Stack, log: Database) -> None:
    code, _, errors = await stack.attempt("hold", "add", "--run", "old", "--reason", "claim")
    assert (code, "NOT yet in force: the logger has not answered" in errors) == (3, True)
    await stack.start("logger")

    def in_force() -> bool:
        return bool(log.read_now(lambda conn: hold_store.held(conn, "desk", ["old"])))

    await eventually(in_force, within=20)
    log.close()


async def test_without_a_server_nothing_is_said_to_have_happened(stack: Stack, log: Database) -> None:
    for words in (("hold", "add", "--run", "old", "--reason", "claim"), ("keep", "run")):
        code, _, errors = await stack.attempt(*words, NATS_URL="nats://127.0.0.1:1")
        assert (code, errors.count("\n"), "othing was" in errors) == (1, 1, True)
    log.close()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--reason", "x"], "say what to keep"),
        (["--run", "r", "--reason", " "], "say why"),
        (["--run", "r", "--reason", "x", "--until", "soon"], "is no time"),
        (["--run", "r", "--reason", "x", "--until", "2020-01-01"], "is over already"),
        (["--agent", "No Agent", "--reason", "x"], "is no agent's name"),
    ],
)
def test_a_hold_that_says_nothing_is_a_usage_error(words: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["hold", "add", *words])
    assert (done.exit_code, said in done.stderr, done.stderr.count("\n")) == (2, True, 1)


async def test_a_hold_is_lifted_once_and_by_a_name_that_means_one(stack: Stack, log: Database) -> None:
    for hold_id in ("hold-ab1", "hold-ab2"):
        place_hold(log, hold_id, run_id="old")
    assert (await stack.attempt("hold", "lift", "hold-ab", "--reason", "x"))[0] == 2
    assert (await stack.attempt("hold", "lift", "hold-c", "--reason", "x"))[0] == 1
    log.close()


@pytest.mark.parametrize("words", [["up", "--no-nats"], ["run", "logger"], ["keep", "run"]])
async def test_a_setting_below_six_months_is_refused_in_one_line(stack: Stack, words: list[str]) -> None:
    code, _, errors = await stack.attempt(*words, MIDWATCH_KEEP_DAYS="182")
    assert code == 1
    assert [line for line in errors.splitlines() if not line.startswith("{")] == [
        "midwatch: MIDWATCH_KEEP_DAYS is 182, which is less than the six months that the EU AI Act's Article 26 asks "
        "for: set it to 183 or more."
    ]


async def test_space_goes_back_to_the_disk_and_is_used_again_before(stack: Stack, tmp_path: Path) -> None:
    url = sqlite_url(tmp_path)
    migrate(url, "logger")
    database = Database(url, name="logger")
    days = (utc_now() - NOW).total_seconds() / 86_400
    for number in range(10):
        save(database, whole_run(f"old-{number}", 500 - days, events=200))
    save(database, whole_run("new", -days))
    database.read_now(lambda conn: conn.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
    size = os.path.getsize(tmp_path / "logger.db")
    await stack.run("keep", "run", MIDWATCH_DATABASE_URL=url)
    for number in range(8):
        save(database, whole_run(f"more-{number}", -days, events=200))
    database.read_now(lambda conn: conn.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
    assert os.path.getsize(tmp_path / "logger.db") <= size * 1.05
    [freed] = await stack.run("keep", "vacuum", "--json", MIDWATCH_DATABASE_URL=url)
    database.close()
    assert 0 < freed["bytes"] <= size
    assert os.path.getsize(tmp_path / "logger.db") < size
