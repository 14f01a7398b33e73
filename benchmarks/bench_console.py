"""The console on a log of one million runs: how fast its pages are, what they weigh, and when something is seen.

`python benchmarks/bench_console.py [--runs N] [--quick] [--json] [--log FILE]`. The log is made by drawing from
published runs, 4,000 a day up to now, with events of the newest 50,000 (`log_builder`); `--log` keeps it in a file, or
takes the one that is there. One run in five was drawn for a review, and those of the last three days wait. The console
runs as the service it is, in a process of its own, on SQLite and a real nats-server. Each page is asked for over HTTP
by one client, each time for another agent, run or search, and where a page keeps sums for a second, after they are
stale; the first three requests are left out. Weight: the page and all that it links, uncompressed. First paint: by
Chromium's own count, of five new windows.
"""

import argparse
import asyncio
import json
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlencode

import bench_console_live
import httpx
import load
import nats
from bench_log_size import DATA, EVENTS_OF
from log_builder import Log, build, build_queue, real_runs

from midwatch.contracts import subjects
from midwatch.contracts.control import BudgetRule
from midwatch.contracts.envelope import utc_now
from midwatch.runtime import topology
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.nats_server import start_nats
from midwatch.runtime.settings import Settings
from midwatch.testing import card
from midwatch_services.cards import bucket
from midwatch_services.console.access import key
from midwatch_services.console.access.roles import Role
from midwatch_services.console.access.session import Sessions
from midwatch_services.reviewer_sampler import store

WARM, TIMES, DAYS = 3, 50, 28
LIMIT, WEIGHT, PAINT = 150, 200, 1.0  # ms, KB, s
WINDOWS = 5
_MISSING = 'class="note warn"'
_ASSET = re.compile(r'(?:href|src)="(/static/[^"]+)"')


@dataclass(frozen=True)
class Page:
    """A page of the console, at another address each time. `shows`: what has to be in it. `apart`: seconds between two
    requests, where sums are kept for one: so that each request pays for them, as somebody's first look does."""

    name: str
    address: Callable[[Log, random.Random], str]
    shows: str
    apart: float = 0.0


def _run(log: Log, chance: random.Random) -> str:
    at = chance.randrange(log.count - log.events_of, log.count)
    return f"/runs/{log.of(at).row.agent}/{log.run_id(at)}"


def _search(**wanted: Any) -> Callable[[Log, random.Random], str]:
    def address(log: Log, chance: random.Random) -> str:
        given = {name: value(log, chance) if callable(value) else value for name, value in wanted.items()}
        return f"/runs?{urlencode(given)}"

    return address


def _agent(log: Log, chance: random.Random) -> str:
    return chance.choice(log.agents)


def _words(log: Log, chance: random.Random) -> str:
    one = log.word(chance.randrange(log.count))
    return chance.choice(["reservation", "the order", '"gift card"', "refund -flight", "cancel*", one, f"please {one}"])


PAGES = (
    Page("Today", lambda *_: "/", "today so far", 1.05),
    Page("Agents", lambda *_: "/agents", "<polyline", 1.05),
    Page("one agent", lambda *given: f"/agents/{_agent(*given)}", "<polyline", 1.05),
    Page("a run", _run, "customer"),
    Page("a search by filters", _search(agent=_agent, resolution="failed", since="30d", cost_over="0.02"), "<form"),
    Page("a search by words", _search(text=_words), "<form"),
    Page("the queue of reviews", lambda *_: "/review/queue", "/runs/"),
    Page("Alerts", lambda *_: "/alerts?state=all", "/alerts/a-"),
)


