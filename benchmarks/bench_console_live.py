"""Two hundred open pages: what they cost the console while agents work and things happen.

`python benchmarks/bench_console_live.py [--json]`. The console runs as the service it is, in a process of its own, on a
real nats-server. Two hundred streams of server-sent events are open, as browsers open them: half on what most pages
follow, half on one agent. Ten processes of agents say each second that they live; 20 run events a second flow, an alert
each half minute. Then the same once more with pages that ask again for the part that moved, as htmx does: alerts twice
(at once, and when the log has it), the switch once; and half of all are Stop, half Agents, which ask each five seconds
whether somebody has fallen silent. The share of a core is the process's own time by /proc, user and system, over the
time that passed.
"""

import argparse
import asyncio
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import load
import nats

from midwatch.contracts import control, subjects
from midwatch.contracts.control import Presence
from midwatch.contracts.envelope import utc_now
from midwatch.runtime import topology
from midwatch.runtime.nats_server import start_nats
from midwatch.runtime.settings import Settings
from midwatch_services.console.access import key, link
from midwatch_services.console.access.roles import Role
from midwatch_services.console.access.session import Sessions
from midwatch_services.console.live import AGAIN

PAGES = 200
INSTANCES = 10
EVENTS = 20  # run events a second
SECONDS = 5.0 if load.QUICK else 30.0
LIMIT = 0.10  # of a core
_STEP = 0.05  # seconds between two events
MOST_FOLLOWED = ("alerts", "switch", "cases")
PARTS = {"alerts": "/alerts?part=1", "switch": "/stop/state", "cases": "/queue?part=1"}
SILENCE = ("/stop/state", "/agents")  # what is asked for again and again, by every page in turn
_SEEN = re.compile(r"seen=(\w+)")
_LATER = 1.5  # seconds until a part asks again for what the log has to store first


def cpu(pid: int) -> float:
    """Seconds of processor that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def begin(settings: Settings, **more: str) -> tuple[asyncio.subprocess.Process, str]:
    """The console's process, once it answers, and its address. `more`: settings of its environment."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "midwatch_services.cli", "run", "console",
        env={**os.environ, "NATS_URL": settings.url, "MIDWATCH_HOME": str(settings.home), "MIDWATCH_CONSOLE_PORT": "0",
             "MIDWATCH_HTTP_PORT": "0", **more},
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    for _ in range(600):
        running = link.read(settings.home)
        if running is not None:
            return child, running.url
        if child.returncode is not None:
            break
        await asyncio.sleep(0.05)
    raise SystemExit("the console did not start")


async def flow(nc: "nats.NATS", until: float) -> int:
    """Things happen until then; how many."""
    js, sent, turn = nc.jetstream(), 0, 0
    applied = dict.fromkeys(subjects.switch_keys("desk"), 1)
    while time.monotonic() < until:
        if turn % int(1 / _STEP) == 0:
            for place in range(INSTANCES):
                said = Presence(agent="desk", instance=f"pod-{place}", version="1", host="h", pid=place,
                                applied=applied, runs_in_flight=["r-1"])  # fmt: skip
                await js.publish(subjects.presence("desk", f"pod-{place}"), control.encode(said))
                sent += 1
        if turn % int(30 / _STEP) == int(1 / _STEP):
            await nc.publish(subjects.alert("desk", "raised"), b"{}")
            sent += 1
        await nc.publish(subjects.run("desk", "said"), b"{}")
        sent, turn = sent + 1, turn + 1
        await asyncio.sleep(_STEP)
    await nc.flush()
    return sent


async def measure() -> list[dict[str, object]]:
    with tempfile.TemporaryDirectory(prefix="midwatch-bench-") as folder:
        settings_of = Path(folder)
        async with await start_nats(settings_of / "nats", sync_interval="2m") as server:
            settings = Settings(home=settings_of / "home", nats_url=server.url, http_port=0, console_port=0)
            nc = await nats.connect(server.url)
            await topology.apply(nc.jetstream(), settings)
            child, url = await begin(settings)
            try:
                return await _measure(settings, nc, child.pid, url)
            finally:
                child.terminate()
                await child.wait()
                await nc.close()


