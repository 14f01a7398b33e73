"""`midwatch runs`, `show`, `tail` as they are typed."""

import asyncio
import json
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result
from nats.js import JetStreamContext
from typer.testing import CliRunner

from helpers import eventually
from logged import NOON, alert, publish, received
from midwatch.contracts import codec
from midwatch.contracts.envelope import utc_now
from midwatch.contracts.reviews import ReviewAgreed
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.settings import Settings
from midwatch_services.commands import alerts, runs, story
from midwatch_services.logger import store, unread
from midwatch_services.logger.search.indexer import Index

FIELDS = {
    "run_id", "agent", "version", "ticket", "started_at", "ended_at", "resolution", "cost_usd", "cost_basis",
    "input_tokens", "output_tokens", "model_calls", "tool_calls", "tool_errors", "messages", "halted_by",
}  # fmt: skip


def midwatch(*words: str) -> Result:
    app = typer.Typer()
    runs.register(app)
    alerts.register(app)
    return CliRunner().invoke(app, list(words), terminal_width=200)


async def read_all() -> None:
    """Has the indexer read all that is in the log."""
    database = Database(Settings().database_for("logger"))
    index = Index(database)
    while await index.note(2**60) or await index.read(utc_now()):
        pass
    database.close()


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log with a refund run that was halted, an older run that is open, and a replayed one of another agent."""
    monkeypatch.setenv("COLUMNS", "240")
    url = Settings().database_for("logger")
    migrate(url, "logger")
    at = NOON
    batch = [
        received("started", input="Refund me", ticket="T-1", at=at, version="2026-11-22"),
        received("said", seq=1, by="customer", text="Refund me, \x1b[31mnow[/bold]", at=at),
        received("model_called", seq=2, model="gpt-x", cost_usd="1.25", output="I look it up",
                 usage={"input_tokens": 1200, "output_tokens": 8}, at=at + timedelta(seconds=1)),
        received("tool_called", seq=3, tool="lookup", arguments={"id": 7}, result={"state": "paid"}, at=at),
        received("tool_called", seq=4, tool="refund", error="denied", at=at),
        received("handed_off", seq=5, to="human", reason="too dear", summary="wants 90", at=at),
        received("finished", seq=6, resolution="halted", at=at + timedelta(seconds=4)),
        received("started", run_id="r-0", input=[{"role": "user", "content": "Hello?"}], at=at - timedelta(days=9),
                 stored_at=at),
        received("started", run_id="r-2", agent="other", mode="replay", input="x", at=at - timedelta(days=1)),
    ]  # fmt: skip
    database = Database(url)
    database.write_now(lambda conn: store.save(conn, batch))
    database.write_now(lambda conn: store.save_alert(conn, alert("raised", at=NOON)))
    agreed = ReviewAgreed(run_id="r-1", agent="desk", verdict="fail", by=["anna"])
    database.write_now(
        lambda conn: store.save_decision(conn, codec.envelope("review", "agreed", agreed, source="/x", time=NOON))
    )
    database.close()


def listed(*words: str) -> list[dict[str, Any]]:
    done = midwatch("runs", "--json", *words)
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.usefixtures("log")
def test_json_is_one_run_a_line_the_newest_first() -> None:
    found = listed()
    assert [run["run_id"] for run in found] == ["r-1", "r-2", "r-0"]
    assert set(found[0]) >= FIELDS
    assert found[0]["halted_by"] == "cost-watchdog/budget_run"


@pytest.mark.usefixtures("log")
def test_runs_can_be_narrowed_down() -> None:
    for words, ids in (
        (["--agent", "other"], ["r-2"]),
        (["--ticket", "T-1"], ["r-1"]),
        (["--mode", "replay"], ["r-2"]),
        (["--resolution", "halted"], ["r-1"]),
        (["--limit", "1"], ["r-1"]),
        (["--limit", "0"], ["r-1", "r-2", "r-0"]),
        (["--since", "2026-11-22T00:00:00+00:00"], ["r-1"]),
        (["--since", "36500d"], ["r-1", "r-2", "r-0"]),
    ):
        assert (words, [run["run_id"] for run in listed(*words)]) == (words, ids)


@pytest.mark.usefixtures("log")
def test_runs_are_found_by_what_was_said_and_done_in_them() -> None:
    asyncio.run(read_all())
    for words, ids in (
        (["--text", '"refund me"'], ["r-1"]),
        (["--text", "-refund"], ["r-2", "r-0"]),
        (["--tool", "lookup"], ["r-1"]),
        (["--cost-over", "1.00", "--cost-under", "$1.26"], ["r-1"]),
        (["--cost-over", "1.25"], []),
        (["--slower-than", "3s"], ["r-1"]),
        (["--slower-than", "1m"], []),
        (["--alert", "budget_run"], ["r-1"]),
        (["--verdict", "fail"], ["r-1"]),
        (["--version", "2026-11-22"], ["r-1"]),
        (["--customer", "c-9"], []),
        (["--until", "2026-11-22T00:00:00+00:00"], ["r-2", "r-0"]),
        (["--resolution", "open", "--agent", "desk"], ["r-0"]),
        (["--text", "refund", "--tool", "refund", "--alert", "any", "--since", "2026-11-22T00:00:00+00:00"], ["r-1"]),
    ):
        assert (words, [run["run_id"] for run in listed(*words)]) == (words, ids)


@pytest.mark.usefixtures("log")
def test_what_cannot_be_asked_is_a_usage_error_of_one_line() -> None:
    for words in (
        ["--text", "?!"], ["--text", "re*"], ["--cost-over", "cheap"], ["--cost-under", "-1"], ["--cost-over", "NaN"],
        ["--slower-than", "2"], ["--slower-than", "99999999999d"], ["--until", "tomorrow"],
        ["--since", "yesterday"], ["--since", "99999999d"], ["--since", "3 weeks"],
    ):  # fmt: skip
        done = midwatch("runs", *words)
        assert (words, done.exit_code, done.output.count("\n")) == (words, 2, 1)


@pytest.mark.usefixtures("log")
def test_what_cannot_be_searched_yet_is_said_where_it_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as given:
        given.setattr(unread, "EVENTS", 0)
        done = midwatch("runs", "--text", "refund")
    assert re.search(r"midwatch: not all of the last \d+ days can be searched yet\n", done.stderr)
    assert "No run is like that." in done.stdout
    assert midwatch("runs", "--agent", "desk").stderr == ""
    assert midwatch("runs", "--text", "refund").stderr == ""


@pytest.mark.usefixtures("log")
def test_the_table_shows_cost_and_who_halted() -> None:
    done = midwatch("runs", "--agent", "desk")
    assert "$1.25" in done.stdout
    assert "cost-watchdog/budget_run" in done.stdout


@pytest.mark.usefixtures("log")
def test_a_run_reads_as_a_story() -> None:
    done = midwatch("show", "r-1")
    assert done.exit_code == 0
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[:4] == [
        "Run r-1 of desk 2026-11-22, ticket T-1",
        "began 2026-11-22 12:00:00 UTC, mode live; halted after 4.0 s",
        "cost $1.25; 1,200 tokens in, 8 out; 1 model calls, 2 tool calls (1 failed), 1 messages",
        "halted by cost-watchdog/budget_run",
    ]
    assert lines[5:] == [
        "+0.0 s Asked: Refund me",
        "+0.0 s The customer said: Refund me, [31mnow[/bold]",
        "+1.0 s Asked the model gpt-x (1,200 tokens in, 8 out) → I look it up",
        '+0.0 s Called lookup({"id": 7}) → {"state": "paid"}',
        "+0.0 s Called refund({}) → failed: denied",
        "+0.0 s Handed off to human: too dear – wants 90",
        "Alert (page, open): Run r-1 has cost $1.20",
        "Review: anna judged it a failure",
        "+4.0 s Ended: halted.",
    ]


def test_a_story_tells_what_was_looked_up_changed_and_judged_and_what_was_erased() -> None:
    url = Settings().database_for("logger")
    migrate(url, "logger")
    at = NOON + timedelta(seconds=2)
    batch = [
        received("started", id="e-1", input="Cancel it", at=NOON),
        received("tool_called", seq=1, tool="get_order", kind="read", arguments={"id": 7}, result="paid", at=NOON),
        received("tool_called", seq=2, tool="get_order", kind="read", result="paid", at=NOON),
        received("tool_called", seq=3, id="e-4", tool="cancel", kind="write", result="ok", at=at),
        received("tool_called", seq=4, tool="cancel", kind="write", error="twice", at=at),
        received("finished", seq=5, resolution="resolved", output="Cancelled", at=at),
    ]
    gone = "UPDATE logger_events SET body = '{\"erased\":\"x\"}' WHERE id = 'e-1'"
    agreed = ReviewAgreed(run_id="r-1", agent="desk", verdict="fail", by=["anna"], note="asked for nothing")
    database = Database(url)
    database.write_now(lambda conn: store.save(conn, batch))
    database.write_now(lambda conn: conn.exec_driver_sql(gone))
    database.write_now(lambda conn: store.save_decision(conn, alert("raised", at=NOON, event_id="e-4")))
    database.write_now(
        lambda conn: store.save_decision(
            conn, codec.envelope("review", "agreed", agreed, source="/x", time=NOON + timedelta(days=1))
        )
    )
    database.close()
    lines = [" ".join(line.split()) for line in midwatch("show", "r-1").stdout.splitlines()]
    assert lines[3:5] == ["looked up: get_order 2 times", "changed: cancel; cancel, which failed"]
    assert lines[7:] == [
        "+0.0 s Erased on request: what was asked.",
        '+0.0 s Looked up with get_order({"id": 7}) → paid',
        "+0.0 s Looked up with get_order({}) → paid",
        "+2.0 s Changed with cancel({}) → ok",
        "Alert (page, open): Run r-1 has cost $1.20",
        "+2.0 s Tried to change with cancel({}) → failed: twice",
        "+2.0 s Ended: resolved. Cancelled",
        "Review: anna judged it a failure: asked for nothing",
    ]
    [shown] = [json.loads(line) for line in midwatch("show", "r-1", "--json").stdout.splitlines()]
    assert (shown["review"]["verdict"], shown["event_list"][0]["data"]) == ("fail", {"erased": "x"})


@pytest.mark.usefixtures("log")
def test_a_clock_that_was_wrong_is_shown() -> None:
    done = midwatch("show", "r-0")
    assert "Asked: Hello? (clock 777600 s behind the server" in " ".join(done.stdout.split())
    assert "still open" in done.stdout


@pytest.mark.usefixtures("log")
def test_show_json_has_the_run_its_events_and_its_alerts() -> None:
    [shown] = [json.loads(line) for line in midwatch("show", "r-1", "--json").stdout.splitlines()]
    assert (shown["run_id"], len(shown["event_list"]), len(shown["alert_list"])) == ("r-1", 7, 1)


@pytest.mark.usefixtures("log")
def test_a_run_that_is_not_there_is_one_line() -> None:
    done = midwatch("show", "r-9")
    assert (done.exit_code, done.stderr) == (1, "midwatch: no run 'r-9' in the log: list them with `midwatch runs`\n")


def test_two_agents_with_one_run_id_are_told_apart() -> None:
    url = Settings().database_for("logger")
    migrate(url, "logger")
    database = Database(url)
    both = [received("started", input=name, agent=name) for name in ("desk", "other")]
    database.write_now(lambda conn: store.save(conn, both))
    database.close()
    assert midwatch("show", "r-1").exit_code == 2
    assert "Asked: other" in midwatch("show", "r-1", "--agent", "other").stdout


@pytest.mark.parametrize("words", [["runs"], ["show", "r-1"], ["alerts"]])
def test_without_a_log_one_line_says_what_to_do(words: list[str]) -> None:
    done = midwatch(*words)
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "midwatch up" in done.stderr


def test_a_database_without_tables_says_what_to_do() -> None:
    database = Database(Settings().database_for("logger"))
    database.read_now(lambda conn: conn.exec_driver_sql("SELECT 1"))
    database.close()
    done = midwatch("runs")
    assert (done.exit_code, "midwatch run logger" in done.stderr) == (1, True)


async def test_tail_shows_what_is_published_also_after_the_server_came_back(
    js: JetStreamContext, nats_server: NatsServer, tmp_path: Path
) -> None:
    program = "import typer; from midwatch_services.commands import runs; a = typer.Typer(); runs.register(a); a()"
    out = tmp_path / "tail"
    with out.open("wb") as file:
        tail = subprocess.Popen(
            [sys.executable, "-c", program, "tail", "--agent", "desk", "--json"],
            env={**os.environ, "NATS_URL": nats_server.url}, stdout=file, stderr=subprocess.PIPE,
        )  # fmt: skip
    seen: list[Any] = []

    async def shown(text: str) -> bool:
        await publish(js, "said", agent="other", by="agent", text="not asked for")
        await publish(js, "said", by="agent", text=text, at=utc_now())
        seen[:] = [json.loads(line) for line in out.read_text().splitlines()]
        return any(event["data"]["text"] == text for event in seen)

    try:
        await eventually(lambda: shown("before"), within=20)
        nats_server.kill()
        await nats_server.restart()
        await eventually(lambda: js._nc.is_connected)
        await eventually(lambda: shown("after"), within=20)
    finally:
        tail.terminate()
        await asyncio.to_thread(tail.communicate)
    assert {event["agent"] for event in seen} == {"desk"}


def test_tail_without_a_server_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:1")
    done = midwatch("tail")
    assert done.exit_code == 1
    assert "midwatch up" in str(done.exception)


MINI = {"provider": "openai", "model": "gpt-4o-mini", "usage": {"input_tokens": 1_000_000}}  # $0.15
UNKNOWN = {"model": "nobody-knows-this-model", "usage": {"input_tokens": 5}}


@pytest.mark.usefixtures("log")
@pytest.mark.parametrize(
    ("calls", "said"),
    [
        ([{"model": "m", "cost_usd": "0.12"}, UNKNOWN, UNKNOWN], "at least $0.12 (2 calls have no known price)"),
        ([{"model": "m", "cost_usd": "0.12"}, UNKNOWN], "at least $0.12 (1 call has no known price)"),
        ([UNKNOWN], "unpriced"),
        ([{**UNKNOWN, "cost_usd": "0"}], "unpriced"),
        ([{"model": "m", "cost_usd": "0"}, UNKNOWN], "unpriced"),
        ([MINI], "$0.15 (priced)"),
        ([{"model": "m", "cost_usd": "0.00001"}], "$0.00001"),
    ],
)
def test_what_is_not_known_of_a_cost_is_said_and_never_zero(calls: list[dict[str, Any]], said: str) -> None:
    batch = [received("model_called", run_id="r-9", seq=seq, **call) for seq, call in enumerate(calls)]
    database = Database(Settings().database_for("logger"))
    database.write_now(lambda conn: store.save(conn, batch))
    database.close()
    assert f"  cost {said};" in midwatch("show", "r-9").stdout
    assert f" {said} " in midwatch("runs").stdout


def test_a_run_of_before_such_calls_were_counted_still_says_that_a_part_is_missing() -> None:
    run = {"cost_usd": "0.12", "cost_basis": "unpriced", "unpriced_calls": 0}
    assert story.cost(run) == "at least $0.12 (part is unpriced)"


@pytest.mark.usefixtures("log")
def test_both_figures_are_told_where_the_reported_cost_is_not_the_prices() -> None:
    batch = [received("model_called", run_id="r-9", seq=seq, cost_usd="0.10", **MINI) for seq in range(2)]
    batch.append(received("model_called", run_id="r-9", seq=2, cost_usd="0.15", **MINI))
    database = Database(Settings().database_for("logger"))
    database.write_now(lambda conn: store.save(conn, batch))
    database.close()
    told = midwatch("show", "r-9").stdout
    assert "  cost $0.35;" in told
    assert "  2 model calls are reported to cost $0.20, by their price $0.30\n" in told
    assert "reported to cost" not in midwatch("show", "r-1").stdout
    (row,) = (one for one in listed() if one["run_id"] == "r-9")
    assert (row["differing_calls"], row["differing_reported_usd"], row["differing_computed_usd"]) == (2, "0.2", "0.3")