def make_log(settings: Settings, file: Path | None, count: int) -> Log:
    """The log, where the logger would keep it; it is made where `file` does not hold one yet."""
    url = settings.database_for(subjects.LOGGER)
    here = Path(url.removeprefix("sqlite:///"))
    here.parent.mkdir(parents=True, exist_ok=True)
    events = min(EVENTS_OF, count // 4)
    ended = file and file.with_suffix(".end")
    if file and ended and file.exists() and ended.exists():
        here.symlink_to(file)
        return Log(real_runs(DATA), count, events, _moment(ended.read_text()))
    if file:
        here.symlink_to(file)
    log, begin = Log(real_runs(DATA), count, events, utc_now()), time.perf_counter()
    migrate(url, subjects.LOGGER)
    database = Database(url, name="bench")
    build(database, log)
    database.close()
    if ended:
        ended.write_text(log.end.isoformat())
    sys.stderr.write(f"{count:,} runs written in {time.perf_counter() - begin:.0f} s\n")
    return log


def waited(settings: Settings, log: Log) -> dict[str, Any]:
    """Makes the queue of reviews, and asks what Agents asks of it in the background: what waited on each of 28 days."""
    url = settings.database_for(subjects.REVIEWER_SAMPLER)
    Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    migrate(url, subjects.REVIEWER_SAMPLER)
    database = Database(url, name="bench")
    rows, took = build_queue(database, log), list[float]()
    ends = [(log.end - timedelta(days=back)).timestamp() for back in reversed(range(DAYS))]
    for _ in range(WARM + TIMES):
        begin = time.perf_counter()
        database.read_now(lambda conn: store.backlogs(conn, ends))
        took.append(1000 * (time.perf_counter() - begin))
    database.close()
    p95 = sorted(took[WARM:])[int(0.95 * TIMES)]
    return {
        "name": f"console, what waited for a review on each of {DAYS} days, of {rows:,} that were drawn, in the "
                f"background: p95 of {TIMES}", "value": round(p95, 1), "unit": "ms", "target": f"≤ {LIMIT}",
        "peer": "the limit, ms", "peer_value": LIMIT, "ratio": round(p95 / LIMIT, 3),
    }  # fmt: skip


def _moment(text: str) -> Any:
    return type(utc_now()).fromisoformat(text)


@asynccontextmanager
async def console(count: int, file: Path | None) -> AsyncIterator[tuple[Log, str, tuple[str, str], dict[str, Any]]]:
    """The log, the console's address, the cookie of somebody signed in, and how long the queue of reviews took."""
    with tempfile.TemporaryDirectory(prefix="midwatch-bench-") as folder:
        async with await start_nats(Path(folder) / "nats", sync_interval="2m") as server:
            settings = Settings(home=Path(folder) / "home", nats_url=server.url, http_port=0, console_port=0)
            log = await asyncio.to_thread(make_log, settings, file, count)
            reviews = await asyncio.to_thread(waited, settings, log)
            nc = await nats.connect(server.url)
            js = nc.jetstream()
            await topology.apply(js, settings)
            for agent in log.agents:
                await bucket.apply(js, card(agent, budget=BudgetRule(day="500")), by="bench", now=utc_now())
            child, url = await bench_console_live.begin(settings, MIDWATCH_CONSOLE_REQUESTS="100000")
            sessions = Sessions(key.load(settings), utc_now)
            cookie = f"midwatch-session-{url.rsplit(':', 1)[1]}", sessions.sealed(sessions.begin("bench", Role.ADMIN))
            try:
                yield log, url, cookie, reviews
            finally:
                child.terminate()
                await child.wait()
                await nc.close()


async def measure(count: int, file: Path | None, say: Callable[[dict[str, Any]], None]) -> None:
    async with console(count, file) as (log, url, cookie, reviews):
        say(reviews)
        size, chance = f"{count:,} runs", random.Random(9)
        async with httpx.AsyncClient(base_url=url, timeout=60, cookies=dict([cookie])) as client:
            for page in PAGES:
                for row in await _page(client, page, log, size, chance):
                    say(row)
        for row in await _paint(url, cookie, log, size, chance):
            say(row)


async def _page(
    client: httpx.AsyncClient, page: Page, log: Log, size: str, chance: random.Random
) -> list[dict[str, Any]]:
    took, weight, assets = list[float](), 0, 0
    for turn in range(WARM + TIMES):
        await asyncio.sleep(0 if load.QUICK else page.apart)
        address, begin = page.address(log, chance), time.perf_counter()
        answer = await client.get(address)
        seconds = time.perf_counter() - begin
        if answer.status_code != 200:
            raise SystemExit(f"{address} answered {answer.status_code}")
        if page.shows not in answer.text or _MISSING in answer.text:
            raise SystemExit(f"{address} lacks {page.shows!r}, or says that a part of it could not be read")
        took.append(1000 * seconds)
        weight = max(weight, len(answer.content))
        if not turn:
            assets = await _assets(client, answer)
    first, some = took[0], sorted(took[WARM:])
    p95 = some[int(0.95 * len(some))]
    return [
        {"name": f"console, {page.name}, {size}: p95 of {TIMES} (median {median(some):.0f} ms, the first of all "
                 f"{first:.0f} ms)", "value": round(p95, 1), "unit": "ms", "target": f"≤ {LIMIT}",
         "peer": "the limit, ms", "peer_value": LIMIT, "ratio": round(p95 / LIMIT, 3)},
        {"name": f"console, {page.name}, {size}: heaviest of {TIMES}, with all that it links",
         "value": round((weight + assets) / 1000, 1),
         "unit": "KB", "target": f"≤ {WEIGHT}", "peer": "the limit, KB", "peer_value": WEIGHT,
         "ratio": round((weight + assets) / 1000 / WEIGHT, 3)},
    ]  # fmt: skip


async def _assets(client: httpx.AsyncClient, answer: httpx.Response) -> int:
    """Bytes of what the page links and the browser loads with it."""
    found = 0
    for address in set(_ASSET.findall(answer.text)):
        found += len((await client.get(address.replace("&amp;", "&"))).content)
    return found


async def _paint(
    url: str, cookie: tuple[str, str], log: Log, size: str, chance: random.Random
) -> list[dict[str, Any]]:  # fmt: skip
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        sys.stderr.write("no Chromium is installed: the first paint is not measured\n")
        return []
    from playwright.async_api import async_playwright

    rows = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        for page in PAGES:
            seen = []
            for _ in range(WINDOWS):
                context = await browser.new_context(base_url=url, viewport={"width": 1280, "height": 900})
                await context.add_cookies([{"name": cookie[0], "value": cookie[1], "url": url, "httpOnly": True}])
                window = await context.new_page()
                await window.goto(page.address(log, chance))
                seen.append(await window.evaluate(_FIRST_PAINT) / 1000)
                await context.close()
            rows.append(
                {"name": f"console, {page.name}, {size}: first contentful paint, median of {WINDOWS}",
                 "value": round(median(seen), 3), "unit": "s", "target": f"≤ {PAINT:g}", "peer": "the limit, s",
                 "peer_value": PAINT, "ratio": round(median(seen) / PAINT, 3)}
            )  # fmt: skip
        await browser.close()
    return rows


_FIRST_PAINT = """() => new Promise(done => new PerformanceObserver(list => {
  const one = list.getEntriesByName("first-contentful-paint")[0];
  if (one) done(one.startTime);
}).observe({type: "paint", buffered: true}))"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--quick", action="store_true", help="a small log: shows that it works")
    parser.add_argument("--runs", type=int, metavar="N", help="size of the log; 1,000,000, or with --quick 20,000")
    parser.add_argument("--log", type=Path, metavar="FILE", help="keep the log here, or take the one of that size here")
    options = parser.parse_args()
    load.QUICK = load.QUICK or options.quick
    count = options.runs or (20_000 if load.QUICK else 1_000_000)

    def say(row: dict[str, Any]) -> None:
        text = f"{row['name']}: {row['value']} {row['unit']} (limit {row['peer_value']}, ratio {row['ratio']})"
        print(json.dumps(row) if options.json else text, flush=True)

    asyncio.run(measure(count, options.log and options.log.resolve(), say))
    return 0


if __name__ == "__main__":
    sys.exit(main())
