"""The console as `midwatch up` and `midwatch run console` start it."""

import asyncio
import contextlib
import os
import re
import socket
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import nats
import pytest
from nats.js import JetStreamContext

from helpers import eventually
from midwatch.runtime import topology
from midwatch.runtime.nats_server import start_nats
from midwatch.runtime.settings import Settings
from stack import free_port

MIDWATCH = (sys.executable, "-m", "midwatch_services.cli")
_ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/enter\?token=\S+")


@contextlib.asynccontextmanager
async def _started(home: Path, *command: str, **more: str) -> AsyncIterator[asyncio.subprocess.Process]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MIDWATCH_")}
    own = {
        "MIDWATCH_HOME": str(home),
        "MIDWATCH_HTTP_PORT": "0",
        "MIDWATCH_NATS_PORT": "0",
        "MIDWATCH_CONSOLE_PORT": "0",
    }
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*MIDWATCH, *command, env=kept | own | more, stdout=pipe, stderr=pipe)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(30):
        while line := (await process.stdout.readline()).decode():
            if found := _ADDRESS.search(line):
                return found[0]
    pytest.fail("no address was printed")


async def test_up_prints_an_address_that_signs_in_and_link_makes_another(tmp_path: Path) -> None:
    async with _started(tmp_path, "up") as process:
        printed = await _address(process)
        assert process.stdout is not None
        async with asyncio.timeout(10):
            said_once = (await process.stdout.readuntil(b"midwatch console link")).decode()
            assert "signs one person in, once, within 15 minutes" in said_once
            assert f"kill {process.pid}" in (await process.stdout.readuntil(b"ends everything")).decode()
        async with _started(tmp_path, "console", "link", "--role", "viewer", "--by", "vera") as command:
            second = (await command.communicate())[0].decode().strip()
        for address, said in ((printed, "Admin: may do everything"), (second, "Viewer: may look")):
            async with httpx.AsyncClient(follow_redirects=True, timeout=10) as client:
                page = await client.get(address)
                assert page.status_code == 200
                assert said in page.text
                assert "Nothing has run here yet" in page.text
        assert stat.S_IMODE((tmp_path / "console.key").stat().st_mode) == 0o600
        process.terminate()
        assert await process.wait() == 0
    assert not (tmp_path / "console.json").exists()


async def test_the_steps_for_a_newcomer_work_as_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    async with _started(home, "up") as process, httpx.AsyncClient(follow_redirects=True, timeout=10) as client:
        entered = await client.get(await _address(process))
        (tmp_path / "examples").symlink_to(Path(__file__).parents[2] / "examples")
        monkeypatch.setenv("MIDWATCH_HOME", str(home))
        monkeypatch.chdir(tmp_path)
        for command in re.findall(r'<code class="command">([^<]+)</code>', entered.text.split('<ol class="first">')[1])[
            :3
        ]:
            program, *words = command.split()
            start = MIDWATCH if program == "midwatch" else (sys.executable,)
            step = await asyncio.create_subprocess_exec(*start, *words)
            assert await step.wait() == 0, command
        await eventually(lambda: _has_run(client, entered.url))


async def _has_run(client: httpx.AsyncClient, first: httpx.URL) -> bool:
    assert "T-1042" in (await client.get(first.join("/runs"))).text
    return "Nothing has run here yet" not in (await client.get(first)).text


async def test_the_container_of_the_console_prints_its_address_too(
    js: JetStreamContext, settings: Settings, tmp_path: Path
) -> None:
    url = str(settings.nats_url)
    async with _started(tmp_path / "c", "run", "console", NATS_URL=url) as process, httpx.AsyncClient() as client:
        assert (await client.get(await _address(process))).status_code == 303


async def test_a_console_without_nats_says_so_at_its_address_and_opens_once_it_is_there(tmp_path: Path) -> None:
    bus, port = free_port(), free_port()
    url, more = f"http://127.0.0.1:{port}/stop", {"MIDWATCH_CONSOLE_PORT": str(port)}
    async with (
        _started(tmp_path / "c", "run", "console", NATS_URL=f"nats://127.0.0.1:{bus}", **more) as process,
        httpx.AsyncClient(timeout=10) as client,
    ):

        async def asked() -> httpx.Response | None:
            try:
                return await client.get(url)
            except httpx.TransportError:
                return None

        page = await eventually(asked)
        assert page.status_code == 503
        assert page.headers["retry-after"] == "5"
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert "<h1>The console waits for the bus</h1>" in page.text
        assert "fall back by themselves once their lease has run out" in page.text
        async with await start_nats(tmp_path / "nats", port=bus) as server:
            nc = await nats.connect(server.url)
            await topology.apply(nc.jetstream(), Settings(home=tmp_path / "c"))
            await nc.close()
            await _address(process)
            page = await asked()
            assert page is not None
            assert (page.status_code, page.headers["location"]) == (303, "/sign-in?next=%2Fstop")


@pytest.mark.parametrize("command", [["up"], ["run", "console"]])
async def test_a_port_that_is_taken_ends_the_command_with_one_line(
    js: JetStreamContext, settings: Settings, tmp_path: Path, command: list[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        more = {"NATS_URL": str(settings.nats_url), "MIDWATCH_CONSOLE_PORT": port, "MIDWATCH_LOG_LEVEL": "ERROR"}
        async with _started(tmp_path / "c", *command, **more) as process:
            async with asyncio.timeout(30):
                _, err = await process.communicate()
    assert process.returncode == 1
    assert err.decode().splitlines()[-1] == (
        f"midwatch: Port {port} on 127.0.0.1, for the console, is taken: stop what uses it, or choose another with "
        "MIDWATCH_CONSOLE_PORT (0 picks a free one)."
    )
    assert "Traceback" not in err.decode()
