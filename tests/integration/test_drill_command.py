"""`midwatch drill` as a process, which may be killed; what it would do; its history and its sign-off."""

import asyncio
import json
import os
import signal
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import pytest
import typer
from click.testing import Result
from nats.js import JetStreamContext
from typer.testing import CliRunner

from drill_helpers import LONG_AGO, apply_card, drilled, state, until_halted
from helpers import eventually
from kill_switch_helpers import Pod, kill_switch, put
from midwatch.contracts import subjects
from midwatch.contracts.governance import SwitchDrilled
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.switchboard import Switchboard
from midwatch_services.commands import drill as command
from midwatch_services.kill_switch.drills import drill
from midwatch_services.kill_switch.policy import POLICY
from stack import MIDWATCH

Run = Callable[..., Coroutine[Any, Any, Result]]
app = typer.Typer()
command.register(app)


@app.callback()
def _more() -> None:
    """Keeps the command's name on the command line."""


@pytest.fixture
async def board(js: JetStreamContext) -> Switchboard:
    await put(js, "agent.desk", b'{"state":"running"}')
    await apply_card(js, drill="weekly", drill_hours="02:00-05:00")
    return Switchboard(js)


@pytest.fixture
def run(nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line in a thread of its own, as its event loop is its own."""
    monkeypatch.setenv("NATS_URL", nats_server.url)

    async def invoke(*arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, ["drill", *arguments])

    return invoke


async def spawn(server: NatsServer, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *MIDWATCH, "drill", "desk", "--without-instances", "--by", "ann", *arguments,
        env={**os.environ, "NATS_URL": server.url}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.chaos
async def test_a_drill_that_is_killed_is_lifted_by_its_expiry_and_kept_as_failed(
    nats_server, js, board, settings
) -> None:
    async with kill_switch(settings, POLICY):
        process = await spawn(nats_server, "--expires", "3")
        await until_halted(board)
        process.kill()
        await process.wait()

        async def lifted() -> bool:
            return await state(board) == ("running", subjects.KILL_SWITCH)

        await eventually(lifted, within=20)
        (result,) = await eventually(lambda: drilled(js), within=20)
    assert (result.passed, result.failures) == (False, ["did not report; its halt expired"])
    assert (result.agent, result.by, result.restored) == ("desk", "ann", True)


async def test_a_drill_that_is_asked_to_end_restores_first_and_exits_3(nats_server, js, board, settings) -> None:
    async with kill_switch(settings, POLICY):
        process = await spawn(nats_server, "--json")
        await until_halted(board)
        process.send_signal(signal.SIGTERM)
        out, err = await process.communicate()
        assert (await state(board))[0] == "running"
        (kept,) = await drilled(js)
    assert process.returncode == 3, err
    (shown,) = [json.loads(line) for line in out.splitlines()]
    assert (shown["drill_id"], shown["restored"], kept.restored) == (kept.drill_id, True, True)
    assert shown["failures"] == ["inconclusive: it was interrupted; its tickets were not counted"]


async def test_a_drill_from_the_command_line_passes_and_is_signed_off_by_who_ran_it(
    nats_server, js, board, settings
) -> None:
    async with kill_switch(settings, POLICY):
        process = await spawn(nats_server)
        out, err = await process.communicate()
        (kept,) = await drilled(js)
    assert process.returncode == 0, (out, err)
    text = out.decode()
    assert "no instance of the agent runs: nobody but the drill is halted" in text
    assert f"desk: PASSED, drill {kept.drill_id}" in text
    assert "0 lost, 0 doubled" in text
    assert "signed off by ann" in text
    assert (kept.passed, kept.signed_off_by) == (True, "ann")


# What it would do


async def sequences(js: JetStreamContext) -> dict[str, int]:
    """The last sequence of every stream."""
    return {info.config.name or "": info.state.last_seq for info in await js.streams_info()}


async def test_a_dry_run_says_who_is_affected_and_writes_nothing(js, board, settings, run: Run) -> None:
    applied = {"fleet": 1, "agent.desk": 2, "tools.desk": 0, "runs.desk": 0}
    async with kill_switch(settings, POLICY):
        await Pod(js, "pod-1", applied=applied).say(runs_in_flight=["r1", "r2"])
        before = await sequences(js)
        result = await run("desk", "--dry-run")
        assert await sequences(js) == before
    assert result.exit_code == 0, result.stderr
    assert "halt desk for real after 2 s, for 2 to 5 s" in result.stdout
    assert "1 instance will be halted FOR REAL, with 2 runs in flight now" in result.stdout
    assert "pod-1: armed, 2 runs in flight" in result.stdout
    assert "The next drill that begins by itself: " in result.stdout
    assert "Nothing was written." in result.stdout


async def test_a_dry_run_of_what_would_be_refused_exits_1_with_one_line(js, board, run: Run) -> None:
    await board.halt_agent("desk", reason="wrong refunds", by="bob")
    before = await sequences(js)
    result = await run("desk", "--dry-run")
    assert await sequences(js) == before
    assert result.exit_code == 1
    assert result.stderr == (
        "midwatch: agent.desk is halted already by bob (wrong refunds): a drill needs a running agent; lift it with "
        "`midwatch resume desk` if that is right.\n"
    )


# Afterwards


def result_of(drill_id: str, **more: Any) -> SwitchDrilled:
    known = {"agent": "desk", "by": "kill-switch (scheduled)", "started_at": LONG_AGO, "passed": True, "tickets": 9}
    return SwitchDrilled(drill_id=drill_id, **(known | {"scheduled": True} | more))


async def test_a_scheduled_drill_is_signed_off_once(js, board, run: Run) -> None:
    await drill.publish(js, result_of("drill-1"), "result")
    (before,) = rows(await run("desk", "--history", "--json"))
    result = await run("desk", "--sign-off", "drill-1", "--by", "ann")
    (after,) = rows(await run("desk", "--history", "--json"))
    again = await run("desk", "--sign-off", "drill-1", "--by", "bob")
    assert (before.get("signed_off_by"), result.exit_code, after["signed_off_by"]) == (None, 0, "ann")
    assert (again.exit_code, again.stderr) == (1, "midwatch: drill-1 is signed off already by ann\n")


async def test_a_drill_that_never_was_cannot_be_signed_off(js, board, run: Run) -> None:
    result = await run("desk", "--sign-off", "drill-9")
    assert result.exit_code == 1
    assert "desk has no drill drill-9" in result.stderr


async def test_the_history_is_of_one_agent_the_newest_first(js, board, run: Run) -> None:
    await drill.publish(js, result_of("drill-1", by="\x1b[31mann", failures=["it was late"], passed=False), "result")
    await drill.publish(js, result_of("drill-2", started_at=datetime.now(UTC)), "result")
    await drill.publish(js, result_of("drill-3", agent="other"), "result")
    found = rows(await run("desk", "--history", "--json"))
    shown = await run("desk", "--history")
    assert [one["drill_id"] for one in found] == ["drill-2", "drill-1"]
    assert "it was late" in shown.stdout
    assert "\x1b" not in shown.stdout


@pytest.mark.parametrize("arguments", [["a.b"], ["desk", "--dry-run", "--history"], ["desk", "--expires", "2"]])
async def test_what_makes_no_sense_is_a_usage_error(run: Run, arguments) -> None:
    assert (await run(*arguments)).exit_code == 2


def rows(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]
