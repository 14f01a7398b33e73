"""What the commands that need NATS alone share: who asks, a connection that gives up at once, and what is said then."""

import asyncio
import getpass
import socket
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import typer

from .output import FAILED

if TYPE_CHECKING:
    from nats.aio.client import Client

CONNECT = 3  # seconds


def user() -> str:
    """Who asks, where `--by` does not say."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        name = "unknown"
    return f"{name}@{socket.gethostname()}"


def run(work: Coroutine[Any, Any, int]) -> None:
    """Runs a command to its exit code."""
    code = asyncio.run(work)
    if code:
        raise typer.Exit(code)


@asynccontextmanager
async def connected(url: str, inbox: str = "_INBOX") -> AsyncIterator["Client"]:
    """A connection that never comes back once it is gone. `inbox`: where the role's rights let answers come in."""
    import nats

    async def quiet(_: Exception) -> None:
        """What matters is raised as well."""

    nc = await nats.connect(
        url.split(","), allow_reconnect=False, max_reconnect_attempts=1, reconnect_time_wait=0,
        connect_timeout=CONNECT, error_cb=quiet, inbox_prefix=inbox,
    )  # fmt: skip
    try:
        yield nc
    finally:
        await nc.close()


def unreached(error: Exception, url: str, nothing_happened: str) -> int:
    """Says that NATS does not answer and what that means; returns the exit code."""
    from midwatch.runtime.broker import without_credentials

    why = str(error) or type(error).__name__
    sys.stderr.write(f"midwatch: NATS at {without_credentials(url)} does not answer ({why}). {nothing_happened}\n")
    return FAILED
