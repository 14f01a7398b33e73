"""Events a second through cost-watchdog, and the time from a fatal event to its halt.

`python benchmarks/bench_watchdog.py [--json] [--events N] [--samples N]`. The service runs in a process
of its own, on SQLite, the server at `sync_interval: always`. For the rate the stream is filled first.
"""

import argparse
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

from load import QUICK, Message, connect, events, fill
from nats.aio.client import Client
from nats.aio.msg import Msg

from midwatch import testing
from midwatch.contracts import codec, control, runs, subjects
from midwatch.contracts.envelope import new_id
from midwatch.engine import Engine
from midwatch.runtime import topology
from midwatch.runtime.delivery import Received, RunReader
from midwatch.runtime.loop import run_until_signal
from midwatch.runtime.nats_server import start_nats
from midwatch.runtime.service import run_services
from midwatch.runtime.settings import Settings
from midwatch.switch import LocalSwitch
from midwatch_services.cost_watchdog import app

REBUILT = 1_000_000  # events
ALONE = "receive-alone"  # consumer of the reader that does nothing
RUNS_AN_AGENT = 10  # halted runs in one agent's map, so that its size is as in life


async def receive_alone() -> None:
    """The loop with a handler that does nothing: receive, decode, acknowledge."""
    client = await connect(os.environ["NATS_URL"])

    async def nothing(_: list[Received]) -> None:
        return

    consumer = os.environ.get("CONSUMER", ALONE)
    reader: RunReader = RunReader(
        client, client.jetstream(), stream=subjects.RUNS, consumer=consumer, service=ALONE, handle=nothing
    )
    await reader.run()


async def watchdog() -> None:
    """The service as `midwatch run cost-watchdog` runs it."""
    await run_services([app.SERVICE], Settings(), restart=False)


class Part:
    """A part of this file in a process of its own, until the block ends."""

    def __init__(self, name: str, environment: dict[str, str]) -> None:
        command = [sys.executable, __file__, "--part", name]
        self._process = subprocess.Popen(command, env={**os.environ, **environment})

    def __enter__(self) -> "Part":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)

    def check(self) -> None:
        """Ends the benchmark where the process has ended."""
        if self._process.poll() is not None:
            sys.exit(f"a part of the benchmark ended with {self._process.returncode}")


async def consumed(client: Client, consumer: str, count: int, part: Part) -> float:
    """Events a second, from the first delivery to the last acknowledgement."""
    js = client.jetstream()
    begin = 0.0
    while True:
        info = await js.consumer_info(subjects.RUNS, consumer)
        if not begin and info.num_pending != count:
            begin = time.perf_counter()
        if begin and not info.num_pending and not info.num_ack_pending:
            return count / (time.perf_counter() - begin)
        part.check()
        await asyncio.sleep(0.005)


def fatal(agent: str) -> Message:
    """The one event of a run, which spends five dollars of one."""
    run_id = f"run-{new_id()}"
    data = runs.ModelCalled(run_id=run_id, agent=agent, version="1", mode="live", seq=0, model="m", cost_usd="5")
    envelope = codec.envelope("run", "model_called", data, source=f"/agents/{agent}/bench", subject=run_id)
    return Message(subjects.run(agent, "model_called"), envelope.id, codec.encode(envelope))


class Stopped:
    """Stands where a run stands: notes when the switch of its process stops it."""

    draining, moving, awaited = False, True, True

    def __init__(self, switch: LocalSwitch, run_id: str) -> None:
        self.run_id, self._switch = run_id, switch
        self.at: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        switch.enter(self)

    def review(self) -> None:
        """The switch moved."""
        if self._switch.judge(self.run_id) is not None and not self.at.done():
            self.at.set_result(time.perf_counter())

    def abandon(self) -> None:
        """The process ends."""


async def latencies(client: Client, url: str, folder: Path, samples: int) -> tuple[list[float], list[float]]:
    """Milliseconds from publishing a fatal event until its run is stopped in the process that runs it, and until the
    event itself is acknowledged; an event at a time."""
    js, engine = client.jetstream(), Engine(url, home=folder)
    await engine.start()
    to_stop, to_ack, switch = [], [], None
    for number in range(samples + RUNS_AN_AGENT):
        agent = f"bench-{number // RUNS_AN_AGENT}"
        if number % RUNS_AN_AGENT == 0:
            await js.publish(subjects.key_subject(subjects.SWITCH, subjects.agent_key(agent)), b'{"state":"running"}')
            await js.publish(subjects.key_subject(subjects.AGENTS, agent), control.encode(testing.card(agent)))
            switch = engine.follow(agent, "1")
            await asyncio.wait_for(asyncio.wrap_future(switch.known), 10)
        assert switch is not None
        message = fatal(agent)
        stopped = Stopped(switch, codec.decode_run(message.subject, message.body).data.run_id)
        begin = time.perf_counter()
        await js.publish(message.subject, message.body, headers={subjects.MSG_ID: message.id})
        acked = time.perf_counter()
        to_stop.append((await asyncio.wait_for(stopped.at, 10) - begin) * 1e3)
        to_ack.append((acked - begin) * 1e3)
        switch.leave(stopped)
        await asyncio.sleep(0.02)  # idle: the alert has left, and the event is acknowledged
    await engine.close()
    return to_stop[RUNS_AN_AGENT:], to_ack[RUNS_AN_AGENT:]  # the first ones warm it up


