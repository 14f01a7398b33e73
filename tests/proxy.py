"""A way to a server that can be cut as a network is: nothing is refused, nothing arrives."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

Look = Callable[[bytes], None]


@dataclass
class Proxy:
    """Passes bytes on until it is cut. What is sent meanwhile waits, as in a kernel that retransmits, and arrives once
    the way is restored, if both ends still hold the connection then."""

    target: str
    port: int = 0
    on_request: Look | None = None  # sees what goes to the server, before it is passed on
    on_answer: Look | None = None
    _open: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def cut(self) -> None:
        self._open.clear()

    def restore(self) -> None:
        self._open.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._open.wait()  # not even a greeting arrives
            address = urlsplit(self.target)
            far_reader, far_writer = await asyncio.open_connection(address.hostname, address.port)
            try:
                ways = (
                    self._pass(reader, far_writer, lambda: self.on_request),
                    self._pass(far_reader, writer, lambda: self.on_answer),
                )
                running = {asyncio.create_task(way) for way in ways}
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for one in running:
                    one.cancel()
                await asyncio.gather(*running, return_exceptions=True)
            finally:
                far_writer.close()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, look: Callable[[], Look | None]
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await self._open.wait()
                if see := look():
                    see(data)
                writer.write(data)
                await writer.drain()


@asynccontextmanager
async def proxy(target: str) -> AsyncIterator[Proxy]:
    """A proxy on a free port to the server at `target` (a URL)."""
    found = Proxy(target)
    found.restore()
    server = await asyncio.start_server(found._serve, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        for task in list(found._tasks):
            task.cancel()
        await asyncio.gather(*found._tasks, return_exceptions=True)