async def _measure(settings: Settings, nc: "nats.NATS", pid: int, url: str) -> list[dict[str, object]]:
    sessions = Sessions(key.load(settings), utc_now)
    name = f"midwatch-session-{url.rsplit(':', 1)[1]}"
    rows = []
    for ask in (False, True):
        pages = Pages(
            url, [f"{name}={sessions.sealed(sessions.begin(f'p-{n}', Role.VIEWER))}" for n in range(PAGES)], ask
        )
        async with pages:
            await asyncio.sleep(0.5)
            before, began, heard = cpu(pid), time.monotonic(), pages.nudges
            sent = await flow(nc, began + SECONDS)
            await asyncio.sleep(_LATER if ask else 0)
            share = (cpu(pid) - before) / (time.monotonic() - began)
        said = f"{sent / SECONDS:.0f} events and {(pages.nudges - heard) / SECONDS:.0f} nudges a second"
        asked = f", {pages.asked + pages.looked} parts asked for" if ask else ""
        rows.append(
            {
                "name": f"{PAGES} open live pages, {said}{asked}", "value": round(100 * share, 2),
                "unit": "% of a core", "target": f"< {100 * LIMIT:.0f}", "peer": "the limit, % of a core",
                "peer_value": 100 * LIMIT, "ratio": round(share / LIMIT, 3),
            }
        )  # fmt: skip
    return rows


class Pages:
    """The open pages. With `ask` those on what most pages follow ask again for the parts that moved."""

    def __init__(self, url: str, cookies: list[str], ask: bool) -> None:
        self._url, self._cookies, self._ask = url, cookies, ask
        self._stack = AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        self.nudges = self.asked = self.looked = 0

    async def __aenter__(self) -> "Pages":
        limits = httpx.Limits(max_connections=None)
        self._client = await self._stack.enter_async_context(
            httpx.AsyncClient(base_url=self._url, limits=limits, timeout=60)
        )
        for place, cookie in enumerate(self._cookies):
            topics = MOST_FOLLOWED if place % 2 else ("runs:desk", "presence:desk", "switch:desk")
            query = "&".join(f"on={topic}" for topic in topics)
            response = await self._stack.enter_async_context(
                self._client.stream("GET", f"/live?{query}", headers={"cookie": cookie})
            )
            if response.status_code != 200:
                raise SystemExit(f"an open page was refused: {response.status_code}")
            self._begin(self._follow(response, cookie))
            if self._ask:
                self._begin(self._look(SILENCE[place // 2 % 2], cookie, AGAIN * place / PAGES))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self, response: httpx.Response, cookie: str) -> None:
        async for line in response.aiter_lines():
            if not line.startswith("data: ") or not (topic := line.removeprefix("data: ")):
                continue
            self.nudges += 1
            if self._ask and topic in PARTS:
                self._begin(self._get(topic, cookie, 0))
                if topic != "switch":
                    self._begin(self._get(topic, cookie, _LATER))

    async def _look(self, path: str, cookie: str, after: float) -> None:
        seen = "0"
        await asyncio.sleep(after)
        while True:
            address = f"{path}?seen={seen}"
            response = await self._client.get(address, headers={"cookie": cookie, "hx-request": "true"})
            if response.status_code not in (200, 204):
                raise SystemExit(f"{path} answered {response.status_code}")
            found = _SEEN.search(response.text)
            seen = found[1] if found else seen
            self.looked += 1
            await asyncio.sleep(AGAIN)

    async def _get(self, topic: str, cookie: str, after: float) -> None:
        await asyncio.sleep(after)
        response = await self._client.get(PARTS[topic], headers={"cookie": cookie, "hx-request": "true"})
        if response.status_code != 200:
            raise SystemExit(f"{PARTS[topic]} answered {response.status_code}")
        self.asked += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--quick", action="store_true", help="a short time: shows that it works")
    options = parser.parse_args()
    if options.quick:
        global SECONDS
        SECONDS = 5.0
    for row in asyncio.run(measure()):
        print(
            json.dumps(row)
            if options.json
            else f"{row['name']}: {row['value']} {row['unit']} (limit {row['peer_value']})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