async def rebuild(count: int) -> list[dict[str, Any]]:
    """Seconds from the start of a watchdog whose database is gone until it judges what comes: `count` events that the
    one before had acknowledged are read and judged again."""
    with tempfile.TemporaryDirectory() as folder:
        async with await start_nats(Path(folder) / "nats", sync_interval="always") as server:
            client = await connect(server.url)
            js = client.jetstream()
            await topology.apply(js, Settings(home=Path(folder), nats_url=server.url))
            await fill(client, events(count))
            environment = {"NATS_URL": server.url, "MIDWATCH_HOME": folder, "MIDWATCH_HTTP_PORT": "0"}
            with Part("receive", {**environment, "CONSUMER": subjects.COST_WATCHDOG}) as part:
                bare = await consumed(client, subjects.COST_WATCHDOG, count, part)
            halted: asyncio.Queue[Msg] = asyncio.Queue()
            await client.subscribe(subjects.control(subjects.runs_key("*")), cb=halted.put)
            message = fatal("bench-after")
            await js.publish(message.subject, message.body, headers={subjects.MSG_ID: message.id})
            begin = time.perf_counter()
            with Part("watchdog", environment):
                await asyncio.wait_for(halted.get(), 600)
                took = time.perf_counter() - begin
            await client.close()
    return [{
        "name": f"state rebuilt from {count:,} events", "value": took, "unit": "s",
        "target": "< 60" if count == REBUILT else "", "peer": "receiving them alone, s", "peer_value": count / bare,
        "ratio": took * bare / count,
    }]  # fmt: skip


async def measure(count: int, samples: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        async with await start_nats(Path(folder) / "nats", sync_interval="always") as server:
            client = await connect(server.url)
            js = client.jetstream()
            await topology.apply(js, Settings(home=Path(folder), nats_url=server.url))
            declared = await js.consumer_info(subjects.RUNS, subjects.COST_WATCHDOG)
            await js.add_consumer(subjects.RUNS, declared.config.evolve(durable_name=ALONE, name=ALONE))
            await fill(client, events(count))
            environment = {"NATS_URL": server.url, "MIDWATCH_HOME": folder, "MIDWATCH_HTTP_PORT": "0"}
            with Part("receive", environment) as part:
                bare = await consumed(client, ALONE, count, part)
            await js.delete_consumer(subjects.RUNS, ALONE)
            with Part("watchdog", environment) as part:
                rate = await consumed(client, subjects.COST_WATCHDOG, count, part)
                to_stop, to_ack = await latencies(client, server.url, Path(folder) / "agents", samples)
            await client.close()
    rows = [{
        "name": "cost-watchdog, events", "value": rate, "unit": "events/s", "target": "≥ 5,000",
        "peer": "receiving alone, events/s", "peer_value": bare, "ratio": rate / bare,
    }]  # fmt: skip
    for name, place, target in (("p50", 50, ""), ("p99", 99, "< 10")):
        value, peer = (statistics.quantiles(of, n=100)[place - 1] for of in (to_stop, to_ack))
        rows.append({
            "name": f"event published to its run stopped, {name}", "value": value, "unit": "ms", "target": target,
            "peer": "event published to its own acknowledgement, ms", "peer_value": peer, "ratio": value / peer,
        })  # fmt: skip
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--events", type=int, default=5_000 if QUICK else 100_000, metavar="N")
    parser.add_argument("--samples", type=int, default=50 if QUICK else 500, metavar="N")
    parser.add_argument("--part", choices=("receive", "watchdog"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        run_until_signal(receive_alone if options.part == "receive" else watchdog)
        return 0
    rows = asyncio.run(measure(options.events, options.samples))
    for row in rows + asyncio.run(rebuild(20_000 if QUICK else REBUILT)):
        print(json.dumps(row) if options.json else row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
