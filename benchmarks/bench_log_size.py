"""How long it takes to find and read runs, and how that grows with the log: 10,000, 100,000 and a million runs.

`python benchmarks/bench_log_size.py [--json] [--runs N …] [--data FOLDER]`. The log is made by drawing from published
runs, 4,000 a day, with events of the newest 50,000. PostgreSQL is measured where MIDWATCH_BENCH_POSTGRES_URL names one,
which is emptied. A further question is one entry more in `QUESTIONS`.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any

from load import QUICK
from log_builder import Log, build, real_runs
from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch.runtime.database import Database, migrate
from midwatch_services.logger import store
from midwatch_services.logger.decide import text_of
from midwatch_services.logger.reading_store import Wanted, find_runs

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
EVENTS_OF = 50_000  # runs, the newest
TIMES = 5 if QUICK else 60  # that each question is put
Ask = Callable[[Connection, Log, random.Random], int]


def runs(**wanted: Any) -> Ask:
    """Asks for the newest fifty; what is a function makes another value each time."""

    def ask(conn: Connection, log: Log, chance: random.Random) -> int:
        given = {name: value(log, chance) if callable(value) else value for name, value in wanted.items()}
        return len(find_runs(conn, Wanted(limit=50, **given)))

    return ask


def one_run(conn: Connection, log: Log, chance: random.Random) -> int:
    at = chance.randrange(log.count - log.events_of, log.count)
    agent, run_id = log.of(at).row.agent, log.run_id(at)
    found = find_runs(conn, Wanted(agent=agent, run_id=run_id))
    return len(found) and len(store.read_events(conn, agent, run_id)) + len(store.read_alerts(conn, run_id=run_id))


def an_agent(log: Log, chance: random.Random) -> str:
    return chance.choice(log.agents)


def a_number(log: Log, chance: random.Random) -> str:
    return log.word(chance.randrange(log.count))


def one_of(*values: str) -> Callable[[Log, random.Random], str]:
    return lambda _, chance: chance.choice(values)


COMMON = one_of("reservation", "the order", "flight", "please", "can you help")
TOOL = one_of("cancel_reservation", "exchange_delivered_order_items", "transfer_to_human_agents", "calculate")
QUESTIONS: dict[str, tuple[float, Ask]] = {
    "newest 50 of an agent": (50, runs(agent=an_agent)),
    "newest 50 of all": (50, runs()),
    "one run in full": (50, one_run),
    "runs of a ticket": (50, runs(ticket=lambda log, chance: f"T-{chance.randrange(log.count)}")),
    "a common word": (300, runs(text=COMMON)),
    "a word of one run": (300, runs(text=a_number)),
    "a common word, and one of one run": (300, runs(text=lambda *given: f"please {a_number(*given)}")),
    "a phrase": (300, runs(text=one_of('"gift card"', '"travel certificate"', '"your user id"'))),
    "a beginning": (300, runs(text=one_of("cancel*", "reserv*", "refund*"))),
    "the beginning of ten runs' words": (300, runs(text=lambda *given: f"{a_number(*given)[:-1]}*")),
    "a common word, without another": (300, runs(text=one_of("refund -flight", "order -gift"))),
    "a common word, without a beginning": (300, runs(text=one_of("flight -cance*", "order -reserv*"))),
    "two common words that no run has": (300, runs(text="gift sim")),
    "a common word, of an agent": (300, runs(text=one_of("flight", "order", "sim"), agent=an_agent)),
    "a common word, with an alert": (300, runs(text=COMMON, alert="velocity")),
    "a common word, judged a failure": (300, runs(text=COMMON, verdict="fail")),
    "a common word, in the oldest runs": (300, runs(text=COMMON, until=lambda log, _: text_of(log.began(200)))),
    "a tool": (300, runs(tool=TOOL)),
    "a tool, and dear": (300, runs(tool=TOOL, cost_over=Decimal("0.3"))),
    "dear": (300, runs(cost_over=Decimal("0.5"))),
    "cheap, slow and failed, of an agent": (
        300,
        runs(agent=an_agent, cost_under=Decimal("0.02"), slower_than=timedelta(seconds=60), resolution="failed"),
    ),
    "an agent's failed": (300, runs(agent=an_agent, resolution="failed")),
    "an alert": (300, runs(alert=one_of("budget_run", "velocity"))),
    "a verdict, of an agent": (300, runs(agent=an_agent, verdict="fail")),
    "nothing there: a word, a tool, an alert": (300, runs(text="insurance", tool="calculate", alert="not_there")),
}


def timed(database: Database, log: Log, ask: Ask) -> tuple[list[float], int]:
    chance, seconds, found = random.Random(9), list[float](), 0
    for _ in range(TIMES + 1):
        begin = time.perf_counter()
        found += database.read_now(lambda conn: ask(conn, log, chance))
        seconds.append(time.perf_counter() - begin)
    return seconds, found


def measure(database: Database, log: Log, where: str) -> Iterator[dict[str, Any]]:
    for name, (target, ask) in QUESTIONS.items():
        seconds, found = timed(database, log, ask)
        seconds = sorted(seconds[1:])  # the first reads from the disk
        p95 = seconds[int(0.95 * len(seconds))] * 1000
        yield {
            "name": f"{name}, {log.count:,} runs, {where}: p95 (found on average: {found / (TIMES + 1):.0f})",
            "value": p95, "unit": "ms", "target": f"≤ {target:g}", "peer": "median, ms",
            "peer_value": median(seconds) * 1000, "ratio": p95 / (median(seconds) * 1000),
        }  # fmt: skip


def size(database: Database) -> float:
    """Bytes of all tables and indexes."""
    query = (
        "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
        if database.dialect == "sqlite"
        else "SELECT pg_database_size(current_database())"
    )
    return float(database.read_now(lambda conn: conn.exec_driver_sql(query).scalar_one()))


def of_size(url: str, log: Log, where: str) -> Iterator[dict[str, Any]]:
    migrate(url, subjects.LOGGER)
    database = Database(url, name="bench")
    begin = time.perf_counter()
    build(database, log)
    sys.stderr.write(f"{log.count:,} runs written in {time.perf_counter() - begin:.0f} s ({where})\n")
    yield from measure(database, log, where)
    yield {"name": f"size of the log, {log.count:,} runs, {where}", "value": size(database) / 1e9, "unit": "GB"}
    database.close()


def empty(url: str) -> None:
    database = Database(url, name="bench")
    database.write_now(lambda conn: conn.exec_driver_sql("DROP SCHEMA public CASCADE"))
    database.write_now(lambda conn: conn.exec_driver_sql("CREATE SCHEMA public"))
    database.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    sizes: Sequence[int] = (500,) if QUICK else (10_000, 100_000, 1_000_000)
    parser.add_argument("--runs", type=int, nargs="*", default=sizes, metavar="N", help="sizes of the log")
    parser.add_argument("--data", type=Path, default=DATA, metavar="FOLDER", help="the published runs")
    parser.add_argument("--no-sqlite", action="store_true", help="measure PostgreSQL alone")
    options = parser.parse_args()
    drawn = real_runs(options.data)
    postgres = os.environ.get("MIDWATCH_BENCH_POSTGRES_URL")
    for count in options.runs:
        log = Log(drawn, count, EVENTS_OF)
        if not options.no_sqlite:
            with tempfile.TemporaryDirectory() as folder:
                for row in of_size(f"sqlite:///{folder}/logger.db", log, "SQLite"):
                    print(json.dumps(row) if options.json else row, flush=True)
        if postgres:
            empty(postgres)
            for row in of_size(postgres, log, "PostgreSQL"):
                print(json.dumps(row) if options.json else row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
