"""How fast a halt reaches agents, and what obeying costs them.

`python benchmarks/bench_switch.py [--json]`. What is timed are whole engines: connection, spool, the four keys read
each second, presence. In a crowd the other clients do the same on the wire without an engine (bare_client.py), since
on this one machine a thousand engines would only measure how a thousand machines' work fits into its cores.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nats
from nats.js import JetStreamContext

from midwatch import testing
from midwatch.agent import Agent
from midwatch.client import open_engine
from midwatch.contracts import control, subjects
from midwatch.engine import Engine
from midwatch.runtime import topology
from midwatch.runtime.nats_server import NatsServer, start_nats
from midwatch.runtime.settings import Settings
from midwatch.switch import LocalSwitch, clock

HERE = Path(__file__).parent
QUICK = bool(os.environ.get("MIDWATCH_BENCH_QUICK"))
AGENT = "bench"
RUNNING = b'{"state":"running"}'
HALTED = b'{"state":"halted","reason":"benchmark","by":"bench"}'
# Engines, bare clients beside them, halts, and the target for the 99th percentile in milliseconds
CROWDS = [(1, 0, 200, 5.0), (10, 90, 60, 15.0), (10, 990, 30, 60.0)]
if QUICK:
    CROWDS = [(1, 0, 30, 5.0), (10, 90, 5, 15.0)]


def row(name: str, value: float, unit: str, target: float | None = None, **peer: Any) -> dict[str, Any]:
    """One figure, beside its target and its peer of the same run."""
    ratio = round(value / peer["peer_value"], 2) if peer.get("peer_value") else None
    return {"name": name, "value": round(value, 3), "unit": unit, "target": target, "peer": peer.get("peer"),
            "peer_value": peer.get("peer_value"), "ratio": ratio}  # fmt: skip


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of the values do not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


# Recording and checking


async def recording() -> list[dict[str, Any]]:
    """Microseconds that `run.say` takes of the caller, spool on disk included, the engine's thread at work."""
    with tempfile.TemporaryDirectory() as folder:
        async with await ready(Path(folder) / "nats") as server:
            thread = open_engine(server.url, Path(folder) / "agent", None)
            took: list[int] = []
            async with Agent(thread.engine, AGENT, "1", None, True).run(input="x") as run:
                text = "x" * 1_700  # an event of about 2 KB
                for _ in range(2_000 if QUICK else 20_000):
                    began = time.perf_counter_ns()
                    run.say("agent", text)
                    took.append(time.perf_counter_ns() - began)
                    if len(took) % 20 == 0:
                        await asyncio.sleep(0.002)
                run.finish()
            await asyncio.wrap_future(thread.stop())
    micros = [nanos / 1000 for nanos in took]
    return [
        row("run.say, an event of 2 KB, median", statistics.median(micros), "µs", 30.0),
        row("run.say, an event of 2 KB, p99", percentile(micros, 0.99), "µs"),
    ]


async def checking() -> list[dict[str, Any]]:
    """Median nanoseconds of the check before each call, as `run.tool` makes it: with the name of the tool, on a lease
    that will end, by the clock that also runs while the machine sleeps."""
    number = 5_000  # half a millisecond a turn: most are not interrupted
    async with testing.midwatch() as mw, mw.agent(AGENT, version="1").run(input="x") as run:
        assert run._switch
        for key in run._switch.keys.values():
            key.asked = clock()
        run._switch.review()
        turns = timeit.repeat('check("look_up")', globals={"check": run.check}, number=number, repeat=401)
        assert run._switch.quiet and run._switch.lease_ends < clock() + 60, "it was not the quick way that was timed"
        run.finish()
    return [row("check before a call", statistics.median(turns) / number * 1e9, "ns", 100.0)]


async def idling() -> list[dict[str, Any]]:
    """Share of one core that a connected engine takes while its agent does nothing."""
    with tempfile.TemporaryDirectory() as folder:
        async with await ready(Path(folder) / "nats") as server:
            thread = open_engine(server.url, Path(folder) / "agent", None)
            switch = thread.engine.follow(AGENT, "1")
            await asyncio.to_thread(switch.known.result, 10)
            await asyncio.sleep(0.5)
            seconds = 2.0 if QUICK else 5.0
            before = time.process_time()
            await asyncio.sleep(seconds)
            share = (time.process_time() - before) / seconds * 100
            await asyncio.wrap_future(thread.stop())
    return [row("idle agent, connected and obedient", share, "% of a core", 2.0)]


# Switch latency


async def ready(folder: Path) -> NatsServer:
    """A server with everything declared and the agent's card and key written."""
    server = await start_nats(folder)
    nc = await nats.connect(server.url)
    await topology.apply(nc.jetstream(), Settings(home=folder, nats_url=server.url))
    card = control.encode(testing.card(AGENT))
    await nc.jetstream().publish(subjects.key_subject(subjects.AGENTS, AGENT), card)
    await write(nc.jetstream(), subjects.agent_key(AGENT), RUNNING)
    await nc.close()
    return server


async def write(js: JetStreamContext, key: str, value: bytes) -> int:
    """Writes a key of the switch. Its revision."""
    return (await js.publish(subjects.key_subject(subjects.SWITCH, key), value)).seq


