"""The logger's rate while retention removes as many events as it stores, beside the same without a removal.

`python benchmarks/bench_keep.py [--json] [--events N]`. Old runs fill the log first; then the stream is read
into it twice, once alone, once while the old runs go. PostgreSQL is measured where
MIDWATCH_BENCH_POSTGRES_URL names one.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench_logger import consume, logger, received
from load import QUICK, connect, events, fill
from nats.aio.client import Client

from midwatch.contracts import subjects
from midwatch.runtime import topology
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.nats_server import start_nats
from midwatch.runtime.service import run_until_signal
from midwatch.runtime.settings import Settings
from midwatch_services.logger import store
from midwatch_services.logger.keeping.sweep import Sweep

KEPT = timedelta(days=400)


def fill_log(url: str, count: int) -> None:
    """Old events, half of them of this month of that year and half of the month before; and one of now."""
    migrate(url, subjects.LOGGER)
    database = Database(url, name=subjects.LOGGER)
    now = datetime.now(UTC)
    made = [replace(one, event=one.event._replace(agent="old-desk")) for one in received(count)]
    for start in range(0, count, 1000):
        ago = timedelta(days=500 if start < count / 2 else 470)
        batch = [
            replace(one, stored_at=now - ago, stream_seq=start + at)
            for at, one in enumerate(made[start : start + 1000])
        ]
        database.write_now(lambda conn, batch=batch: store.save(conn, batch))  # type: ignore[misc]
    one = replace(received(1)[0], stored_at=now, stream_seq=2 * count)
    database.write_now(lambda conn: store.save(conn, [one]))
    database.close()


async def sweep() -> None:
    """A pass as the logger makes it, in a process of its own."""
    database = Database(Settings().database_for(subjects.LOGGER), name=subjects.LOGGER)
    began = time.perf_counter()
    report = await Sweep(database, lambda _: KEPT).run()
    took = time.perf_counter() - began
    print(json.dumps({"seconds": took, "runs": sum(one.runs for one in report.gone.values())}))
    database.close()


async def rate(
    client: Client, url: str, count: int, environment: dict[str, str], *, removing: bool
) -> dict[str, float]:
    """Events a second of the logger, and how long the removal beside it took."""
    there = {**environment, "MIDWATCH_DATABASE_URL": url}
    passing = None
    if removing:
        passing = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "--part", "sweep", env={**os.environ, **there}, stdout=asyncio.subprocess.PIPE
        )
    found = {"rate": await consume(client, subjects.LOGGER, "logger", count, there)}
    if passing:
        out, _ = await passing.communicate()
        found |= json.loads(out.splitlines()[-1])
    await client.jetstream().delete_consumer(subjects.RUNS, subjects.LOGGER)
    await topology.apply(client.jetstream(), Settings())
    return found


async def measure(count: int) -> list[dict[str, Any]]:
    postgres = os.environ.get("MIDWATCH_BENCH_POSTGRES_URL")
    with tempfile.TemporaryDirectory() as folder:
        async with await start_nats(Path(folder) / "nats", sync_interval="always") as server:
            client = await connect(server.url)
            await topology.apply(client.jetstream(), Settings(home=Path(folder), nats_url=server.url))
            await fill(client, events(count))
            environment = {"NATS_URL": server.url, "MIDWATCH_HOME": folder, "MIDWATCH_HTTP_PORT": "0"}
            rows = []
            for name in ("SQLite", *(["PostgreSQL"] if postgres else [])):
                url = str(postgres) if name == "PostgreSQL" else f"sqlite:///{folder}/keep.db"
                fill_log(url, count)
                removing = await rate(client, url, count, environment, removing=True)
                again = url if name == "PostgreSQL" else f"sqlite:///{folder}/alone.db"
                fill_log(again, count)
                alone = await rate(client, again, count, environment, removing=False)
                rows.append(
                    {
                        "name": f"logger while {count:,} old events are removed, {name}", "value": removing["rate"],
                        "unit": "events/s", "target": "", "peer": "the same without a removal, events/s",
                        "peer_value": alone["rate"], "ratio": removing["rate"] / alone["rate"],
                        "removal_seconds": removing["seconds"], "removed_runs": removing["runs"],
                    }
                )  # fmt: skip
            await client.close()
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--events", type=int, default=5_000 if QUICK else 60_000, metavar="N")
    parser.add_argument("--part", choices=("logger", "sweep"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part == "sweep":
        asyncio.run(sweep())
        return 0
    if options.part:
        run_until_signal(logger)
        return 0
    for row in asyncio.run(measure(options.events)):
        print(json.dumps(row) if options.json else row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
