"""The digest: how plain and how long it is on real runs, and how long it takes to write on a day of a large log.

`python benchmarks/bench_digest.py [--json] [--data FOLDER] [--show]`. The real runs are replayed through NATS, the
logger and cost-watchdog; then the digest of each of their days is written and measured. The large log is made from the
rows of those runs by resampling, 4,000 a day, with the events of the day that is told of. At last 20,000 cases and as
many reviews wait beside it.
"""

import argparse
import asyncio
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import load
import sqlalchemy as sa
from nats.js import JetStreamContext

from midwatch.contracts import subjects
from midwatch.contracts.envelope import utc_now
from midwatch.runtime import telemetry, topology
from midwatch.runtime.database import Database, execute_many, migrate
from midwatch.runtime.nats_server import start_nats
from midwatch.runtime.service import run_services
from midwatch.runtime.settings import Settings
from midwatch_services import registry
from midwatch_services.digest import render
from midwatch_services.digest.decide import Digest
from midwatch_services.digest.policy import POLICY
from midwatch_services.digest.readability import grade
from midwatch_services.digest.sources import Sources
from midwatch_services.kill_switch import tables as switch
from midwatch_services.logger import store
from midwatch_services.logger.decide import text_of
from midwatch_services.replay.session import Wish, replay
from midwatch_services.reviewer_sampler import tables as sampler

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
A_DAY = 400 if load.QUICK else 4_000
RUNS = 8_000 if load.QUICK else 1_000_000
SMALL = 4_000 if load.QUICK else 40_000  # the log beside which the growth is seen
WAITING = 2_000 if load.QUICK else 20_000  # cases, and reviews
TIMES = 5
NEWEST = date(2026, 11, 25)
READERS = (subjects.LOGGER, subjects.COST_WATCHDOG)
_CHUNK = 10_000
_FIELD = re.compile(r"\w*[A-Za-z]_\w+")


def prose(digest: Digest) -> str:
    """All that is read of a digest."""
    return " ".join([digest.title, *digest.headings, *(one.text for one in digest.sentences)])


async def _read_to_the_end(js: JetStreamContext, task: "asyncio.Task[None]") -> None:
    consumers = [(subjects.RUNS, name) for name in READERS]
    consumers += [(subjects.GOVERNANCE, subjects.LOGGER_GOVERNANCE), *consumers]
    for stream, name in consumers:
        while (info := await js.consumer_info(stream, name)).num_pending or info.num_ack_pending:
            if task.done():
                task.result()
            await asyncio.sleep(0.05)


async def real_log(settings: Settings, runs: Path) -> None:
    """Replays the published runs through the services into their databases."""
    client = await load.connect(settings.url)
    js = client.jetstream()
    await topology.apply(js, settings)
    started = asyncio.Event()
    services = [registry.load(name) for name in READERS]
    task = asyncio.create_task(run_services(services, settings, started=lambda _: started.set(), restart=False))
    try:
        await started.wait()
        await replay(Wish([runs]), settings, lambda *_: None)
        await _read_to_the_end(js, task)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.close()


def digests(settings: Settings) -> tuple[list[Digest], set[str]]:
    """The shop's and each agent's digest of every day on which a run began, and the ids of all runs."""
    database = Database(settings.database_for(subjects.LOGGER), must_exist=True)
    rows = database.read_now(lambda conn: conn.execute(sa.text("SELECT run_id, first_at FROM logger_runs")).all())
    database.close()
    days = sorted({date.fromisoformat(row.first_at[:10]) for row in rows})
    with Sources(settings, POLICY) as sources:
        found = [
            sources.digest(day, agent, utc_now(), mode="replay")
            for day in days
            for agent in (None, *sources.agents(day, "replay"))
        ]
    return found, {row.run_id for row in rows}


def plainness(found: Sequence[Digest], ids: set[str]) -> Iterator[dict[str, Any]]:
    """The rows on the words of the real runs' digests."""
    what = f"{len(found)} digests of the real runs"
    longest = max(found, key=lambda one: one.words)
    sentences = [one for digest in found for one in digest.sentences]
    unplain = sum(len(_FIELD.findall(text)) + sum(id in text for id in ids) for text in map(prose, found))
    yield row(f"{what}: words of the longest", longest.words, "words", 2000, "longest at 200 words a minute, minutes",
              longest.words / 200)  # fmt: skip
    grades = [grade(one.text for one in digest.sentences) for digest in found]
    yield row(f"{what}: Flesch–Kincaid grade of the hardest", max(grades), "", 9, "median", statistics.median(grades))
    linked = 100 * sum(bool(one.sources) for one in sentences) / len(sentences)
    yield row(f"{what}: sentences with a link to their runs", linked, "%", 100, "sentences", len(sentences))
    yield row(f"{what}: names of fields and ids in the prose", unplain, "", 0, "ids looked for", len(ids))


