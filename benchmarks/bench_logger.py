"""Events a second through the logger, end to end, beside what receiving alone and inserting alone can do.

`python benchmarks/bench_logger.py [--json] [--events N]`. The stream is filled first, at `sync_interval: always`; then
the service runs in a process of its own. PostgreSQL is measured where MIDWATCH_BENCH_POSTGRES_URL names one.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from load import QUICK, connect, events, fill
from nats.aio.client import Client

from midwatch.contracts import codec, control, subjects
from midwatch.contracts.control import Card, LogRule
from midwatch.runtime import topology
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.delivery import Received, RunReader
from midwatch.runtime.nats_server import start_nats
from midwatch.runtime.service import run_services, run_until_signal
from midwatch.runtime.settings import Settings
from midwatch_services.logger import app, store, tables
from midwatch_services.logger.policy import POLICY

ALONE = "receive-alone"  # consumer of the reader that does nothing


async def receive_alone() -> None:
    """The loop with a handler that does nothing: receive, decode, acknowledge."""
    client = await connect(os.environ["NATS_URL"])

    async def nothing(_: list[Received]) -> None:
        return

    reader: RunReader = RunReader(
        client, client.jetstream(), stream=subjects.RUNS, consumer=ALONE, service=ALONE, handle=nothing,
        batch=POLICY.batch,
    )  # fmt: skip
    await reader.run()


async def logger() -> None:
    """The service as `midwatch run logger` runs it."""
    await run_services([app.SERVICE], Settings(), restart=False)


async def consume(
    client: Client, consumer: str, part: str, count: int, environment: dict[str, str], processes: int = 1
) -> float:
    """Events a second of this file's `part` in so many processes, from the first delivery to the last ack."""
    js = client.jetstream()
    command, its = [sys.executable, __file__, "--part", part], {**os.environ, **environment}
    started = [subprocess.Popen(command, env=its, stdout=sys.stderr) for _ in range(processes)]
    try:
        begin = 0.0
        while True:
            info = await js.consumer_info(subjects.RUNS, consumer)
            if not begin and info.num_pending != count:
                begin = time.perf_counter()
            if begin and not info.num_pending and not info.num_ack_pending:
                return count / (time.perf_counter() - begin)
            if any(process.poll() is not None for process in started):
                sys.exit(f"{part} ended with {[process.returncode for process in started]}")
            await asyncio.sleep(0.02)
    finally:
        for process in started:
            process.send_signal(signal.SIGTERM)
        for process in started:
            process.wait(30)


def insert_alone(url: str, count: int) -> float:
    """Rows a second of inserting the same columns with nothing around it: `executemany`, a commit a batch."""
    migrate(url, subjects.LOGGER)
    database = Database(url, name="bench")
    rows = [store.event_row(one, place, bytes(16)) for place, one in enumerate(received(count))]
    mark = "?" if database.dialect == "sqlite" else "%s"
    marks = ", ".join([mark] * len(store.EVENT_COLUMNS))
    insert = f"INSERT INTO logger_events ({', '.join(store.EVENT_COLUMNS)}) VALUES ({marks})"

    def work(conn: Any, batch: list[tuple[Any, ...]]) -> None:
        conn.connection.driver_connection.cursor().executemany(insert, batch)

    begin = time.perf_counter()
    for start in range(0, count, POLICY.batch):
        database.write_now(lambda conn, batch=rows[start : start + POLICY.batch]: work(conn, batch))
    took = time.perf_counter() - begin
    database.close()
    return count / took


def received(count: int) -> list[Received]:
    """The same events as on the stream, as the loop hands them over."""
    now = datetime.now(UTC)
    return [
        Received(codec.decode_run(m.subject, m.body), m.body, m.subject, None, place, 1, now, "")
        for place, m in enumerate(events(count))
    ]


