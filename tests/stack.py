"""A whole Midwatch in separate processes, each of which a test may kill."""

import asyncio
import json
import os
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import AckPolicy, ConsumerConfig

from helpers import all_read, eventually
from midwatch.contracts import subjects
from midwatch.errors import Temporary
from midwatch.runtime import topology
from midwatch.runtime.nats_server import NatsServer, start_nats
from midwatch.runtime.settings import Settings

MIDWATCH = [sys.executable, "-m", "midwatch_services.cli"]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@dataclass
class Process:
    """One service in a process of its own."""

    name: str
    child: asyncio.subprocess.Process
    port: int

    async def ready(self, *, may_die: bool = False) -> None:
        def answers() -> bool:
            if may_die and self.child.returncode == 137:
                return True
            assert self.child.returncode is None, f"{self.name} ended with {self.child.returncode}"
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=1) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        await eventually(lambda: asyncio.to_thread(answers), within=30)

    def complaint(self) -> str:
        """What /readyz says is wrong; nothing where all is well, or where nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=10):
                return ""
        except urllib.error.HTTPError as error:
            with error:
                return str(error.read().decode())
        except OSError:
            assert self.child.returncode is None, f"{self.name} ended with {self.child.returncode}"
            return ""

    def metrics(self) -> str:
        """What /metrics says."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    async def kill(self) -> None:
        """SIGKILL: nothing is flushed, nothing is said."""
        if self.child.returncode is None:
            self.child.send_signal(signal.SIGKILL)
            await self.child.wait()


@dataclass
class Stack:
    """NATS and as many services as a test starts."""

    home: Path
    nats: NatsServer
    client: Client
    environment: dict[str, str]
    processes: list[Process] = field(default_factory=list)

    async def spawn(self, *arguments: str, **environment: str) -> asyncio.subprocess.Process:
        """A `midwatch` command in the background; its output is in `home`."""
        log = (self.home / f"{arguments[0]}-{arguments[1] if len(arguments) > 1 else ''}.log".replace("/", "_")).open(
            "ab"
        )
        with log:
            return await asyncio.create_subprocess_exec(
                *MIDWATCH, *arguments, env={**self.environment, **environment}, cwd=self.home, stdout=log, stderr=log
            )

    async def start(self, service: str, **environment: str) -> Process:
        """A service that is ready, or has died before that where MIDWATCH_FAULT says so."""
        port = free_port()
        child = await self.spawn("run", service, MIDWATCH_HTTP_PORT=str(port), **environment)
        process = Process(service, child, port)
        self.processes.append(process)
        await process.ready(may_die="MIDWATCH_FAULT" in environment)
        return process

    async def run(self, *arguments: str, expect: int = 0, **environment: str) -> list[dict[str, Any]]:
        """A `midwatch` command to its end; what it prints as JSON lines."""
        code, lines, errors = await self.attempt(*arguments, **environment)
        assert code == expect, f"{arguments} ended with {code}: {errors}"
        return lines

    async def attempt(self, *arguments: str, **environment: str) -> tuple[int, list[dict[str, Any]], str]:
        """The same, however it ends: its exit code, its JSON lines, and what it says to people."""
        child = await asyncio.create_subprocess_exec(
            *MIDWATCH, *arguments, env={**self.environment, **environment}, cwd=self.home,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await child.communicate()
        lines = [json.loads(line) for line in out.splitlines() if line.startswith(b"{")]
        return child.returncode or 0, lines, err.decode()

    async def caught_up(self, *consumers: str, within: float = 120) -> None:
        """Waits until the consumers have acknowledged all that the stream holds."""
        js = self.client.jetstream()

        async def done() -> bool:
            return all([await all_read(js, subjects.RUNS, name) for name in consumers])

        async def patiently() -> bool:
            try:
                return await done()
            except (NatsTimeout, nats.errors.Error, Temporary):
                return False

        await eventually(patiently, within=within)

    async def spoken(self, event: str, noun: str = "switch", agent: str = "desk") -> list[dict[str, Any]]:
        """What the services said, oldest first: the data of each such event."""
        some = await self.messages(subjects.GOVERNANCE, f"midwatch.{noun}.{agent}.{event}")
        return [json.loads(body)["data"] for _, body in some]

    async def messages(self, stream: str = subjects.RUNS, subject: str = ">") -> list[tuple[str, bytes]]:
        """Every message of a stream, read by a consumer of its own."""
        js = self.client.jetstream()
        config = ConsumerConfig(ack_policy=AckPolicy.NONE, filter_subject=subject, mem_storage=True)
        reader = await js.pull_subscribe(subject, stream=stream, config=config)
        total = (await reader.consumer_info()).num_pending
        found: list[tuple[str, bytes]] = []
        while total and len(found) < total:
            found += [(message.subject, message.data) for message in await reader.fetch(500, timeout=5)]
        await reader.unsubscribe()
        return found


@asynccontextmanager
async def running(folder: Path, database_url: str | None = None) -> AsyncIterator[Stack]:
    """NATS with everything declared, and no service yet; all of it is gone afterwards."""
    home = folder / "home"
    home.mkdir(exist_ok=True)

    async def quiet(_: Exception) -> None:
        """The server is killed on purpose."""

    async with await start_nats(folder / "nats") as server:
        client = await nats.connect(server.url, max_reconnect_attempts=-1, reconnect_time_wait=0.05, error_cb=quiet)
        await topology.apply(client.jetstream(), Settings(home=home, nats_url=server.url))
        environment = {
            **os.environ, "MIDWATCH_HOME": str(home), "NATS_URL": server.url, "MIDWATCH_HTTP_PORT": "0",
            "MIDWATCH_CONSOLE_PORT": "0",
        }  # fmt: skip
        if database_url:
            environment["MIDWATCH_DATABASE_URL"] = database_url
        whole = Stack(home, server, client, environment)
        try:
            yield whole
        finally:
            for process in whole.processes:
                await process.kill()
            await client.close()
