"""What it takes to set money aside for a call, and what a stuck ticket spends with and without it.

`python benchmarks/bench_budget.py [--json] [--samples N]`. cost-watchdog runs in a process of its own, on SQLite
(`synchronous=FULL`), the server at `sync_interval: always`.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from load import QUICK, connect
from nats.aio.client import Client
from nats.errors import NoRespondersError

import midwatch
from midwatch.contracts import budget, control, subjects
from midwatch.contracts.budget import Commit, Reserve
from midwatch.contracts.control import BudgetRule, Card
from midwatch.contracts.envelope import new_id
from midwatch.runtime import topology
from midwatch.runtime.database import Database
from midwatch.runtime.loop import loop_factory, run_until_signal
from midwatch.runtime.nats_server import NatsServer, start_nats
from midwatch.runtime.service import run_services
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Switchboard
from midwatch_services.cost_watchdog import app

CALL = "0.18"  # US dollars
LIMIT = Decimal(1)
RUNS = 64
WORK = 0.2  # seconds that a model call takes on average, between half and one and a half of it
TARGETS = {50: "≤ 5", 99: "≤ 15"}
THEIRS = {50: "Cycles by its own word: 14.9 ms", 99: "Cycles by its own word: 18.4 ms"}


async def watchdog() -> None:
    """The service as `midwatch run cost-watchdog` runs it."""
    await run_services([app.SERVICE], Settings(), restart=False)


@contextlib.asynccontextmanager
async def served(folder: Path, server: NatsServer, client: Client) -> AsyncIterator[None]:
    """The service in a process of its own, until the block ends."""
    environment = {**os.environ, "NATS_URL": server.url, "MIDWATCH_HOME": str(folder), "MIDWATCH_HTTP_PORT": "0"}
    process = subprocess.Popen([sys.executable, __file__, "--part", "watchdog"], env=environment)
    try:
        while True:
            with contextlib.suppress(NoRespondersError):
                await client.request(subjects.budget("bench", "commit"), b"{}", timeout=10)
                break
            await asyncio.sleep(0.05)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def floor(folder: Path, samples: int) -> list[float]:
    """Milliseconds of two transactions of one row, on the same disk with the same settings."""
    database = Database(f"sqlite:///{folder}/floor.db")
    database.write_now(lambda conn: conn.execute(sa.text("CREATE TABLE one (id INTEGER PRIMARY KEY, body BLOB)")))
    body, found = os.urandom(300), []
    for _ in range(samples):
        begin = time.perf_counter()
        for _ in range(2):
            database.write_now(
                lambda conn: conn.execute(sa.text("INSERT INTO one (body) VALUES (:body)"), {"body": body})
            )
        found.append((time.perf_counter() - begin) * 1e3)
    database.close()
    return found


async def pairs(client: Client, agent: str, count: int, found: list[float], work: float = 0) -> None:
    """One after another sets money aside, calls a model for `work` seconds and says what it cost; milliseconds of each
    pair, without the call, into `found`."""
    ticket = new_id()
    await asyncio.sleep(work * random.random())  # they did not all begin at once
    for _ in range(count):
        id, begin = new_id(), time.perf_counter()
        ask = Reserve(id=id, run_id="bench", ticket=ticket, provider="openai", model="gpt-4.1", ceiling="0.0002")
        answer = await client.request(subjects.budget(agent, "reserve"), budget.encode(ask), timeout=10)
        if b'"granted":true' not in answer.data:
            sys.exit(f"not granted: {answer.data!r}")
        if work:
            waits = time.perf_counter()
            await asyncio.sleep(work * random.uniform(0.5, 1.5))
            begin += time.perf_counter() - waits
        await client.request(subjects.budget(agent, "commit"), budget.encode(Commit(id=id, cost="0")), timeout=10)
        found.append((time.perf_counter() - begin) * 1e3)


async def latencies(client: Client, concurrent: int, count: int, work: float = 0) -> list[float]:
    await pairs(client, "warm", 20, [])
    found: list[float] = []
    each = max(2, count // concurrent)
    await asyncio.gather(*(pairs(client, "bench", each, found, work) for _ in range(concurrent)))
    return found


class Model:
    """A model that bills every call."""

    def __init__(self) -> None:
        self.billed = Decimal(0)

    async def call(self, model: str) -> dict[str, Any]:
        self.billed += Decimal(CALL)
        await asyncio.sleep(0.02)
        return {"model": model, "usage": {"prompt_tokens": 9, "completion_tokens": 1, "cost": float(CALL)}}


async def stuck(server: NatsServer, folder: Path, js: Any, *, reserve: bool, runs: int) -> Decimal:
    """Dollars that as many runs at once spend on one ticket of one dollar, each calling the model again and again."""
    agent = f"stuck-{'held' if reserve else 'loose'}-{runs}"
    await applied(js, agent, BudgetRule(run="1", ticket="1", reserve=reserve))
    model = Model()
    async with midwatch.connect(server.url, home=folder / "agent") as mw:
        desk = mw.agent(agent, version="1", fallback=lambda handoff: "a person")

        async def one(number: int) -> None:
            async with desk.run(input="Where is it?", ticket="T-1", run_id=f"{agent}-{number}") as run:
                for _ in range(20):
                    await run.model(model.call, model="m", ceiling=CALL)

        await asyncio.gather(*(one(number) for number in range(runs)))
    return model.billed


async def waits(server: NatsServer, folder: Path, js: Any, samples: int) -> dict[bool, list[float]]:
    """Milliseconds of a model call that takes no time, with and without money set aside for it first."""
    found: dict[bool, list[float]] = {True: [], False: []}
    async with midwatch.connect(server.url, home=folder / "waits") as mw:
        for reserve in found:
            agent = f"waits-{reserve}".lower()
            await applied(js, agent, BudgetRule(run="1000", ticket="1000", reserve=reserve))
            async with mw.agent(agent, version="1").run(input="?", ticket="T-1") as run:
                for _ in range(samples + 20):
                    begin = time.perf_counter()
                    await run.model(lambda model: {"model": model}, model="m", ceiling="0.0001")
                    found[reserve].append((time.perf_counter() - begin) * 1e3)
                run.finish()
    return {reserve: times[20:] for reserve, times in found.items()}  # the first ones warm it up


async def applied(js: Any, agent: str, rule: BudgetRule) -> None:
    """An agent with a card, and running."""
    card = Card(agent=agent, owner="Bench", purpose="Loops.", can=["Loop"], budget=rule)
    await js.publish(subjects.key_subject(subjects.AGENTS, agent), control.encode(card))
    await Switchboard(js).resume_agent(agent, reason="bench", by="bench")


async def measure(samples: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with await start_nats(folder / "nats", sync_interval="always") as server:
            client = await connect(server.url)
            js = client.jetstream()
            await topology.apply(js, Settings(home=folder, nats_url=server.url))
            async with served(folder, server, client):
                bare = floor(folder, samples)
                for concurrent, work in ((1, 0.0), (RUNS, WORK), (RUNS, 0.0)):
                    found = await latencies(client, concurrent, samples * (1 if concurrent == 1 else 8), work)
                    rows += [_latency(concurrent, work, place, found, bare) for place in (50, 99)]
                times = await waits(server, folder, js, samples)
                rows += [_waits(place, times) for place in (50, 99)]
                for reserve in (True, False):
                    for runs in (1, RUNS):
                        rows.append(_stuck(reserve, runs, await stuck(server, folder, js, reserve=reserve, runs=runs)))
            await client.close()
    return rows


def _latency(concurrent: int, work: float, place: int, found: list[float], bare: list[float]) -> dict[str, Any]:
    how = f"{concurrent} at once" + (f", model calls of {work * 1e3:g} ms between" if work else "")
    how += " without a pause" if concurrent > 1 and not work else ""
    value, peer = (statistics.quantiles(of, n=100)[place - 1] for of in (found, bare))
    return {
        "name": f"reserve + commit, {how}, p{place} ({THEIRS[place]})", "value": value, "unit": "ms",
        "target": "" if concurrent > 1 and not work else TARGETS[place],
        "peer": "two transactions of SQLite alone, ms", "peer_value": peer, "ratio": value / peer,
    }  # fmt: skip


def _waits(place: int, times: dict[bool, list[float]]) -> dict[str, Any]:
    value, peer = (statistics.quantiles(times[reserve], n=100)[place - 1] for reserve in (True, False))
    return {
        "name": f"run.model of a call that takes no time, with reserve, p{place}", "value": value, "unit": "ms",
        "target": "", "peer": "without reserve, ms", "peer_value": peer, "ratio": value / peer,
    }  # fmt: skip


def _stuck(reserve: bool, runs: int, spent: Decimal) -> dict[str, Any]:
    how = f"{runs} run{'s' if runs > 1 else ''} at once, {'with' if reserve else 'without'} reserve"
    theirs = " (measured before, of one call each: LiteLLM $1.08, agent-governance-toolkit $11.52)" if runs > 1 else ""
    return {
        "name": f"$1 ticket at ${CALL} a call, {how}: spent{theirs}", "value": float(spent),
        "unit": f"$, over by ${max(Decimal(0), spent - LIMIT)}", "target": "≤ 1" if reserve or runs == 1 else "",
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--samples", type=int, default=100 if QUICK else 1000, metavar="N")
    parser.add_argument("--part", choices=("watchdog",), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        run_until_signal(watchdog)
        return 0
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        rows = runner.run(measure(options.samples))
    for row in rows:
        print(json.dumps(row) if options.json else row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
