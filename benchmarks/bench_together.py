"""Everything at once: NATS and all services under 2,000 events a second, and how far each service lags behind."""

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from load import QUICK, Message, connect, events, publish_batch
from nats.aio.client import Client
from nats.aio.msg import Msg

from midwatch.contracts import codec, runs, subjects
from midwatch.contracts.envelope import new_id

RATE = 2_000  # events a second
SECONDS = 3 if QUICK else 20
TICK = 0.02  # seconds between batches
READERS = (subjects.LOGGER, subjects.COST_WATCHDOG, subjects.REVIEWER_SAMPLER, subjects.KILL_SWITCH)


async def load(client: Client) -> float:
    """Publishes at RATE for SECONDS; returns the rate that was reached, in events a second."""
    messages = list(events(RATE * SECONDS))
    size = int(RATE * TICK)
    begin = time.monotonic()
    for place, start in enumerate(range(0, len(messages), size)):
        await asyncio.sleep(max(0.0, begin + place * TICK - time.monotonic()))
        await publish_batch(client, messages[start : start + size])
    return len(messages) / (time.monotonic() - begin)


async def watch_lag(client: Client, samples: dict[str, list[int]]) -> None:
    """How many events each service has not yet acknowledged, ten times a second, until cancelled."""
    js = client.jetstream()
    while True:
        for name in READERS:
            info = await js.consumer_info(subjects.RUNS, name)
            samples[name].append((info.num_pending or 0) + (info.num_ack_pending or 0))
        await asyncio.sleep(0.1)


def runaway(run_id: str) -> list[Message]:
    """A run that spends five dollars at once."""
    data = runs.ModelCalled(
        run_id=run_id, agent="bench-runaway", version="1", mode="live", seq=0, model="gpt-4.1", cost_usd="5"
    )
    envelope = codec.envelope("run", "model_called", data, source="/agents/bench-runaway/1", subject=run_id)
    return [Message(subjects.run("bench-runaway", "model_called"), envelope.id, codec.encode(envelope))]


async def watch_halts(client: Client, latencies: list[float]) -> None:
    """Twice a second a run that is over its budget: milliseconds until its halt is pushed, until cancelled."""
    halted: asyncio.Queue[float] = asyncio.Queue()

    async def pushed(_: Msg) -> None:
        halted.put_nowait(time.perf_counter())

    await client.subscribe(subjects.control(subjects.runs_key("bench-runaway")), cb=pushed)
    js = client.jetstream()
    while True:
        [message] = runaway(f"run-{new_id()}")
        begin = time.perf_counter()
        await js.publish(message.subject, message.body, headers={subjects.MSG_ID: message.id})
        latencies.append((await asyncio.wait_for(halted.get(), 30) - begin) * 1e3)
        await asyncio.sleep(0.5)


async def counted(count: int, latencies: list[float], halts: asyncio.Task[None]) -> None:
    """Waits until so many halts were pushed. Raises what kept them from it."""
    while len(latencies) < count:
        if halts.done():
            await halts
        await asyncio.sleep(0.01)


async def drained(client: Client) -> float:
    """Seconds until every service has acknowledged all there is."""
    js = client.jetstream()
    begin = time.monotonic()
    for name in READERS:
        while True:
            info = await js.consumer_info(subjects.RUNS, name)
            if not info.num_pending and not info.num_ack_pending:
                break
            await asyncio.sleep(0.02)
    return time.monotonic() - begin


async def measure(url: str) -> list[dict[str, Any]]:
    client, other = await connect(url), await connect(url)
    await drained(client)
    samples: dict[str, list[int]] = {name: [] for name in READERS}
    latencies: list[float] = []
    halts = asyncio.create_task(watch_halts(other, latencies))
    await counted(1, latencies, halts)
    latencies.clear()  # that one waited for services that had just begun
    lags = asyncio.create_task(watch_lag(other, samples))
    rate = await load(client)
    await counted(1, latencies, halts)
    for watcher in (lags, halts):
        if watcher.done():
            await watcher
        watcher.cancel()
    rest = await drained(client)
    await client.close()
    await other.close()
    rows: list[dict[str, Any]] = [
        {"name": "everything running: events published", "value": rate, "unit": "events/s", "target": f"{RATE:,}"}
    ]
    for name, lag in samples.items():
        p99 = sorted(lag)[int(0.99 * (len(lag) - 1))]
        row = {"name": f"lag of {name}, p99", "value": p99 / RATE * 1e3, "unit": "ms", "target": "bounded"}
        rows.append({**row, "peer": "events, p50", "peer_value": int(statistics.median(lag)), "ratio": None})
    latencies.sort()
    p99_latency = latencies[int(0.99 * (len(latencies) - 1))]
    row = {"name": "publish to halt under this load, p99", "value": p99_latency, "unit": "ms", "target": "≤ 50"}
    rows.append({**row, "peer": "p50, ms", "peer_value": statistics.median(latencies), "ratio": None})
    rows.append({"name": "all caught up after the load", "value": rest, "unit": "s", "target": "≤ 1"})
    return rows


def main() -> int:
    with tempfile.TemporaryDirectory() as home:
        environment = {
            **os.environ,
            "MIDWATCH_HOME": home,
            "MIDWATCH_NATS_PORT": "0",
            "MIDWATCH_HTTP_PORT": "0",
            "MIDWATCH_CONSOLE_PORT": "0",
        }
        environment.pop("NATS_URL", None)
        command = [sys.executable, "-m", "midwatch_services.cli", "up"]
        with (Path(home) / "up.log").open("wb") as log:
            up = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            address = Path(home) / "run.json"
            while not address.exists():
                if up.poll() is not None:
                    sys.exit((Path(home) / "up.log").read_text())
                time.sleep(0.05)
            rows = asyncio.run(measure(json.loads(address.read_text())["nats_url"]))
        finally:
            up.send_signal(signal.SIGTERM)
            up.wait(30)
    for row in rows:
        print(json.dumps(row) if "--json" in sys.argv else row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
