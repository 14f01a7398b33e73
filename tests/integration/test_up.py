"""`midwatch up` as a process: what it writes, whom it refuses, how it ends, and what it survives."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import nats
import pytest

from helpers import eventually
from midwatch.runtime.nats_server import NatsServer

SERVICES = {"logger", "cost-watchdog", "reviewer-sampler", "kill-switch", "pager", "drift", "digest", "console"}
MIDWATCH = (sys.executable, "-m", "midwatch_services.cli")


def _environment(home: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MIDWATCH_")}
    return {
        **kept,
        "MIDWATCH_HOME": str(home),
        "MIDWATCH_HTTP_PORT": "0",
        "MIDWATCH_NATS_PORT": "0",
        "MIDWATCH_CONSOLE_PORT": "0",
        **more,
    }


async def _midwatch(home: Path, *arguments: str, **more: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *MIDWATCH, *arguments, env=_environment(home, **more), stdout=pipe, stderr=pipe
    )


async def _ended(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@contextlib.asynccontextmanager
async def _up(home: Path, **more: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, Any]]]:
    """`midwatch up` once everything runs, with what it wrote to run.json."""
    process = await _midwatch(home, "up", **more)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            while (line := await process.stdout.readline()) and b"Midwatch is up" not in line:
                pass
        assert line, (await _ended(process))[2]
        yield process, json.loads((home / "run.json").read_bytes())
    finally:
        if process.returncode is None:
            process.terminate()
        await _ended(process)


async def test_everything_runs_and_says_where_until_a_signal_ends_it(tmp_path: Path) -> None:
    home = tmp_path / "state"
    async with _up(home) as (process, run):
        assert run["pid"] == process.pid
        assert set(run["http"]) == SERVICES
        async with httpx.AsyncClient() as client:
            for url in run["http"].values():
                assert (await client.get(f"{url}/readyz")).status_code == 200
        second = await _ended(await _midwatch(home, "up"))
        assert (second[0], second[1]) == (1, "")
        assert f"Midwatch is up already in {home} (pid {process.pid})" in second[2]
        assert second[2].count("\n") == 1
        doctor = await _ended(await _midwatch(home, "doctor"))
        assert doctor[0] == 0, doctor[1]
        process.send_signal(signal.SIGTERM)
        code, _, err = await _ended(process)
    assert code == 0
    assert "Traceback" not in err
    assert not (home / "run.json").exists()


async def test_a_killed_server_is_started_again_with_what_it_kept(tmp_path: Path) -> None:
    home = tmp_path / "state"
    async with _up(home) as (_, run):
        client = await nats.connect(
            run["nats_url"], max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=_quiet
        )
        js = client.jetstream()
        await js.publish("midwatch.alert.a.raised", b"{}")
        os.kill(int((home / "nats" / "nats.pid").read_text()), signal.SIGKILL)
        await eventually(lambda: not client.is_connected)
        await eventually(lambda: client.is_connected, within=20)
        assert (await js.get_last_msg("MIDWATCH_GOVERNANCE", "midwatch.alert.a.raised")).data == b"{}"
        async with httpx.AsyncClient() as http:

            async def ready() -> bool:
                return (await http.get(f"{run['http']['logger']}/readyz")).status_code == 200

            await eventually(ready, within=20)
        await client.close()


async def _quiet(_: Exception) -> None:
    """The server is killed on purpose."""


async def test_after_a_kill_of_all_of_it_up_starts_again_in_the_same_folder(tmp_path: Path) -> None:
    home = tmp_path / "state"
    async with _up(home) as (process, first):
        process.kill()
        await _ended(process)
        assert (home / "run.json").exists()
    async with _up(home) as (process, run):
        assert run["pid"] == process.pid != first["pid"]


async def test_a_server_that_runs_already_is_used_and_left_running(nats_server: NatsServer, tmp_path: Path) -> None:
    home = tmp_path / "state"
    async with _up(home, NATS_URL=nats_server.url) as (_, run):
        assert run["nats_url"] == nats_server.url
        assert not (home / "nats").exists()
    assert nats_server.running


async def test_a_taken_nats_port_is_one_line_that_says_what_to_do(nats_server: NatsServer, tmp_path: Path) -> None:
    code, out, err = await _ended(await _midwatch(tmp_path / "state", "up", "--nats-port", str(nats_server.port)))
    assert (code, out) == (1, "")
    assert err.startswith(f"midwatch: Port {nats_server.port} on 127.0.0.1 is taken")
    assert "MIDWATCH_NATS_PORT" in err
    assert err.count("\n") == 1


async def test_no_nats_without_a_server_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    code, _, err = await _ended(await _midwatch(tmp_path, "up", "--no-nats", NATS_URL="nats://127.0.0.1:1"))
    assert code == 1
    assert err.startswith("midwatch: no NATS server answers at nats://127.0.0.1:1")


@pytest.mark.usefixtures("js")
async def test_one_service_runs_alone_and_ends_on_a_signal(nats_server: NatsServer, tmp_path: Path) -> None:
    process = await _midwatch(tmp_path / "state", "run", "logger", NATS_URL=nats_server.url)
    assert process.stderr is not None
    async with asyncio.timeout(20):
        line = await process.stderr.readline()
    assert json.loads(line)["event"] == "service_runs"
    process.terminate()
    code, _, err = await _ended(process)
    assert code == 0
    assert "Traceback" not in err


async def test_an_unknown_service_names_the_known_ones(tmp_path: Path) -> None:
    code, _, err = await _ended(await _midwatch(tmp_path, "run", "looger"))
    assert code == 1
    assert err == (
        "midwatch: There is no service 'looger': choose one of logger, cost-watchdog, reviewer-sampler, kill-switch, "
        "pager, drift, digest, console.\n"
    )


@pytest.mark.postgres
async def test_everything_runs_on_one_postgresql_database(postgres_url: str, tmp_path: Path) -> None:
    async with _up(tmp_path / "state", MIDWATCH_DATABASE_URL=postgres_url) as (_, run), httpx.AsyncClient() as client:
        for url in run["http"].values():
            assert (await client.get(f"{url}/readyz")).json()["errors"] == {}
    assert not (tmp_path / "state" / "data").exists()