class Watcher:
    """Stands where a run stands: notes when the switch told it of each epoch of the fleet's key."""

    run_id, draining, moving, awaited = "bench", False, False, True

    def __init__(self, switch: LocalSwitch, seen: Callable[[int], None]) -> None:
        self._switch = switch
        self._seen = seen
        self.seen_at: dict[int, float] = {}

    def review(self) -> None:
        """The switch moved."""
        epoch = self._switch.keys[subjects.FLEET_KEY].revision
        if epoch not in self.seen_at:
            self.seen_at[epoch] = time.monotonic()
            self._seen(epoch)

    def abandon(self) -> None:
        """The process ends."""


async def crowd(url: str, count: int, folder: Path) -> None:
    """A process of clients. For each epoch named on standard input it prints when each client saw it."""
    reached: dict[int, int] = {}
    moved = asyncio.Event()

    def seen(epoch: int) -> None:
        reached[epoch] = reached.get(epoch, 0) + 1
        if reached[epoch] == count:
            moved.set()

    engines, watchers = [], []
    for number in range(count):
        engine = Engine(url, home=folder, instance=f"client-{os.getpid()}-{number}")
        await engine.start()
        switch = engine.follow(AGENT, "1")
        watcher = Watcher(switch, seen)
        switch.enter(watcher)
        engines.append((engine, switch))
        watchers.append(watcher)
        if number % 20 == 19:
            await asyncio.sleep(0.1)
    for _, switch in engines:
        while switch.lapsed:
            await asyncio.sleep(0.05)
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        epoch = int(line)
        while reached.get(epoch, 0) < count:
            moved.clear()
            await moved.wait()
        print(json.dumps([watcher.seen_at[epoch] for watcher in watchers]), flush=True)
    os._exit(0)  # a thousand farewells are not what is measured


async def latency(engines: int, bare: int, halts: int, target: float) -> list[dict[str, Any]]:
    """Milliseconds from the write of a halt of the fleet until an engine's runs are told."""
    took: dict[str, list[float]] = {"engines": [], "bare": []}
    with tempfile.TemporaryDirectory() as folder:
        async with await ready(Path(folder) / "nats") as server:
            nc = await nats.connect(server.url)
            crowds = {"engines": await spawn(__file__, "--crowd", str(engines), server.url, f"{folder}/agents")}
            if bare:
                crowds["bare"] = await spawn(str(HERE / "bare_client.py"), server.url, AGENT, str(bare))
            try:
                for process in crowds.values():
                    assert process.stdout
                    assert await process.stdout.readline() == b"ready\n"
                for turn in range(halts + 1):
                    for value in (HALTED, RUNNING):
                        began = time.monotonic()
                        epoch = await write(nc.jetstream(), subjects.FLEET_KEY, value)
                        seen = {kind: await told(process, epoch) for kind, process in crowds.items()}
                        for kind, times in seen.items():
                            if value == HALTED and turn:  # the first warms up
                                took[kind] += [(at - began) * 1000 for at in times]
                        await asyncio.sleep(0.3)
            finally:
                for process in crowds.values():
                    process.kill()
                    await process.wait()
                await nc.close()
    who = "1 client" if engines + bare == 1 else f"{engines} engines among {engines + bare:,} clients"
    rows = []
    for name, share, limit in (("p50", 0.5, None), ("p99", 0.99, target)):
        peer = round(percentile(took["bare"], share), 3) if bare else None
        beside = {"peer": f"the bare clients, {name}", "peer_value": peer} if bare else {}
        rows.append(row(f"halt seen by {who}, {name}", percentile(took["engines"], share), "ms", limit, **beside))
    return rows


async def spawn(*command: str) -> asyncio.subprocess.Process:
    """A process of clients that is asked on its standard input when they saw a revision."""
    return await asyncio.create_subprocess_exec(
        sys.executable, *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=2**24
    )


async def told(process: asyncio.subprocess.Process, epoch: int) -> list[float]:
    """When each client of a process saw this epoch."""
    assert process.stdin and process.stdout
    process.stdin.write(f"{epoch}\n".encode())
    times: list[float] = json.loads(await process.stdout.readline())
    return times


# Import


def importing() -> list[dict[str, Any]]:
    """Milliseconds of an import in a new process, over a bare start."""
    codes = ("pass", "import nats", "from midwatch import connect, Halted")
    took: dict[str, list[float]] = {code: [] for code in codes}
    for _ in range(5 if QUICK else 15):
        for code in codes:
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            took[code].append((time.perf_counter() - began) * 1000)
    bare, peer, ours = (statistics.median(took[code]) for code in codes)
    return [
        row("from midwatch import connect, Halted", ours - bare, "ms", 220.0, peer="import nats",
            peer_value=round(peer - bare, 1)),
    ]  # fmt: skip


async def measure() -> list[dict[str, Any]]:
    """Every figure of this benchmark."""
    rows = importing()
    rows += await recording()
    rows += await checking()
    rows += await idling()
    for what in CROWDS:
        rows += await latency(*what)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--crowd", nargs=3, metavar=("COUNT", "URL", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.crowd:
        asyncio.run(crowd(given.crowd[1], int(given.crowd[0]), Path(given.crowd[2])))
        return
    for figure in asyncio.run(measure()):
        if given.json:
            print(json.dumps(figure))
        else:
            print(f"{figure['name']:<45} {figure['value']:>10} {figure['unit']:<12} target {figure['target']}")


if __name__ == "__main__":
    main()
