"""`midwatch alerts` as it is typed."""

import json
from datetime import timedelta

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from logged import NOON, alert
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.settings import Settings
from midwatch_services.commands import alerts, runs
from midwatch_services.logger import store

FIELDS = {
    "alert_id", "rule", "severity", "title", "agent", "run_id", "ticket", "value", "limit", "cost_basis", "dedupe_key",
    "action_taken", "evidence",
}  # fmt: skip


def midwatch(*words: str) -> Result:
    app = typer.Typer()
    alerts.register(app)
    runs.register(app)
    return CliRunner().invoke(app, list(words), terminal_width=200)


@pytest.fixture(autouse=True)
def log(monkeypatch: pytest.MonkeyPatch) -> None:
    """One open alert, and an older one that is resolved."""
    monkeypatch.setenv("COLUMNS", "240")
    url = Settings().database_for("logger")
    migrate(url, "logger")
    database = Database(url)
    for made in (
        alert("raised", value="1.20", limit="1"),
        alert("raised", alert_id="a-0", agent="other", title="It \x1b[2Jloops", at=NOON - timedelta(hours=1)),
        alert("resolved", alert_id="a-0", reason="the run finished"),
    ):
        database.write_now(lambda conn, made=made: store.save_alert(conn, made))
    database.close()


def listed(*words: str) -> list[str]:
    return [json.loads(line)["alert_id"] for line in midwatch("alerts", "--json", *words).stdout.splitlines()]


def test_json_is_one_alert_a_line_with_the_contracts_fields() -> None:
    first = json.loads(midwatch("alerts", "--json").stdout.splitlines()[0])
    assert set(first) >= FIELDS
    assert (first["value"], first["limit"], first["action_taken"], first["mode"]) == ("1.20", "1", "halted_run", "live")


def test_the_newest_is_first_and_resolved_ones_can_be_left_out() -> None:
    assert listed() == ["a-1", "a-0"]
    assert listed("--open") == ["a-1"]
    assert listed("--agent", "other") == ["a-0"]


def test_the_table_is_safe_to_print() -> None:
    done = midwatch("alerts")
    assert done.exit_code == 0
    assert "It  [2Jloops" in done.stdout
    assert "\x1b" not in done.stdout


def test_no_alert_is_said_in_words() -> None:
    assert midwatch("alerts", "--agent", "nobody").stdout == "No alerts.\n"
