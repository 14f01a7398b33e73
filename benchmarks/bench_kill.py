"""What a halt stops, how fast, where its tickets go, and what staying armed costs.

`python benchmarks/bench_kill.py [--json]`. Fifty whole engines in four processes, four runs in each, against a real
server. Every process writes down when it began each call and what became of each ticket; the judge only compares.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
from bench_switch import AGENT, HALTED, HERE, QUICK, RUNNING, percentile, ready, row, spawn, write
from nats.aio.client import Client
from nats.aio.msg import Msg

from midwatch import Halted
from midwatch.agent import Agent
from midwatch.contracts import codec, subjects
from midwatch.engine import Engine, EngineThread
from midwatch.runtime.nats_server import NatsServer

PROCESSES, ENGINES, RUNS = 4, (13, 13, 12, 12), 4  # 50 instances, 200 runs in flight
HALTS = 4 if QUICK else 40
TICKETS = 1_200 if QUICK else 10_000
CALL, LONG_CALL = 0.2, 0.5  # seconds that a call takes; the long one where what is timed are services beside the agents
ARMED = 100 if QUICK else 1_000


# In the agents' processes


class Host:
    """One process of agents: `go` begins runs, a halt ends them, and what happened is printed."""

    def __init__(self, url: str, folder: Path, engines: int, own_fallback: bool) -> None:
        self.admitted: list[list[float]] = [[] for _ in range(engines)]
        self.outcomes: Counter[str] = Counter()  # of each ticket: how often it was answered here
        self._threads = []
        self._desks = []
        for number in range(engines):
            thread = EngineThread(Engine(url, home=folder, instance=f"host-{os.getpid()}-{number}"))
            thread.start()
            self._threads.append(thread)
            self._desks.append(Agent(thread.engine, AGENT, "1", self._take if own_fallback else None, True))
        self._tickets = 0
        self._seconds = CALL

    def _take(self, handoff: Any) -> str:
        self.outcomes[handoff.ticket] += 1
        return "a person will answer"

    async def armed(self) -> None:
        """Until every engine may act."""
        for thread in self._threads:
            switch = thread.engine.follow(AGENT, "1")
            while switch.lapsed or switch.judge("x") is not None:
                await asyncio.sleep(0.02)

    async def runs(self, calls: int | None, seconds: float) -> list[str]:
        """Four runs an engine until the halt ends them, each of about `calls` calls of `seconds` before the next ticket
        (for ever where it is None). Returns the tickets."""
        self._seconds = seconds
        for admitted in self.admitted:
            admitted.clear()
        found = await asyncio.gather(
            *(self._line(number, desk, calls) for number, desk in enumerate(self._desks) for _ in range(RUNS))
        )
        return [ticket for tickets in found for ticket in tickets]

    async def _line(self, number: int, desk: Agent, calls: int | None) -> list[str]:
        tickets = []
        while True:
            self._tickets += 1
            ticket = f"T-{os.getpid()}-{self._tickets}"
            tickets.append(ticket)
            try:
                async with desk.run(input="Where is my refund?", ticket=ticket) as run:
                    done = 0
                    while calls is None or done < random.randint(1, 2 * calls):
                        await run.tool("refund", self._act, number)
                        done += 1
                    run.finish("done")
            except Halted:
                return tickets
            if run.result is not None:
                return tickets  # the program's own fallback has answered, and counted it
            self.outcomes[ticket] += 1

    async def _act(self, number: int) -> None:
        self.admitted[number].append(time.monotonic())
        await asyncio.sleep(self._seconds * random.uniform(0.5, 1.5))

    async def serve(self) -> None:
        """Obeys the judge on standard input: the calls of a ticket (0: for ever) and the seconds of a call."""
        await self.armed()
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            await self.armed()
            calls, seconds = line.split()
            running = asyncio.ensure_future(self.runs(int(calls) or None, float(seconds)))
            print("running", flush=True)
            tickets = await running
            last = [max(times, default=0.0) for times in self.admitted]
            print(json.dumps({"last": last, "tickets": tickets, "outcomes": self.outcomes}), flush=True)
            self.outcomes.clear()
        os._exit(0)  # fifty farewells are not what is measured


# The judge


@contextlib.asynccontextmanager
async def hosts(url: str, folder: str, own: tuple[bool, ...]) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    """The four processes, each armed."""
    processes = [
        await spawn(__file__, "--host", url, f"{folder}/host-{place}", str(engines), str(int(own[place])))
        for place, engines in enumerate(ENGINES)
    ]
    try:
        for process in processes:
            await expect(process, b"ready\n")
        yield processes
    finally:
        for process in processes:
            process.kill()
            await process.wait()


async def expect(process: asyncio.subprocess.Process, line: bytes) -> None:
    assert process.stdout
    found = await process.stdout.readline()
    assert found == line, found


async def go(processes: list[asyncio.subprocess.Process], calls: int, seconds: float) -> None:
    """Begins the runs of every process."""
    for process in processes:
        assert process.stdin
        process.stdin.write(f"{calls} {seconds}\n".encode())
    for process in processes:
        await expect(process, b"running\n")


async def told(processes: list[asyncio.subprocess.Process]) -> list[dict[str, Any]]:
    """What each process says once its runs have ended."""
    found = []
    for process in processes:
        assert process.stdout
        found.append(json.loads(await process.stdout.readline()))
    return found


async def admitted() -> list[dict[str, Any]]:
    """Milliseconds from the request of a halt to the last writing call that an instance began after it."""
    took: list[float] = []
    whole: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        async with await ready(Path(folder) / "nats") as server:
            nc = await nats.connect(server.url)
            key = subjects.agent_key(AGENT)
            async with hosts(server.url, folder, (False,) * PROCESSES) as processes:
                for turn in range(HALTS + 1):
                    await go(processes, 0, CALL)
                    await asyncio.sleep(random.uniform(0.5, 0.8))
                    requested = time.monotonic()
                    await write(nc.jetstream(), key, HALTED)
                    said = await told(processes)
                    after = [max(0.0, (at - requested) * 1000) for one in said for at in one["last"]]
                    if turn:  # the first warms up
                        took += after
                        whole.append(max(after))
                    await write(nc.jetstream(), key, RUNNING)
            await nc.close()
    name = "halt requested to last unsafe call admitted, 50 instances, 200 runs"
    return [
        row(f"{name}, median of the halts' last", statistics.median(whole), "ms"),
        row(f"{name}, p99 of instances", percentile(took, 0.99), "ms", 100.0),
        row(f"{name}, max", max(took), "ms", 500.0),
    ]


class Cases:
    """Hears of every case: opened for people by the router, or claimed by a program with a fallback of its own."""

    def __init__(self) -> None:
        self.at: dict[str, list[float]] = {}  # ticket, or claim: when it was heard

    async def listen(self, nc: Client) -> None:
        await nc.subscribe(subjects.case(AGENT, "opened"), cb=self._opened)
        await nc.flush()

    async def _opened(self, message: Msg) -> None:
        ticket = codec.decode(message.subject, message.data).data.ticket
        self.at.setdefault(ticket, []).append(time.monotonic())


async def fallback() -> list[dict[str, Any]]:
    """Milliseconds from a halt to its first and its last case in the queue, and tickets lost or doubled. Two processes
    leave their cases to the router, two have a fallback of their own."""
    firsts: list[float] = []
    lasts: list[float] = []
    answered: Counter[str] = Counter()
    tickets: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        async with await ready(Path(folder) / "nats") as server, service(server, folder):
            nc = await nats.connect(server.url)
            cases = Cases()
            await cases.listen(nc)
            key = subjects.agent_key(AGENT)
            async with hosts(server.url, folder, (False, False, True, True)) as processes:
                while len(tickets) < TICKETS:
                    await go(processes, 3, LONG_CALL)
                    await asyncio.sleep(random.uniform(0.3, 0.6))
                    known = set(cases.at)
                    requested = time.monotonic()
                    await write(nc.jetstream(), key, HALTED)
                    said = await told(processes)
                    mine: list[str] = []
                    for one in said:
                        mine += one["tickets"]
                        answered.update(one["outcomes"])
                    await heard(cases, {ticket for ticket in mine if not answered[ticket]})
                    new = sorted(times[0] for ticket, times in cases.at.items() if ticket not in known)
                    firsts.append((new[0] - requested) * 1000)
                    lasts.append((new[-1] - requested) * 1000)
                    tickets += mine
                    await write(nc.jetstream(), key, RUNNING)
                await asyncio.sleep(1.0)  # for what would come twice
            await nc.close()
    for ticket, times in cases.at.items():
        answered[ticket] += len(times)
    lost = sum(answered[ticket] == 0 for ticket in tickets)
    doubled = sum(answered[ticket] > 1 for ticket in tickets)
    return [
        row("halt to first case at the fallback, p99", percentile(firsts, 0.99), "ms", 1000.0,
            peer="median", peer_value=round(statistics.median(firsts), 1)),
        row("halt to last of its 100 cases at the fallback, p99", percentile(lasts, 0.99), "ms", None,
            peer="median", peer_value=round(statistics.median(lasts), 1)),
        row("tickets lost", lost, "tickets", 0, peer="tickets", peer_value=len(tickets)),
        row("tickets answered twice", doubled, "tickets", 0, peer="cases opened", peer_value=len(cases.at)),
    ]  # fmt: skip


async def heard(cases: Cases, wanted: set[str], within: float = 10.0) -> None:
    """Until each of the tickets has a case, or the time is over: then it counts as lost."""
    until = time.monotonic() + within
    while not wanted <= cases.at.keys() and time.monotonic() < until:
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def service(server: NatsServer, folder: str) -> AsyncIterator[int]:
    """The real kill-switch in a process of its own; its pid."""
    environment = {**os.environ, "NATS_URL": server.url, "MIDWATCH_HOME": f"{folder}/home", "MIDWATCH_HTTP_PORT": "0"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "midwatch_services.cli", "run", "kill-switch", env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    nc = await nats.connect(server.url)
    try:
        js = nc.jetstream()
        stream = subjects.key_stream(subjects.SWITCH)
        while not (await js.consumer_info(stream, subjects.KILL_SWITCH_WRITES)).num_waiting:
            assert process.returncode is None, "kill-switch ended"
            await asyncio.sleep(0.1)
        await nc.close()
        yield process.pid
    finally:
        process.terminate()
        await process.wait()


async def armed() -> list[dict[str, Any]]:
    """Share of a core that the server takes while that many instances stay armed, and that kill-switch takes; beside it
    what the same clients cost out of step."""
    with tempfile.TemporaryDirectory() as folder:
        async with await ready(Path(folder) / "nats") as server, service(server, folder) as pid:
            floor, _ = await shares(server, pid, "out-of-step")
            server_share, watcher_share = await shares(server, pid)
    return [
        row(f"{ARMED:,} instances armed: nats-server", server_share, "% of a core", 12.0,
            peer="the same, each at a time of its own", peer_value=round(floor, 1)),
        row(f"{ARMED:,} instances armed: kill-switch", watcher_share, "% of a core"),
    ]  # fmt: skip


async def shares(server: NatsServer, pid: int, *how: str) -> tuple[float, float]:
    """Percent of a core of the server and of the process `pid`, with a crowd of bare clients."""
    crowd = await spawn(str(HERE / "bare_client.py"), server.url, AGENT, str(ARMED), *how)
    try:
        await expect(crowd, b"ready\n")
        await asyncio.sleep(2.0)
        seconds = 3.0 if QUICK else 10.0
        before = [cpu(server.pid or 0), cpu(pid)]
        await asyncio.sleep(seconds)
        now = [cpu(server.pid or 0), cpu(pid)]
    finally:
        crowd.kill()
        await crowd.wait()
    first, second = ((at - was) / seconds * 100 for at, was in zip(now, before, strict=True))
    return first, second


def cpu(pid: int) -> float:
    """Seconds of processor time that a process has taken (Linux: utime and stime of proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure() -> list[dict[str, Any]]:
    """Every figure of this benchmark."""
    return [*await admitted(), *await fallback(), *await armed()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--host", nargs=4, metavar=("URL", "FOLDER", "ENGINES", "OWN"), help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=("admitted", "fallback", "armed"), help="one part")
    given = parser.parse_args()
    if given.host:
        url, folder, engines, own = given.host
        asyncio.run(_host(url, Path(folder), int(engines), bool(int(own))))
        return
    parts = {"admitted": admitted, "fallback": fallback, "armed": armed}
    for figure in asyncio.run(parts[given.only]() if given.only else measure()):
        if given.json:
            print(json.dumps(figure))
        else:
            print(f"{figure['name']:<75} {figure['value']:>10} {figure['unit']:<12} target {figure['target']}")


async def _host(url: str, folder: Path, engines: int, own: bool) -> None:
    await Host(url, folder, engines, own).serve()


if __name__ == "__main__":
    main()
