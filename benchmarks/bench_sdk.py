"""What recording an event costs the agent, beside OpenTelemetry, and how fast the spool reaches the server.

`python benchmarks/bench_sdk.py [--json] [--events N]`. Both kinds of recording are measured in turns of 500 events of
about 2 KB, in one thread, with nothing else in the process; the server runs at `sync_interval: always`.
"""

import argparse
import asyncio
import gc
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from load import QUICK, connect, fill, run_events
from nats.aio.client import Client
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from midwatch.contracts import codec, runs, subjects
from midwatch.flush import Flusher
from midwatch.runtime import topology
from midwatch.runtime.nats_server import start_nats
from midwatch.runtime.settings import Settings
from midwatch.spool import Spool

TURN = 500  # events
PACE = 0.001  # seconds between events where the flusher sends at the same time
ARGUMENTS = '{"order_id":"A-1001","fields":["items","total","address","events"]}'
RESULT = "x" * 1_500
Record = Callable[[int], object]


def midwatch_recorder(spool: Spool) -> Record:
    """Records a tool call as a run does: struct, envelope, JSON, append."""

    def record(seq: int) -> None:
        data = runs.ToolCalled(
            run_id="run-8c1f", agent="bench-desk", version="2026-11-22", mode="live", seq=seq, ticket="T-1042",
            call_id="call-1", tool="lookup_order", kind="read", arguments=ARGUMENTS, result=RESULT, latency_ms=20.5,
        )  # fmt: skip
        envelope = codec.envelope("run", "tool_called", data, source="/agents/bench-desk/pod-7", subject="run-8c1f")
        spool.append(subjects.run("bench-desk", "tool_called"), envelope.id, None, codec.encode(envelope))

    return record


def opentelemetry_recorder(provider: TracerProvider) -> Record:
    """Records the same as a span with the same values as attributes."""
    tracer = provider.get_tracer("bench")

    def record(seq: int) -> None:
        attributes: dict[str, str | int | float] = {
            "run_id": "run-8c1f", "agent": "bench-desk", "version": "2026-11-22", "mode": "live", "seq": seq,
            "ticket": "T-1042", "call_id": "call-1", "tool": "lookup_order", "kind": "read", "arguments": ARGUMENTS,
            "result": RESULT, "latency_ms": 20.5,
        }  # fmt: skip
        tracer.start_span("tool_called", attributes=attributes).end()

    return record


def turn(record: Record, first: int, count: int, pace: float = 0.0) -> list[float]:
    """Microseconds of each of `count` events."""
    took = []
    for seq in range(first, first + count):
        began = time.perf_counter_ns()
        record(seq)
        took.append((time.perf_counter_ns() - began) / 1000)
        if pace:
            time.sleep(pace)
    return took


def recording(folder: Path, count: int) -> list[dict[str, Any]]:
    """Median and 99th percentile of both, in turns."""
    spool = Spool.open(folder, "bench")
    provider = opentelemetry(count)
    ours, theirs = midwatch_recorder(spool), opentelemetry_recorder(provider)
    for warm in (ours, theirs):
        turn(warm, 0, TURN)
    gc.collect()
    took: tuple[list[float], list[float]] = ([], [])
    for first in range(0, count, TURN):
        took[0].extend(turn(ours, first, TURN))
        took[1].extend(turn(theirs, first, TURN))
    if spool.error or spool.pending != count + TURN:
        sys.exit(f"the spool did not take the events: {spool.error}")
    provider.shutdown()
    rows = []
    for name, place, target in (("median", 50, "< 30"), ("99th percentile", 99, "")):
        value, peer = (statistics.quantiles(of, n=100)[place - 1] for of in took)
        rows.append(beside_opentelemetry(f"recording an event, on disk when it returns, {name}", value, peer, target))
    return rows


