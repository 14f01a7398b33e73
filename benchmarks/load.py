"""Load for the benchmarks: runs of 2 KB events as an agent publishes them, and atomic batches to publish them in."""

import asyncio
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import nats
from nats.aio.client import Client

from midwatch.contracts import codec, runs, subjects
from midwatch.contracts.envelope import new_id, utc_now

QUICK = bool(os.environ.get("MIDWATCH_BENCH_QUICK"))
SIZE = 2048  # bytes of an event's body
EVENTS_A_RUN = 20


class Message(NamedTuple):
    """One event as it goes onto the wire."""

    subject: str
    id: str
    body: bytes


def _steps(common: dict[str, Any], number: int) -> Iterator[tuple[str, runs.RunData]]:
    yield "started", runs.Started(**common, seq=0, input=f"Where is order {number}?", channel="chat")
    yield "said", runs.Said(**common, seq=1, by="customer", text=f"Where is order {number}?")
    usage = runs.Usage(input_tokens=900, output_tokens=60, cache_read_tokens=512)
    for seq in range(2, EVENTS_A_RUN - 2, 2):
        yield (
            "model_called",
            runs.ModelCalled(
                **common, seq=seq, provider="openai", model="gpt-4o-mini", usage=usage, latency_ms=640.0, output="…"
            ),
        )
        yield "tool_called", runs.ToolCalled(
            **common, seq=seq + 1, tool="lookup_order", kind="read", arguments={"order": number, "page": seq},
            result={"page": seq, "text": ""}, latency_ms=20.0,
        )  # fmt: skip
    yield "said", runs.Said(**common, seq=EVENTS_A_RUN - 2, by="agent", text="It arrives on Friday.")
    yield (
        "finished",
        runs.Finished(**common, seq=EVENTS_A_RUN - 1, resolution="resolved", output="It arrives on Friday."),
    )


def run_events(number: int, agent: str = "bench-desk", size: int = SIZE) -> Iterator[Message]:
    """The events of one run, each padded to `size` bytes by a label."""
    start = utc_now()
    common = {"run_id": f"run-{new_id()}", "agent": agent, "version": "1", "mode": "live", "ticket": f"T-{new_id()}"}
    for event, data in _steps(common, number):
        envelope = codec.envelope(
            "run", event, data, source=f"/agents/{agent}/bench", subject=data.run_id,
            time=start + timedelta(milliseconds=10 * data.seq),
        )  # fmt: skip
        body = codec.encode(envelope)
        if size > len(body) + 20:
            padded = data.__class__(**{**_fields(data), "labels": {"padding": "x" * (size - len(body) - 26)}})
            body = codec.encode(codec.envelope(
                "run", event, padded, source=envelope.source, subject=data.run_id, id=envelope.id, time=envelope.time
            ))  # fmt: skip
        yield Message(subjects.run(agent, event), envelope.id, body)


def _fields(data: runs.RunData) -> dict[str, Any]:
    return {name: getattr(data, name) for name in data.__struct_fields__}


def events(count: int, agent: str = "bench-desk", size: int = SIZE) -> Iterator[Message]:
    """`count` events of as many runs as that takes, the events of 50 runs interleaved as live traffic is."""
    made = 0
    number = 0
    while made < count:
        open_runs = [list(run_events(number + i, agent, size)) for i in range(50)]
        number += 50
        for step in range(EVENTS_A_RUN):
            for one in open_runs:
                if made == count:
                    return
                yield one[step]
                made += 1


async def publish_batch(client: Client, batch: Sequence[Message]) -> None:
    """One atomic batch, at most 1,000 messages of one stream. Raises where the server refuses it."""
    batch_id = new_id()
    for place, message in enumerate(batch, 1):
        headers = {subjects.MSG_ID: message.id, "Nats-Batch-Id": batch_id, "Nats-Batch-Sequence": str(place)}
        if place < len(batch):
            await client.publish(message.subject, message.body, headers=headers)
            continue
        headers["Nats-Batch-Commit"] = "1"
        answer = await client.request(message.subject, message.body, headers=headers, timeout=30)
        if b'"error"' in answer.data:
            raise RuntimeError(answer.data.decode())


async def fill(client: Client, messages: Iterable[Message], size: int = 1_000) -> int:
    """Publishes the messages in atomic batches of `size`; returns how many."""
    batch: list[Message] = []
    count = 0
    for message in messages:
        batch.append(message)
        count += 1
        if len(batch) == size:
            await publish_batch(client, batch)
            batch = []
    if batch:
        await publish_batch(client, batch)
    return count


async def connect(url: str) -> Client:
    """A connection for load; it waits for a server that is just starting."""
    while True:
        try:
            return await nats.connect(url, pending_size=64 * 1024 * 1024)
        except (OSError, nats.errors.Error):
            await asyncio.sleep(0.02)