def row(name: str, value: float, unit: str, target: float, peer: str, peer_value: float) -> dict[str, Any]:
    return {"name": name, "value": round(value, 3), "unit": unit, "target": target, "peer": peer,
            "peer_value": round(peer_value, 3)}  # fmt: skip


class Resampled:
    """A log of many runs, made from the rows of a few."""

    def __init__(self, source: Settings, home: Path) -> None:
        self.settings = Settings(home=home)
        database = Database(source.database_for(subjects.LOGGER), must_exist=True)
        self._rows = database.read_now(lambda conn: [tuple(one) for one in conn.execute(_SELECT_RUNS)])
        self._events = database.read_now(lambda conn: [tuple(one) for one in conn.execute(_SELECT_EVENTS)])
        database.close()
        self._made = 0

    def grow(self, runs: int) -> None:
        """Adds runs, the newest first, until there are so many; the events of the newest day go in with them."""
        url = self.settings.database_for(subjects.LOGGER)
        migrate(url, subjects.LOGGER)
        database = Database(url, name=subjects.LOGGER)
        try:
            while self._made < runs:
                some = range(self._made, min(runs, self._made + _CHUNK))
                made = [self._run(number) for number in some]
                database.write_now(lambda conn, made=made: _insert(conn, "logger_runs", store.RUN_COLUMNS, made))  # type: ignore[misc]
                self._made = some.stop
            if not self._has_events(database):
                for start in range(0, A_DAY, 200):
                    made = [event for number in range(start, start + 200) for event in self._events_of(number)]
                    database.write_now(
                        lambda conn, made=made: _insert(conn, "logger_events", store.EVENT_COLUMNS, made)
                    )  # type: ignore[misc]
        finally:
            database.close()

    def _run(self, number: int) -> tuple[Any, ...]:
        one = dict(zip(store.RUN_COLUMNS, self._rows[number % len(self._rows)], strict=True))
        length = timedelta(0)
        if one["ended_at"]:
            length = datetime.fromisoformat(one["ended_at"]) - datetime.fromisoformat(one["first_at"])
        begin = datetime(NEWEST.year, NEWEST.month, NEWEST.day, tzinfo=UTC) - timedelta(days=number // A_DAY)
        begin += timedelta(seconds=(number % A_DAY) * 86_000 / A_DAY)
        one |= {
            "run_id": f"{one['run_id']}-{number}", "mode": "live", "first_at": text_of(begin),
            "started_at": text_of(begin),
            "ended_at": one["ended_at"] and text_of(begin + length), "last_at": text_of(begin + length),
        }  # fmt: skip
        return tuple(one.values())

    def _events_of(self, number: int) -> Iterator[tuple[Any, ...]]:
        name = self._rows[number % len(self._rows)][1]
        for event in self._events:
            if event[2] == name:
                body = event[11].replace(name, f"{name}-{number}")
                yield (
                    event[0],
                    f"{event[1]}-{number}",
                    f"{name}-{number}",
                    *event[3:7],
                    "live",
                    *event[8:11],
                    body,
                    *event[12:],
                )

    def _has_events(self, database: Database) -> bool:
        return bool(
            database.read_now(lambda conn: conn.execute(sa.text("SELECT 1 FROM logger_events LIMIT 1")).first())
        )


_SELECT_RUNS = sa.text(f"SELECT {', '.join(store.RUN_COLUMNS)} FROM logger_runs ORDER BY run_id")
_SELECT_EVENTS = sa.text(f"SELECT {', '.join(store.EVENT_COLUMNS)} FROM logger_events ORDER BY run_id, seq")


def _insert(conn: Any, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    raw = conn.connection.driver_connection
    execute_many(raw, f"INSERT INTO {table} ({', '.join(columns)})", "", columns, rows)


def keep_waiting(settings: Settings) -> None:
    """Puts cases, every fifth of them in somebody's hands, and reviews where their services keep them."""
    noon = datetime(NEWEST.year, NEWEST.month, NEWEST.day, 12, tzinfo=UTC)
    begun = [noon - timedelta(seconds=number) for number in range(WAITING)]
    texts = ("taker", "taken_run", "reference", "key", "reason", "doubt")
    cases = [
        dict.fromkeys(texts, "") | {
            "case_id": f"case-{number}", "agent": "airline-llm_agent", "run_id": f"waits-{number}", "to": "human",
            "state": "open" if number % 5 else "taken", "taken_by": "" if number % 5 else f"person-{number % 40}",
            "opened_by": "kill-switch", "mode": "live", "chain": "[]", "asked": "Where is the refund of my flight?",
            "opened_at": switch.micros(at), "updated_at": switch.micros(at), "body": b" " * 2_000,
        }
        for number, at in enumerate(begun)
    ]  # fmt: skip
    queue = [
        {
            "agent": "airline-llm_agent", "run_id": f"waits-{number}", "track": "live", "mode": "live", "rate": 1.0,
            "draw": 0.0, "day": str(NEWEST), "key_hash": "0" * 64, "sampled_at": at.timestamp(), "state": "waiting",
        }
        for number, at in enumerate(begun)
    ]  # fmt: skip
    kept = ((subjects.KILL_SWITCH, switch.Case, cases), (subjects.REVIEWER_SAMPLER, sampler.Queued, queue))
    for service, table, rows in kept:
        url = settings.database_for(service)
        migrate(url, service)
        database = Database(url, name=service)
        database.write_now(lambda conn, made=(table, rows): conn.execute(sa.insert(made[0].__table__), made[1]))  # type: ignore[misc]
        database.close()


def seconds(settings: Settings, agent: str | None) -> list[float]:
    """How long the digest of the newest day takes, in all three renderings, each time from opened databases anew."""
    found = []
    for _ in range(TIMES):
        began = time.perf_counter()
        with Sources(settings, POLICY) as sources:
            digest = sources.digest(NEWEST, agent, utc_now())
        for write in (render.text, render.markdown, render.html):
            write(digest, None)
        found.append(time.perf_counter() - began)
        total = digest.lead[0].total
        assert agent is not None or total == A_DAY, f"{total} runs on the day"
    return found


def speed(source: Settings, home: Path) -> Iterator[dict[str, Any]]:
    """The rows on a large log."""
    log = Resampled(source, home)
    log.grow(SMALL)
    small = {agent: max(seconds(log.settings, agent)) for agent in (None, "airline-llm_agent")}
    log.grow(RUNS)
    whose = {None: "the shop", "airline-llm_agent": "one agent"}
    large = {agent: max(seconds(log.settings, agent)) for agent in whose}
    for agent, took in large.items():
        name = f"digest of {whose[agent]}, a day of {A_DAY:,} runs, {RUNS:,} in the log, slowest of {TIMES}"
        yield row(name, took, "s", 5, f"with {SMALL:,} in the log", small[agent])
    keep_waiting(log.settings)
    for agent, took in large.items():
        name = f"digest of {whose[agent]}, that day, {WAITING:,} cases and as many reviews waiting, slowest of {TIMES}"
        yield row(name, max(seconds(log.settings, agent)), "s", 5, "with none waiting", took)


async def measure(data: Path, show: bool) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="midwatch-bench-") as name:
        folder = Path(name)
        async with await start_nats(folder / "nats", sync_interval="2m") as server:
            settings = Settings(home=folder / "home", nats_url=server.url, http_port=0)
            telemetry.set_up_logs(settings)  # to standard error
            await real_log(settings, data / "agent-runs" / "runs.jsonl.gz")
        found, ids = await asyncio.to_thread(digests, settings)
        if show:
            largest = max(found, key=lambda one: one.words)
            sys.stderr.write(render.text(largest))
        rows = list(plainness(found, ids))
        return rows + await asyncio.to_thread(lambda: list(speed(settings, folder / "large")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with agent-runs")
    parser.add_argument("--show", action="store_true", help="the longest digest itself, on standard error")
    options = parser.parse_args()
    if not options.data.is_dir():
        sys.exit(f"bench_digest: the real runs are not in {options.data}: name their folder with --data")
    for found in asyncio.run(measure(options.data, options.show)):
        print(json.dumps(found) if options.json else f"{found['name']}: {found['value']} {found['unit']}")


if __name__ == "__main__":
    main()