def recording_while_sending(folder: Path, url: str, count: int) -> list[dict[str, Any]]:
    """The same as an agent does it, an event each millisecond with cold caches, while a flusher in a thread of its own
    sends each at once, as `midwatch.connect` has it; beside OpenTelemetry at the same pace."""
    spool = Spool.open(folder, "sending")
    ready, over = threading.Event(), threading.Event()

    async def send() -> None:
        client = await connect(url)
        async with flushing(client, spool) as flusher:
            ready.set()
            await asyncio.to_thread(over.wait)
            await flusher.drain(30)
        await client.close()

    thread = threading.Thread(target=lambda: asyncio.run(send()))
    thread.start()
    ready.wait()
    ours = turn(midwatch_recorder(spool), 0, count, PACE)
    over.set()
    thread.join()
    if spool.pending:
        sys.exit(f"{spool.pending} events were not sent")
    spool.close()
    provider = opentelemetry(count)
    theirs = turn(opentelemetry_recorder(provider), 0, count, PACE)
    provider.shutdown()
    name = "recording an event each millisecond while the flusher sends, median"
    return [beside_opentelemetry(name, statistics.median(ours), statistics.median(theirs), "")]


def opentelemetry(count: int) -> TracerProvider:
    """OpenTelemetry as it is commonly set up, with room enough to drop nothing."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(InMemorySpanExporter(), max_queue_size=max(2 * count, 2048)))
    return provider


def beside_opentelemetry(name: str, value: float, peer: float, target: str) -> dict[str, Any]:
    """A row in microseconds."""
    return {
        "name": name, "value": value, "unit": "µs", "target": target,
        "peer": "OpenTelemetry BatchSpanProcessor, in memory, µs", "peer_value": peer, "ratio": value / peer,
    }  # fmt: skip


@asynccontextmanager
async def flushing(client: Client, spool: Spool) -> AsyncIterator[Flusher]:
    """A flusher that runs inside the block."""
    flusher = Flusher(client, spool)
    task = asyncio.create_task(flusher.run())
    try:
        yield flusher
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def flush(folder: Path, client: Client, count: int) -> list[dict[str, Any]]:
    """A backlog goes to the server, then the same ids once more; beside batches from memory and one by one."""
    js = client.jetstream()
    messages = [message for number in range(count // 20 + 1) for message in run_events(number)][:count]
    spool = Spool.open(folder, "backlog")
    fresh = await drained(client, spool, messages)
    known = await drained(client, spool, messages)
    if (stored := (await js.stream_info(subjects.RUNS)).state.messages) != count:
        sys.exit(f"{stored} events are stored, not {count}")
    spool.close()

    others = [message for number in range(count // 20 + 1) for message in run_events(number)][:count]
    began = time.perf_counter()
    await fill(client, others)
    limit = count / (time.perf_counter() - began)

    few = [message for number in range(25) for message in run_events(number)]
    began = time.perf_counter()
    for message in few:
        await js.publish(message.subject, message.body, headers={subjects.MSG_ID: message.id})
    alone = len(few) / (time.perf_counter() - began)

    row = {"name": f"flush of {count:,} spooled events", "value": fresh, "unit": "events/s", "target": "≥ 20,000"}
    again = {"name": f"flush of {count:,} events that the server knows", "value": known, "unit": "events/s"}
    return [
        {**row, "peer": "one publish after the other, events/s", "peer_value": alone, "ratio": fresh / alone},
        {**row, "target": "", "peer": "batches from memory, events/s", "peer_value": limit, "ratio": fresh / limit},
        {**again, "target": "", "peer": "one publish after the other, events/s", "peer_value": alone,
         "ratio": known / alone},
    ]  # fmt: skip


async def drained(client: Client, spool: Spool, messages: list[Any]) -> float:
    """Events a second from a full spool to the last acknowledgement."""
    for message in messages:
        spool.append(message.subject, message.id, None, message.body)
    began = time.perf_counter()
    async with flushing(client, spool) as flusher:
        if not await flusher.drain(120):
            sys.exit(f"the spool was not emptied: {flusher.error}")
        return len(messages) / (time.perf_counter() - began)


async def measure(count: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = recording(folder / "recording", count)
        async with await start_nats(folder / "nats", sync_interval="always") as server:
            client = await connect(server.url)
            js = client.jetstream()
            await topology.apply(js, Settings(home=folder, nats_url=server.url))
            paced = folder / "paced"
            rows += await asyncio.to_thread(recording_while_sending, paced, server.url, count // 10)
            await js.purge_stream(subjects.RUNS)
            rows += await flush(folder / "backlog", client, count)
            await client.close()
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--events", type=int, default=2_000 if QUICK else 20_000, metavar="N")
    options = parser.parse_args()
    for row in asyncio.run(measure(options.events)):
        print(json.dumps(row) if options.json else row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