async def measure(count: int) -> list[dict[str, Any]]:
    postgres = os.environ.get("MIDWATCH_BENCH_POSTGRES_URL")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        async with await start_nats(home / "nats", sync_interval="always") as server:
            client = await connect(server.url)
            settings = Settings(home=home, nats_url=server.url)
            await topology.apply(client.jetstream(), settings)
            declared = await client.jetstream().consumer_info(subjects.RUNS, subjects.LOGGER)
            await client.jetstream().add_consumer(subjects.RUNS, declared.config.evolve(durable_name=ALONE, name=ALONE))
            await fill(client, events(count))
            environment = {"NATS_URL": server.url, "MIDWATCH_HOME": folder, "MIDWATCH_HTTP_PORT": "0"}
            bare = await consume(client, ALONE, "receive", count, environment)
            rows = []
            for name, url in (("SQLite", f"sqlite:///{home}/{{part}}.db"), ("PostgreSQL", postgres)):
                if url is None:
                    continue
                rates = {}
                for part in ("redacted", "plain"):
                    await apply_card(client, is_redacted=part == "redacted")
                    own = {**environment, "MIDWATCH_DATABASE_URL": url.format(part=part)}
                    empty(own["MIDWATCH_DATABASE_URL"])
                    rates[part] = await consume(client, subjects.LOGGER, "logger", count, own)
                    await read_anew(client, settings)
                empty(url.format(part="alone"))
                limit = insert_alone(url.format(part="alone"), count)
                rows += figures(name, rates, bare, limit)
                if name == "PostgreSQL":
                    rows.append(await beside_each_other(client, settings, count, own))
            await client.close()
    return rows


async def apply_card(client: Client, *, is_redacted: bool) -> None:
    """The card of the agent whose events these are: with the redaction that every agent has, or with none."""
    log = LogRule() if is_redacted else LogRule(redact=())
    card = Card(agent="bench-desk", owner="o", purpose="p", can=["c"], log=log)
    await client.jetstream().publish(subjects.key_subject(subjects.AGENTS, card.agent), control.encode(card))


async def read_anew(client: Client, settings: Settings) -> None:
    """Has the logger begin at the stream's start."""
    await client.jetstream().delete_consumer(subjects.RUNS, subjects.LOGGER)
    await topology.apply(client.jetstream(), settings)


async def beside_each_other(
    client: Client, settings: Settings, count: int, environment: dict[str, str]
) -> dict[str, Any]:
    """Two processes on the one consumer beside one, each time into empty tables, in turn."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    for processes in (1, 2, 1, 2):
        empty(environment["MIDWATCH_DATABASE_URL"])
        rates[processes].append(await consume(client, subjects.LOGGER, "logger", count, environment, processes))
        await read_anew(client, settings)
    one, two = max(rates[1]), max(rates[2])
    return {
        "name": "two loggers on one consumer, PostgreSQL", "value": two, "unit": "events/s",
        "target": "no slower than one", "peer": "one logger, events/s", "peer_value": one, "ratio": two / one,
    }  # fmt: skip


def empty(url: str) -> None:
    """Drops what a log holds; its tables stay."""
    migrate(url, subjects.LOGGER)
    database = Database(url, name="bench")
    if database.dialect == "postgresql":
        names = ", ".join(tables.Event.metadata.tables)
        database.write_now(lambda conn: conn.exec_driver_sql(f"TRUNCATE {names}"))
    database.close()


def figures(name: str, rates: dict[str, float], bare: float, limit: float) -> list[dict[str, Any]]:
    rate, redacted = rates["plain"], rates["redacted"]
    target = "≥ 20,000, or 0.33 of inserting alone" if name == "SQLite" else "≥ 18,000, or 0.33 of inserting alone"
    row = {"name": f"logger end to end, hashed and chained, {name}", "value": rate, "unit": "events/s"}
    return [
        {**row, "target": target, "peer": "inserting alone, rows/s", "peer_value": limit, "ratio": rate / limit},
        {**row, "target": "", "peer": "receiving alone, events/s", "peer_value": bare, "ratio": rate / bare},
        {
            "name": f"the same, redacted by default, {name}", "value": redacted, "unit": "events/s",
            "target": "≥ 12,000", "peer": "not redacted, events/s", "peer_value": rate, "ratio": redacted / rate,
        },
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--events", type=int, default=5_000 if QUICK else 100_000, metavar="N")
    parser.add_argument("--part", choices=("receive", "logger"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        run_until_signal(receive_alone if options.part == "receive" else logger)
        return 0
    for row in asyncio.run(measure(options.events)):
        print(json.dumps(row) if options.json else row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
