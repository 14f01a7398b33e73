"""A service's connection to NATS: one FastStream broker, set so that it never gives up and never floods the log."""

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit

import nats
from faststream.nats import NatsBroker
from nats.aio.client import Client
from nats.errors import Error as NatsError

from midwatch.contracts import subjects
from midwatch.errors import MidwatchError, Temporary

from .nats_server import OLDEST

CONNECT_WITHIN = 5  # seconds
PING_EVERY = 2  # seconds; a hung server is noticed after three of them instead of after minutes
RECONNECT_EVERY = 1  # seconds
STOP_WITHIN = 10  # seconds for handlers under way at the end

log = logging.getLogger("midwatch.nats")


class OldNatsServer(MidwatchError):
    """The nats-server at {where} is {version}, too old: Midwatch needs 2.12 or later (atomic batches)."""


def without_credentials(url: str) -> str:
    """The addresses in `url` without user and password, for people to read."""
    parts = (urlsplit(one.strip()) for one in url.split(","))
    return ",".join(f"{part.scheme}://{part.netloc.rpartition('@')[2]}" for part in parts)


@contextlib.asynccontextmanager
async def connection(url: str, *, told: Callable[[Exception], Awaitable[None]] | None = None) -> AsyncIterator[Client]:
    """One connection for a command, which does not wait for a server. `told` hears what the server says unasked, for
    instance that a user may not do something. Raises Temporary, and OldNatsServer."""
    where = without_credentials(url)
    try:
        client = await nats.connect(
            url.split(","), allow_reconnect=False, max_reconnect_attempts=1, reconnect_time_wait=0,
            connect_timeout=CONNECT_WITHIN, error_cb=told or _quiet,
        )  # fmt: skip
    except (OSError, NatsError, TimeoutError) as error:
        why = str(error) or type(error).__name__
        raise Temporary(
            f"no NATS server answers at {where} ({why}): start one with `midwatch up`, or set NATS_URL"
        ) from error
    try:
        version = client.connected_server_version
        if (version.major, version.minor) < OLDEST:
            raise OldNatsServer(where=where, version=f"{version.major}.{version.minor}.{version.patch}")
        yield client
    finally:
        await client.close()


def make_broker(url: str, service: str) -> NatsBroker:
    """A broker that is not connected yet. Its subscribers must not declare streams."""

    async def failed(error: Exception) -> None:
        # A denied publish or subscription shows nowhere else.
        if "permissions violation" in str(error).lower() or "authorization" in str(error).lower():
            log.error("%s: the NATS server refuses: %s", service, error)

    return NatsBroker(
        url.split(","),
        name=f"midwatch-{service}",
        max_reconnect_attempts=-1,
        reconnect_time_wait=RECONNECT_EVERY,
        ping_interval=PING_EVERY,
        connect_timeout=CONNECT_WITHIN,
        drain_timeout=STOP_WITHIN,
        graceful_timeout=STOP_WITHIN,
        error_cb=failed,
        logger=_faststream_log(),
    )


def _faststream_log() -> logging.Logger:
    logger = logging.getLogger("midwatch.faststream")
    logger.setLevel(logging.WARNING)  # not a line for each message
    if not logger.filters:
        # The service says once that the connection is lost; FastStream would with a traceback at every attempt.
        logger.addFilter(lambda record: not record.getMessage().startswith("Connection broken"))
    return logger


async def round_trip(nc: Client, within: float) -> None:
    """Waits for an answer of the server, which comes after all that it had sent before. Raises NatsError, among them
    its TimeoutError. Not by `nc.flush`: an answer that comes after that gave up ends nats-py's reader, and the client
    is deaf until it connects anew."""
    await nc.request(f"$JS.API.STREAM.INFO.{subjects.PRESENCE}", timeout=within)


async def _quiet(_: Exception) -> None:
    """The error is raised as well."""
