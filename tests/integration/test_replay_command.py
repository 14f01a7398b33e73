"""`midwatch replay` as it is typed: what it prints, and its exit code."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result
from nats.js import JetStreamContext
from typer.testing import CliRunner

from midwatch.errors import Temporary
from midwatch.runtime.nats_server import NatsServer
from midwatch_services.commands import replay

RUN = {
    "run_id": "run-1",
    "schema": "agentrun/1",
    "agent": {"name": "desk", "model": "m-1"},
    "domain": "shop",
    "task_id": "7",
    "termination_reason": "user_stop",
    "messages": [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi", "cost_usd": 0.1, "usage": {"prompt_tokens": 9, "completion_tokens": 1}},
    ],
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "runs.jsonl"
    path.write_text(json.dumps(RUN) + "\n")
    return path


@pytest.fixture
def server(js: JetStreamContext, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server with everything declared, where the command looks for one."""
    monkeypatch.setenv("NATS_URL", nats_server.url)


async def midwatch(*words: object) -> Result:
    app = typer.Typer()
    replay.register(app)
    return await asyncio.to_thread(CliRunner().invoke, app, [str(word) for word in words])


@pytest.mark.usefixtures("server")
async def test_it_says_how_many_runs_and_events_were_published(file: Path) -> None:
    done = await midwatch(file)
    assert done.exit_code == 0
    assert done.stdout == "1 runs, 5 events published, 0 already known\n"


@pytest.mark.usefixtures("server")
async def test_json_is_one_line_a_run_with_its_counts(file: Path) -> None:
    done = await midwatch(file, "--json")
    (row,) = map(json.loads, done.stdout.splitlines())
    ticket = row.pop("ticket")
    assert ticket.startswith("shop-7-")
    assert row == {
        "run_id": "run-1", "agent": "shop-desk", "version": "m-1", "resolution": "resolved", "events": 5,
        "messages": 2, "model_calls": 1, "tool_calls": 0, "tool_errors": 0, "hand_offs": 0, "cost_usd": "0.1",
        "known": False,
    }  # fmt: skip


@pytest.mark.usefixtures("server")
async def test_a_bad_line_is_named_and_the_exit_code_says_so(file: Path) -> None:
    file.write_text(file.read_text() + '{"schema": "agentrun/1"}\n')
    done = await midwatch(file)
    assert done.exit_code == 1
    assert f"midwatch: {file}:2: Object missing required field" in done.stderr
    assert done.stdout == "1 runs, 5 events published, 0 already known, 1 entries not read\n"


@pytest.mark.parametrize("speed", ["fast", "0x", "-1", "nan", "inf"])
async def test_a_speed_that_is_none_is_refused(file: Path, speed: str) -> None:
    done = await midwatch(file, "--speed", speed)
    assert done.exit_code == 2
    assert "is no speed: give max, or a multiple" in done.stderr


async def test_without_a_server_it_says_how_to_start_one(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:1")
    done: Any = await midwatch(file)
    assert isinstance(done.exception, Temporary)
    assert "start one with `midwatch up`, or set NATS_URL" in str(done.exception)


async def test_without_streams_it_says_how_to_make_them(
    file: Path, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NATS_URL", nats_server.url)
    done: Any = await midwatch(file)
    assert isinstance(done.exception, Temporary)
    assert str(done.exception).startswith("there is no MIDWATCH_RUNS")
    assert str(done.exception).endswith("run `midwatch topology apply`")
