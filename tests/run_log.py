"""A run log under load: events to publish, how far it is, and what an undisturbed logger makes of the same stream."""

import asyncio
import itertools
import re
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from nats.aio.client import Client

from helpers import eventually
from logged import envelope
from midwatch.contracts import codec, subjects
from midwatch.contracts.envelope import new_id, utc_now
from midwatch.runtime import topology
from midwatch.runtime.settings import Settings
from stack import Process, Stack

RUN = 8  # events of a run
BATCH = 100  # messages that are published at once
_USAGE = {"input_tokens": 900, "output_tokens": 60, "cache_read_tokens": 512}
_STEPS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("started", {"input": "Where is my order?", "channel": "chat", "customer": "c-1"}),
    ("said", {"by": "customer", "text": "Where is my order? " * 20}),
    ("model_called", {"provider": "openai", "model": "gpt-4o-mini", "usage": _USAGE, "latency_ms": 640.5}),
    ("tool_called", {"tool": "look_up", "kind": "read", "arguments": {"order": 7}, "result": "x" * 600}),
    ("tool_called", {"tool": "refund", "kind": "write", "cost_usd": "0.01", "error": "not found"}),
    ("model_called", {"provider": "nobody", "model": "unheard-of", "usage": _USAGE, "cost_usd": "0.0123"}),
    ("said", {"by": "agent", "text": "It arrives on Friday. " * 20}),
    ("finished", {"resolution": "resolved", "output": "It arrives on Friday."}),
)


class Message(NamedTuple):
    """One event as it goes onto the wire."""

    subject: str
    id: str
    body: bytes


def events(agent: str = "desk") -> Iterator[Message]:
    """Events without end, of ten runs at a time."""
    for first in itertools.count(0, 10):
        for seq, (event, fields) in enumerate(_STEPS):
            for number in range(first, first + 10):
                run_id = f"run-{number}"
                made = envelope(event, run_id=run_id, seq=seq, agent=agent, at=utc_now(), id=new_id(), **fields)
                yield Message(subjects.run(agent, event), made.id, codec.encode(made))


async def publish(client: Client, messages: Sequence[Message]) -> None:
    """All or none of them, acknowledged: an atomic batch."""
    batch = new_id()
    for place, message in enumerate(messages, 1):
        headers = {subjects.MSG_ID: message.id, "Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(place)}
        if place < len(messages):
            await client.publish(message.subject, message.body, headers=headers)
            continue
        headers["Nats-Batch-Commit"] = "1"
        answer = await client.request(message.subject, message.body, headers=headers, timeout=60)
        assert b'"error"' not in answer.data, answer.data


async def fill(client: Client, messages: Iterable[Message], size: int = BATCH) -> int:
    """Publishes the messages in atomic batches; how many."""
    count = 0
    each = iter(messages)
    while batch := list(itertools.islice(each, size)):
        await publish(client, batch)
        count += len(batch)
    return count


class Feed:
    """What `feeding` has published so far."""

    def __init__(self) -> None:
        self.count = 0  # acknowledged by the server
        self.stopped = False

    async def stop(self, task: asyncio.Task[None]) -> None:
        self.stopped = True
        await task


@asynccontextmanager
async def feeding(stack: Stack, rate: float) -> AsyncIterator[Feed]:
    """Publishes `rate` events a second while its block lasts."""
    feed, source = Feed(), events()

    async def work() -> None:
        began = time.monotonic()
        while not feed.stopped:
            await publish(stack.client, list(itertools.islice(source, BATCH)))
            feed.count += BATCH
            await asyncio.sleep(max(0.0, began + feed.count / rate - time.monotonic()))

    task = asyncio.create_task(work())
    try:
        yield feed
    finally:
        await feed.stop(task)


def database_of(stack: Stack) -> str:
    """Address of the logger's database."""
    url = stack.environment.get("MIDWATCH_DATABASE_URL")
    return Settings(home=stack.home, database_url=url).database_for("logger")


def query(url: str, sql: str) -> list[sa.Row[Any]]:
    """The rows that the statement gives."""
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            return list(connection.execute(sa.text(sql)))
    finally:
        engine.dispose()


async def lag(stack: Stack, consumer: str = subjects.LOGGER) -> int:
    """Messages that are not acknowledged yet."""
    info = await stack.client.jetstream().consumer_info(subjects.RUNS, consumer, timeout=10)
    return (info.num_pending or 0) + (info.num_ack_pending or 0)


async def caught_up(stack: Stack, within: float = 120) -> float:
    """Waits until the logger has acknowledged everything; after how many seconds it had."""
    began = time.monotonic()
    await stack.caught_up(subjects.LOGGER, within=within)
    return time.monotonic() - began


async def wait_less(stack: Stack, seconds: float) -> None:
    """Has what a killed logger held come back after `seconds`."""
    js = stack.client.jetstream()
    declared = await js.consumer_info(subjects.RUNS, subjects.LOGGER)
    await js.add_consumer(subjects.RUNS, declared.config.evolve(ack_wait=seconds))


def memory_of(process: Process) -> float:
    """What the process holds in memory now, in MB."""
    for line in Path(f"/proc/{process.child.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no such process")


async def dead(stack: Stack) -> int:
    """How many dead letters there are."""
    return int((await stack.client.jetstream().stream_info(subjects.DEAD)).state.messages)


def runs_of(url: str) -> list[dict[str, Any]]:
    """Every run's whole row."""
    found = query(url, "SELECT * FROM logger_runs ORDER BY agent, run_id")
    return [{name: str(value) for name, value in row._mapping.items()} for row in found]


async def assert_as_undisturbed(stack: Stack, good: int) -> None:
    """`good` events are in the log, each once, and the runs' rows are those that a logger makes which reads the same
    stream from its start and is let alone."""
    url = database_of(stack)
    [counts] = query(
        url, "SELECT count(*), count(DISTINCT id), (SELECT sum(events) FROM logger_runs) FROM logger_events"
    )
    assert tuple(counts) == (good, good, good)
    for process in stack.processes:
        if process.name == subjects.LOGGER:
            await process.kill()
    js = stack.client.jetstream()
    await js.delete_consumer(subjects.RUNS, subjects.LOGGER)
    await topology.apply(js, Settings(home=stack.home, nats_url=stack.nats.url))
    other = f"sqlite:///{stack.home}/undisturbed.db"
    logger = await stack.start(subjects.LOGGER, MIDWATCH_DATABASE_URL=other)
    await stack.caught_up(subjects.LOGGER)
    await logger.kill()
    assert query(other, "SELECT count(*) FROM logger_events")[0][0] == good
    disturbed, alone = runs_of(url), runs_of(other)
    assert len(disturbed) == len(alone) > 0
    assert [pair for pair in zip(disturbed, alone, strict=True) if pair[0] != pair[1]][:1] == []


async def errors_of(process: Process, within: float = 30) -> str:
    """Waits until the logger says that it is not ready; what its /readyz answers."""
    return str(await eventually(lambda: asyncio.to_thread(process.complaint), within=within))


def handled(process: Process) -> int:
    """How many events the process has stored, by its own /metrics."""
    found = re.search(r'^midwatch_\S*handled\S*\{[^}]*consumer="logger"[^}]*\} (\S+)$', process.metrics(), re.MULTILINE)
    return int(float(found[1])) if found else 0
