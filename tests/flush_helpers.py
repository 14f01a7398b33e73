"""What the tests of the flusher share."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig

from midwatch.contracts import subjects
from midwatch.flush import Flusher
from midwatch.spool import Record, Spool


def fill(spool: Spool, first: int, last: int, agents: int = 1) -> None:
    """Appends events `first` to `last`, both included, whose body is their number."""
    for number in range(first, last + 1):
        subject = subjects.run(f"agent-{number % agents}", "said")
        assert spool.append(subject, f"id-{number}", None, b"%d" % number)


@asynccontextmanager
async def flushing(
    nc: Client, spool: Spool, *, timeout: float = 2.0, on_refused: Callable[[Record, str], None] | None = None
) -> AsyncIterator[Flusher]:
    """A flusher that runs inside the block."""
    flusher = Flusher(nc, spool, timeout=timeout, on_refused=on_refused)
    task = asyncio.create_task(flusher.run())
    try:
        yield flusher
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def stored(nc: Client) -> list[Msg]:
    """Everything in the stream of run events, in its order."""
    js = nc.jetstream()
    total = (await js.stream_info(subjects.RUNS)).state.messages
    config = ConsumerConfig(ack_policy=AckPolicy.NONE)
    reader = await js.pull_subscribe(">", stream=subjects.RUNS, config=config)
    messages: list[Msg] = []
    while len(messages) < total:
        messages += await reader.fetch(min(1000, total - len(messages)), timeout=5)
    await reader.unsubscribe()
    return messages


async def numbers(nc: Client) -> list[int]:
    """The events of `fill` in the stream, in its order."""
    return [int(message.data) for message in await stored(nc)]
