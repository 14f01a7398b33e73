"""`midwatch watchdog backtest` as it is typed: $1.00 a run, five calls that bring nothing new, a log of four runs."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from logged import NOON, received
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.settings import Settings
from midwatch_services.cli import app
from midwatch_services.logger import store

CARD = "agent: desk\nowner: Ann\npurpose: Answers tickets.\ncan: [Look up an order]\n"
SINCE = ("--since", "2026-11-22T00:00")


def midwatch(*words: str) -> Result:
    return CliRunner().invoke(app, ["watchdog", "backtest", *words], env={"COLUMNS": "240"})


def summary(*words: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    result = midwatch("--rules", "card.yaml", *SINCE, "--json", *words)
    assert result.exit_code == 0, result.output
    first, *rest = [json.loads(line) for line in result.stdout.splitlines()]
    return first, rest


def spending(run_id: str, *amounts: str | None, minutes: int = 0, **fields: Any) -> list[Any]:
    at = NOON + timedelta(minutes=minutes)
    calls = [
        received("model_called", run_id=run_id, seq=seq, model="m-1", cost_usd=usd, at=at, stored_at=at,
                 usage={"input_tokens": 900, "output_tokens": 100}, **fields)
        for seq, usd in enumerate(amounts)
    ]  # fmt: skip
    ended = received("finished", run_id=run_id, seq=len(amounts), resolution="resolved", at=at, stored_at=at, **fields)
    return [*calls, ended]


@pytest.fixture(autouse=True)
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIDWATCH_HOME", str(tmp_path / "home"))
    Path("card.yaml").write_text(CARD)
    looking = [
        received("tool_called", run_id="r-loop", seq=seq, tool="lookup", arguments={"id": 7}, result="none")
        for seq in range(8)
    ]
    events = [
        *spending("r-dear", "0.60", "0.60", "0.30", "0.30"),
        *spending("r-cheap", "0.20", minutes=1),
        *looking,
        *spending("r-unknown", *[None] * 5, minutes=2),
        *spending("r-other", "9.00", agent="mail"),
        *spending("r-old", "9.00", minutes=-60 * 24),
    ]
    url = Settings().database_for("logger")
    migrate(url, "logger")
    database = Database(url)
    database.write_now(lambda conn: store.save(conn, events))
    database.close()


def test_a_run_over_its_budget_would_have_been_halted_and_what_it_spent_after_that_saved() -> None:
    found, rows = summary()
    (dear,) = [row for row in rows if row["run_id"] == "r-dear"]
    assert (dear["rule"], dear["spent_usd"], dear["saved_usd"]) == ("budget_run", "1.20", "0.60")
    assert (dear["events_after"], dear["resolution"]) == (3, "resolved")
    assert dear["why"] == "Run r-dear of desk has spent $1.20 of its $1.00 budget"
    assert (found["runs"], found["halted"], found["halted_resolved"]) == (4, 2, 1)


def test_a_loop_would_have_been_halted_at_its_fifth_repeat() -> None:
    _, rows = summary()
    (loop,) = [row for row in rows if row["run_id"] == "r-loop"]
    assert (loop["rule"], loop["events_after"]) in {("loop_no_new_state", 2), ("loop_writes", 4)}


def test_a_run_whose_price_nobody_knows_saves_tokens_not_dollars() -> None:
    Path("card.yaml").write_text(CARD + "budget: {run_steps: 2}\n")
    _, rows = summary()
    (unknown,) = [row for row in rows if row["run_id"] == "r-unknown"]
    assert (unknown["rule"], unknown["saved_tokens"]) == ("budget_run_steps", 3000)
    assert (unknown["saved_usd"], unknown["saved_unpriced_calls"]) == ("0", 3)
    assert "3,000 tokens (no known price)" in midwatch("--rules", "card.yaml", *SINCE).stdout


def test_runs_that_begin_while_their_agent_falls_back_are_saved_whole() -> None:
    Path("card.yaml").write_text(CARD + "budget: {run: $9, day: $1}\n")
    _, rows = summary()
    (cheap,) = [row for row in rows if row["run_id"] == "r-cheap"]
    assert (cheap["rule"], cheap["spent_usd"], cheap["saved_usd"]) == ("budget_day", "0", "0.20")


def test_the_span_and_the_agent_say_which_runs() -> None:
    found, _ = summary("--since", "2026-11-20T00:00")
    assert found["runs"] == 5


def test_people_read_a_table_and_a_sentence() -> None:
    result = midwatch("--rules", "card.yaml", *SINCE)
    assert result.exit_code == 0
    assert "desk: 2 of 4 runs since 2026-11-22T00:00 would have been halted (50.0%)" in result.stdout


def test_no_run_is_no_error() -> None:
    result = midwatch("--rules", "card.yaml", "--since", "1s")
    assert (result.exit_code, result.stdout) == (
        0,
        "No run of desk in the log since 1s: nothing to try the limits on.\n",
    )


def test_a_wrong_card_is_named_with_its_place() -> None:
    Path("card.yaml").write_text(CARD + "budget: {runs: $1}\n")
    result = midwatch("--rules", "card.yaml")
    assert result.exit_code == 2
    assert "card.yaml:5:10: `budget.runs` is no key of a card: did you mean `run`?" in result.stderr


def test_a_mode_that_is_none_is_refused() -> None:
    assert "'lively' is no mode" in midwatch("--rules", "card.yaml", "--mode", "lively").stderr
