"""`midwatch drift`: plain sentences, from what the service has judged or from the log itself."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from drift_helpers import Log, log_run
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.settings import Settings
from midwatch_services.cli import app
from midwatch_services.drift import store
from midwatch_services.drift.decide import Verdict

FIRST = datetime(2026, 10, 24, 8, 0, tzinfo=UTC)
DAY = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["drift", "--date", "2026-11-21", *arguments])


def rows(*arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run("--json", *arguments).stdout.splitlines()]


@pytest.fixture
def log(tmp_path: Path) -> Any:
    made = Log(Settings())
    made.add_days(FIRST, 28, each=10, hand_offs=1)
    yield made
    made.close()


def test_a_change_is_printed_as_a_sentence_with_the_runs_that_show_it(log: Log) -> None:
    log.add_days(DAY, 1, each=40, hand_offs=20)
    done = run("--agent", "desk")
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        "desk, 2026-11-21 against the 28 days before: 1 change (40 runs against 280, 12 tests)",
        "  Hand-offs rose from 10 % to 50 % of runs. Sudden, since 2026-11-21. Chance: less than 1 in 10,000.",
        "    midwatch show run-1121-19  run-1121-18  run-1121-17",
    ]


def test_a_calm_day_is_said_to_be_one(log: Log) -> None:
    log.add_days(DAY, 1, each=40, hand_offs=4)
    done = run()
    assert done.exit_code == 0
    assert "desk, 2026-11-21 against the 28 days before: no changes (40 runs against 280" in done.stdout


def test_too_few_runs_are_said_to_be_so(log: Log) -> None:
    log.add([log_run(f"few-{n}", DAY, hand_off=True) for n in range(3)])
    log.database.write_now(lambda conn: conn.exec_driver_sql("DELETE FROM logger_runs WHERE ended_at < '2026-11-21' "
                                                             "AND ended_at > '2026-11-14T23'"))  # fmt: skip
    done = run("--agent", "desk")
    assert done.exit_code == 3
    assert done.stdout == "desk, 2026-11-21 against the 28 days before: too few runs to say: 3 of 20\n"


def test_a_version_is_held_against_the_one_before(log: Log) -> None:
    log.add_days(DAY, 1, each=40, hand_offs=20, version="2\x1b[31m")
    (row,) = rows("--against", "version")
    assert (row["against"], row["label"], row["phase"], row["findings"][0]["cause"]) == (
        "version", "1", "failed", "hand_offs",
    )  # fmt: skip
    assert len(rows()) == 2
    assert run("--against", "version").stdout.startswith("desk, 2026-11-21 against version 1: 1 change (40 runs")


def test_what_the_service_has_judged_is_printed_as_it_was(log: Log) -> None:
    log.add_days(DAY, 1, each=40, hand_offs=20)
    url = Settings().database_for("drift")
    migrate(url, "drift")
    database = Database(url)
    calm = Verdict(against="days", label="before", phase="passed", recent_runs=30, baseline_runs=90, least=20, tests=9)
    database.write_now(lambda conn: store.save_verdicts(conn, "desk", "live", "2026-11-21", [calm]))
    database.close()
    assert [row["phase"] for row in rows()] == ["passed"]
    assert [row["phase"] for row in rows("--now")] == ["failed"]


def test_nothing_ran(log: Log) -> None:
    done = run("--agent", "nobody")
    assert (done.exit_code, done.stdout) == (3, "No runs of nobody in the week to 2026-11-21: nothing to say.\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--mode", "drill"], "'drill' is not judged: write one of live, shadow, replay"),
        (["--against", "weeks"], "'weeks' is nothing to compare with: write days or version"),
        (["--date", "Monday"], "'Monday' is no day: write YYYY-MM-DD"),
    ],
)
def test_what_cannot_be_meant_is_said_in_one_line(arguments: list[str], said: str) -> None:
    done = run(*arguments)
    assert (done.exit_code, done.stderr) == (2, f"midwatch: {said}\n")


def test_without_a_log_the_way_to_one_is_said() -> None:
    done = run()
    assert done.exit_code == 1
    assert done.stderr.startswith("midwatch: There is no database at ")
