"""An HTTP server that lives in the loop of its process: uvicorn, whose signals are left to whoever runs the loop."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

from midwatch.errors import MidwatchError, Misconfigured


class PortTaken(MidwatchError):
    """Port {port} on {host} is taken: stop what uses it, or choose another."""


class CannotListen(Misconfigured):
    """Nothing can listen on port {port} of {host} ({why}): set {named}_HOST to an address of this machine, and
    {named}_PORT to a port that this user may open, such as one above 1023 (0 picks a free one)."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Serving:
    """One ASGI application on one port. `taken` is raised where the port is, with `port` and `host`. `named`: how the
    settings of both begin. `proxies`: the addresses, with commas between, whose word counts for who asks."""

    def __init__(
        self, app: Any, *, host: str, port: int, taken: type[MidwatchError] = PortTaken, named: str = "MIDWATCH_HTTP",
        proxies: str | None = None,
    ) -> None:  # fmt: skip
        self.host, self.port = host, port
        self._app, self._taken, self._named, self._proxies = app, taken, named, proxies
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Its address; known once started."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    async def start(self) -> None:
        """Answers from here on. Raises `taken` or CannotListen."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            listening = socket.create_server((self.host, self.port), family=family)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise self._taken(port=self.port, host=self.host) from None
            why = str(error.strerror or error).partition(" (")[0]  # Python adds the address
            raise CannotListen(port=self.port, host=self.host, why=why, named=self._named) from None
        self.port = listening.getsockname()[1]
        config = uvicorn.Config(
            self._app, interface="asgi3", log_level="warning", log_config=None, access_log=False, lifespan="off",
            ws="none", proxy_headers=bool(self._proxies), forwarded_allow_ips=self._proxies, server_header=False,
            timeout_graceful_shutdown=2,
        )  # fmt: skip
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve([listening]), name=f"http {self.port}")
        while not self._server.started and not self._task.done():  # noqa: ASYNC110, the server has nothing to await
            await asyncio.sleep(0.005)

    async def close(self) -> None:
        """Answers what is asked already, then stops."""
        if self._server and self._task:
            self._server.should_exit = True
            await self._task
