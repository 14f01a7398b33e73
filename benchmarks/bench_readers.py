"""Events per second of reviewer-sampler and kill-switch: each whole service on a stream that was filled beforehand."""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import load
import uvloop
from nats.js import JetStreamContext

from midwatch.contracts import subjects
from midwatch.runtime import telemetry, topology
from midwatch.runtime.nats_server import start_nats
from midwatch.runtime.service import Service, run_services
from midwatch.runtime.settings import Settings
from midwatch_services import registry

TARGET = 5_000  # events a second
EVENTS = 5_000 if load.QUICK else 60_000
BATCH = 500
NAMES = (subjects.REVIEWER_SAMPLER, subjects.KILL_SWITCH)  # each consumer carries the name of its service


async def unhandled(js: JetStreamContext, consumer: str) -> int:
    """Events that the consumer has not acknowledged yet."""
    info = await js.consumer_info(subjects.RUNS, consumer)
    return (info.num_pending or 0) + (info.num_ack_pending or 0)


async def service_rate(service: Service, js: JetStreamContext, settings: Settings) -> float:
    """Events per second from the service's start, its database included, to its last acknowledgement."""
    began = time.perf_counter()
    task = asyncio.create_task(run_services([service], settings, restart=False))
    try:
        while await unhandled(js, service.name):
            if task.done():
                task.result()
            await asyncio.sleep(0.02)
        return EVENTS / (time.perf_counter() - began)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def fetch_rate(js: JetStreamContext) -> float:
    """Events per second of a loop that only fetches and acknowledges: the limit of this run."""
    pull = await js.pull_subscribe("midwatch.run.>", durable="bench-fetch", stream=subjects.RUNS)
    began, count = time.perf_counter(), 0
    while count < EVENTS:
        for message in await pull.fetch(BATCH, timeout=10):
            await message.ack()
            count += 1
    return EVENTS / (time.perf_counter() - began)


async def measure() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="midwatch-bench-") as name:
        folder = Path(name)
        async with await start_nats(folder / "nats") as server:
            settings = Settings(home=folder / "home", nats_url=server.url, http_port=0)
            telemetry.set_up_logs(settings)  # to standard error
            client = await load.connect(server.url)
            js = client.jetstream()
            await topology.apply(js, settings)
            await load.fill(client, load.events(EVENTS))
            rates = {name: await service_rate(registry.load(name), js, settings) for name in NAMES}
            fetch = await fetch_rate(js)
            await client.close()
    return [
        {
            "name": f"{name}, 2 KB events, stream filled beforehand", "value": round(rate), "unit": "events/s",
            "target": TARGET, "peer": "bare fetch and ack", "peer_value": round(fetch), "ratio": round(rate / fetch, 3),
        }
        for name, rate in rates.items()
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    as_json = parser.parse_args().json
    for name in [name for name in os.environ if name.startswith("MIDWATCH_") and name != "MIDWATCH_BENCH_QUICK"]:
        del os.environ[name]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as `midwatch run` does
        rows = runner.run(measure())
    for row in rows:
        text = json.dumps(row) if as_json else "  ".join(f"{key}={value}" for key, value in row.items())
        sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
