"""Three nats-servers that keep every stream three times, each of which a test may kill and start again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import nats
from nats.aio.client import Client
from nats.errors import Error as NatsError

from helpers import eventually
from midwatch.errors import MidwatchError
from midwatch.runtime import topology
from midwatch.runtime.nats_server import NatsServer, start_nats
from midwatch.runtime.settings import Settings
from stack import free_port

NODES = 3


@dataclass
class Cluster:
    """The nodes, and a connection that finds its way to any that lives."""

    nodes: list[NatsServer]
    client: Client

    @property
    def url(self) -> str:
        return ",".join(node.url for node in self.nodes)

    async def restart(self, nodes: list[NatsServer]) -> None:
        await asyncio.gather(*(node.restart() for node in nodes))


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[Cluster]:
    """A cluster with everything declared three times, synced to disk at each write."""
    ports = [free_port() for _ in range(NODES)]
    routes = ", ".join(f"nats-route://127.0.0.1:{port}" for port in ports)
    async with AsyncExitStack() as all_of_it:

        async def node(number: int) -> NatsServer:
            config = (
                f"server_name: n{number}\n"
                f"cluster {{ name: test, host: 127.0.0.1, port: {ports[number]}, routes: [{routes}] }}\n"
            )
            return await start_nats(folder / f"n{number}", config=config)

        nodes = await asyncio.gather(*(node(number) for number in range(NODES)))
        for one in nodes:
            await all_of_it.enter_async_context(one)

        async def quiet(_: Exception) -> None:
            """Servers are killed on purpose."""

        client = await nats.connect(
            [one.url for one in nodes], max_reconnect_attempts=-1, reconnect_time_wait=0.05, error_cb=quiet
        )
        all_of_it.push_async_callback(client.close)
        settings = Settings(home=folder / "home", nats_url=nodes[0].url, replicas=NODES)

        async def declared() -> bool:
            try:
                changes = await topology.apply(client.jetstream(timeout=2), settings)
            except (NatsError, MidwatchError, TimeoutError):
                return False  # it has no leader yet
            return {change.action for change in changes} == {"unchanged"}

        await eventually(declared, within=30)
        yield Cluster(nodes, client)
