"""A real server with the configuration that we ship, and connections to it in each of its roles."""

import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from helpers import eventually
from midwatch.contracts import subjects
from midwatch.runtime import topology
from midwatch.runtime.nats_server import find_binary
from midwatch.runtime.settings import Settings

CONFIG = Path(__file__).resolve().parents[1] / "deploy" / "nats" / "nats.conf"
ROLES = {
    "admin": "ADMIN",
    "operator": "OPERATOR",
    "services": "SERVICES",
    "reviewer": "REVIEWER",
    "help-desk": "HELP_DESK",
    "drill": "DRILL",
    "refund-desk": "AGENT",
}
AGENT = "refund-desk"
Connect = Callable[..., AbstractAsyncContextManager["Role"]]


class Role:
    """A connection of one role, which keeps what the server denied it."""

    def __init__(self) -> None:
        self.nc: Client
        self.denied: list[str] = []

    async def keep(self, error: Exception) -> None:
        self.denied.append(str(error).lower())

    async def may_publish(self, subject: str) -> bool:
        """Whether the server took a message of this role on `subject`."""
        await self.nc.publish(subject, b"{}")
        return await self._granted(subject)

    async def may_subscribe(self, subject: str) -> bool:
        """Whether the server took a subscription of this role to `subject`."""
        await self.nc.subscribe(subject)
        return await self._granted(subject)

    async def _granted(self, subject: str) -> bool:
        # The server answers in order; a first ping may go out ahead of what is still to be sent, a second cannot.
        await self.nc.flush()
        await self.nc.flush()
        refused = [line for line in self.denied if f'"{subject.lower()}"' in line]
        self.denied.clear()
        return not refused

    async def request(self, subject: str, body: bytes = b"") -> bytes:
        return (await self.nc.request(subject, body, timeout=2)).data


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[str]:
    """Host and port of a server with the shipped configuration; only its addresses and its folder are the test's."""
    passwords = {f"MIDWATCH_{role}_PASSWORD": f"pw-{role.lower()}" for role in ROLES.values()}
    ports = tmp_path / "ports"
    ports.mkdir()
    command = [find_binary(), "-c", CONFIG, "-a", "127.0.0.1", "-p", "-1", "-m", "-1", "-sd", tmp_path / "store"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--ports_file_dir", ports], env={**os.environ, **passwords}, stdout=log, stderr=log
        )
    try:
        yield await eventually(lambda: address_in(ports))
    finally:
        process.terminate()
        process.wait(10)


def address_in(ports: Path) -> str | None:
    for file in ports.iterdir():
        if text := file.read_text():
            return str(json.loads(text)["nats"][0]).removeprefix("nats://")
    return None


@pytest.fixture
async def connect(server: str) -> Connect:
    @asynccontextmanager
    async def connect(user: str) -> AsyncIterator[Role]:
        role = Role()
        url = f"nats://{user}:pw-{ROLES[user].lower()}@{server}"
        role.nc = await nats.connect(url, error_cb=role.keep, inbox_prefix=f"_INBOX.{user}", allow_reconnect=False)
        try:
            yield role
        finally:
            await role.nc.close()

    return connect


@pytest.fixture
async def declared(connect: Connect) -> None:
    """Every stream, consumer and bucket, made by the admin; the agent's keys written by the operator."""
    async with connect("admin") as admin:
        await topology.apply(admin.nc.jetstream(), Settings())
    async with connect("operator") as operator:
        js = operator.nc.jetstream()
        for bucket, key in KEYS:
            await js.publish(subjects.key_subject(bucket, key), b"{}")


KEYS = [(subjects.SWITCH, key) for key in subjects.switch_keys(AGENT)] + [
    (subjects.AGENTS, AGENT),
    (subjects.ROUTES, AGENT),
]
