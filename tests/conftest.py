"""Fixtures on real things: one nats-server a test, one PostgreSQL cluster a session."""

import asyncio
import gc
import os
import secrets
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import nats
import psycopg
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as examples
from nats.aio.client import Client
from nats.js import JetStreamContext

sys.path.insert(0, str(Path(__file__).parent))  # `from helpers import eventually`

import postgres
from midwatch.runtime import topology
from midwatch.runtime.nats_server import NatsServer, start_nats
from midwatch.runtime.settings import Settings

# A shell without job control starts what runs behind `&` with Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more of the machine than of the code.
examples.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
examples.load_profile("any-machine")

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Modules and collected tests stay: looking through them for garbage takes longer than most tests."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads the settings or the state folder of the machine it runs on."""
    for name in list(os.environ):
        if name.startswith(("MIDWATCH_", "OTEL_")) or name == "NATS_URL":
            monkeypatch.delenv(name)
    monkeypatch.setenv("MIDWATCH_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="session")
def declared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a server keeps on its disk where everything is declared: copied in half the time that declaring takes."""
    folder = tmp_path_factory.mktemp("declared")

    async def declare() -> None:
        async with await start_nats(folder, sync_interval="2m") as server:
            client = await nats.connect(server.url)
            changes = await topology.apply(client.jetstream(), Settings(home=folder, nats_url=server.url))
            assert {change.action for change in changes} == {"created"}
            await client.close()

    asyncio.run(declare())
    return folder / "jetstream"


@pytest.fixture
async def nats_server(
    request: pytest.FixtureRequest, tmp_path: Path, declared_store: Path
) -> AsyncIterator[NatsServer]:
    """A real server on a free port with an empty store, nothing declared on it unless the test asks for `js`."""
    if "js" in request.fixturenames:
        shutil.copytree(declared_store, tmp_path / "nats" / "jetstream")
    # Tests kill servers, not machines: what the system has been given is not lost. Nor need a server end in order.
    async with await start_nats(tmp_path / "nats", sync_interval="2m") as server:
        yield server
        server.kill()


@pytest.fixture
def settings(nats_server: NatsServer, tmp_path: Path) -> Settings:
    """Settings that point to `nats_server`, SQLite in a folder of the test, and free ports."""
    return Settings(home=tmp_path / "home", nats_url=nats_server.url, http_port=0, console_port=0)


async def _quiet(_: Exception) -> None:
    """Tests kill servers: what the client then reports is no finding."""


@pytest.fixture
async def nc(nats_server: NatsServer) -> AsyncIterator[Client]:
    """A connection to `nats_server` that never gives up."""
    client = await nats.connect(
        nats_server.url, max_reconnect_attempts=-1, reconnect_time_wait=0.05, ping_interval=2, error_cb=_quiet
    )
    yield client
    await client.close()


@pytest.fixture
async def js(nc: Client, settings: Settings) -> JetStreamContext:
    """JetStream on `nc`, with every stream, consumer and bucket declared."""
    context: JetStreamContext = nc.jetstream()
    await topology.restore(context, settings)
    return context


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The published runs; a test that needs them is skipped where they are not."""
    if not DATA.is_dir():
        pytest.skip(f"the real runs are not in {DATA}")
    return DATA


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[str]:
    """Address of a PostgreSQL of this test session, without a database's name."""
    try:
        with postgres.cluster(durable=False) as url:
            yield url
    except postgres.NotInstalled as error:
        pytest.skip(str(error))


@pytest.fixture
def postgres_url(postgres_cluster: str) -> Iterator[str]:
    """Address of an empty PostgreSQL database of this test, as `MIDWATCH_DATABASE_URL` takes it."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(f"{postgres_cluster}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        yield f"{postgres_cluster}/{name}"
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
