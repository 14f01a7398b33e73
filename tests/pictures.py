"""Takes a picture of every page of the console: light, dark and on a phone, into docs/pictures.

`python tests/pictures.py [--to FOLDER] [--only NAME …]`. A nats-server, the services and the console are started in
this process with four weeks of a shop's runs, alerts, cases, drills and reviews. It ends with 1 where a page answers
anything but 200, where axe finds a barrier, where a page is wider than its window, and where a page has no picture.
"""

import argparse
import asyncio
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nats
from playwright.async_api import Browser, Page, async_playwright
from rich.progress import Progress

from browser_helpers import PHONE, WIDE, axe, fits, window
from console_helpers import Running, console
from midwatch.contracts import subjects
from midwatch.runtime import topology
from midwatch.runtime.nats_server import start_nats
from midwatch.runtime.settings import Settings
from midwatch_services.console import routes
from midwatch_services.console.access.roles import Role
from palette import shrunk
from picture_evals import eval_set
from picture_runs import REFUNDS
from picture_shop import ALERT, CASE, DRILL, RUN, Instances, log_the_past, shop, work

DOCS = Path(__file__).resolve().parents[1] / "docs"
TALLEST = 1800  # pixels of a picture; what is below is the same again
Theme = Literal["light", "dark"]
LOOKS: dict[str, tuple[Theme, tuple[int, int]]] = {
    "light": ("light", WIDE), "dark": ("dark", WIDE), "phone": ("light", PHONE),
}  # fmt: skip


@dataclass(frozen=True)
class Shown:
    """A page in the pictures. `route`: which of the console's it is; `when`: before there was a run, at work, once
    somebody has halted, or spoiled a list of the switch as well; `until`: what has to be there before the picture."""

    name: str
    address: str
    says: str
    route: str = ""
    when: Literal["new", "work", "halted", "spoiled"] = "work"
    role: Role | None = Role.ADMIN
    until: str = "main"

    @property
    def path(self) -> str:
        return self.route or self.address.split("?")[0]


STOP = f"what=agent&agent={REFUNDS}"
PAGES = (
    Shown("sign-in", "/sign-in", "Who is not signed in is told how to get in.", role=None, when="new"),
    Shown("first-start", "/", "Before anything has run, Today says what to do, in order.", when="new"),
    Shown("today", "/", "What needs you, what today costs, and the digest of yesterday."),
    Shown("agents", "/agents", "Each agent in a line: how far it may act, and 14 days of its figures."),
    Shown("agent", f"/agents/{REFUNDS}", "One agent: its card in words, what changed in it, its versions side by side.",
          "/agents/{agent}"),
    Shown("runs", f"/runs?agent={REFUNDS}&resolution=handed_off", "A search; its address can be shared.", "/runs"),
    Shown("run", f"/runs/{REFUNDS}/{RUN}", "What was said on the left, what was looked up and changed on the right.",
          "/runs/{agent}/{run_id:path}", until="#rules + div tbody"),
    Shown("compare", f"/compare?a={REFUNDS}/{RUN}&b={REFUNDS}/run-3001", "Two runs side by side.", "/compare"),
    Shown("review", "/review", "One run at a time, judged by keys."),
    Shown("review-queue", "/review/queue", "What waits to be read."),
    Shown("review-agreement", "/review/agreement", "How often two reviewers say the same."),
    Shown("review-feedback", "/review/feedback", "What reviewers found, for who makes the agent."),
    Shown("alerts", "/alerts", "What wants somebody; one press takes it on."),
    Shown("alert", f"/alerts/{ALERT}", "An alert with its evidence, and who was told of it.", "/alerts/{alert}"),
    Shown("queue", "/queue", "Customers who wait for a person, the longest first."),
    Shown("case", f"/queue/{CASE}", "A case with all that the agent knew.", "/queue/{case}"),
    Shown("writes", "/writes", "What agents changed, and what undoes it."),
    Shown("evals", "/evals", "How each agent does on its cases."),
    Shown("eval-set", f"/evals/{REFUNDS}", "The cases of one agent, and what the gate said of its versions.",
          "/evals/{agent}"),
    Shown("eval-case", f"/evals/{REFUNDS}/charged-twice", "A case: what is said, and what is asked of the agent.",
          "/evals/{agent}/{case}"),
    Shown("drills", "/drills", "When stopping was last tried, with what result, and when it is due."),
    Shown("drill", f"/drills/{DRILL}", "What a drill measured.", "/drills/{drill}"),
    Shown("drill-plan", f"/drills/plan?agent={REFUNDS}", "Beginning a drill, the first of two steps.", "/drills/plan"),
    Shown("audit", "/audit", "Who did what."),
    Shown("about", "/about", "What is up."),
    Shown("stop", f"/stop?agent={REFUNDS}", "Stopping, the first step: what, and why.", "/stop"),
    Shown("stop-confirm", f"/stop/confirm?{STOP}&reason=It+refunds+the+wrong+customers",
          "The second step: one sentence, one button.", "/stop/confirm"),
    Shown("stop-history", "/stop/history", "What was stopped before, and how fast."),
    Shown("stop-proof", f"/stop/proof?{STOP}", "The proof of a halt: who obeys, and who has not said so.",
          "/stop/proof", when="halted"),
    Shown("stop-halted", "/stop", "While something is stopped.", when="halted"),
    Shown("stop-resume", f"/stop/resume?{STOP}", "Starting again takes two steps as well.", "/stop/resume",
          when="halted"),
    Shown("stop-mend", f"/stop/mend?agent={REFUNDS}&list=tools", "A list of stopped tools that cannot be read.",
          "/stop/mend", when="spoiled"),
    Shown("today-halted", "/", "What is stopped stands on top of Today.", when="halted"),
)  # fmt: skip
# Parts of those pages, files, and steps of signing in that show nothing.
NO_PAGES = {
    "/live", "/today/needs", "/runs.csv", "/audit.csv", "/stop/state", "/enter", "/sign-in/begin", "/sign-in/back",
    "/runs/{agent}/{run_id:path}/dossier", "/runs/{agent}/{run_id:path}/rules", "/review/feedback.md",
}  # fmt: skip


class Wrong(Exception):
    """A page that is not as it has to be."""


def pages(only: Sequence[str]) -> tuple[list[Shown], list[str]]:
    """The pages of which there are pictures, and what pages have none."""
    there = {route.path for page in routes.collect() for route in page.routes if not routes.needs(route).is_action}
    known = {one.path for one in PAGES} | NO_PAGES
    shown = [one for one in PAGES if one.path in there and (not only or one.name in only)]
    return shown, [f"{path} has no picture: add it to PAGES of tests/pictures.py" for path in sorted(there - known)]


class Camera:
    """Takes the pictures of one page after the other, and notes what is wrong with them."""

    def __init__(self, browser: Browser, running: Running, folder: Path, dark_room: Page, progress: Progress) -> None:
        self._browser, self._running, self._folder, self._dark_room = browser, running, folder, dark_room
        self._progress, self.wrong = progress, list[str]()
        self.bytes = 0

    async def take(self, shown: Sequence[Shown], task: object) -> None:
        for look, (theme, size) in LOOKS.items():
            for role in dict.fromkeys(one.role for one in shown):
                async with window(self._browser, self._running, role, size=size, theme=theme, silent=False) as page:
                    for one in (one for one in shown if one.role == role):
                        name = f"{one.name}-{look}"
                        self._progress.update(task, description=name)  # type: ignore[arg-type]
                        try:
                            await self._take(page, one, name, size)
                        except Exception as error:
                            self.wrong.append(f"{name}: {str(error).splitlines()[0] if str(error) else error!r}")
                        self._progress.advance(task)  # type: ignore[arg-type]

    async def _take(self, page: Page, one: Shown, name: str, size: tuple[int, int]) -> None:
        answer = await page.goto(one.address)
        if answer is None or answer.status != 200:
            raise Wrong(f"{one.address} answered {answer and answer.status}")
        await page.wait_for_selector(one.until, timeout=10_000)
        await page.evaluate("document.fonts.ready")
        # The window grows with the page, so that what stays at its lower edge stays there in the picture.
        height = await page.evaluate("document.documentElement.scrollHeight")
        await page.set_viewport_size({"width": size[0], "height": max(size[1], min(height, TALLEST))})
        png = await page.screenshot(animations="disabled")
        await page.set_viewport_size({"width": size[0], "height": size[1]})
        small = await shrunk(self._dark_room, png)
        (self._folder / f"{name}.png").write_bytes(small)
        self.bytes += len(small)
        if found := await axe(page):
            raise Wrong(f"axe: {' · '.join(found)}"[:600])
        if not await fits(page):
            raise Wrong("it is wider than its window")


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        sys.exit("pictures: no Chromium is installed (Debian: apt-get install chromium)")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        await browser.close()


async def halt(running: Running, instances: Instances) -> None:
    """An operator presses; one process does not obey."""
    await instances.fall_behind(REFUNDS, "pod-2")
    async with running.person(Role.OPERATOR, "ben") as ben:
        done = await ben.act("/stop/halt", what="agent", agent=REFUNDS, reason="It refunds the wrong customers")
        if done.status_code != 303:
            raise SystemExit(f"pictures: halting answered {done.status_code}")


async def pictures(folder: Path, shown: list[Shown]) -> tuple[list[str], int]:
    """Takes them. Returns what is wrong, and how large all are together."""
    by_time = {when: [one for one in shown if one.when == when] for when in ("new", "work", "halted", "spoiled")}
    with tempfile.TemporaryDirectory(prefix="midwatch-pictures-") as temporary:
        home = Path(temporary)
        async with await start_nats(home / "nats", sync_interval="2m") as server, chromium() as browser:
            settings = Settings(
                home=home / "home", nats_url=server.url, http_port=0, console_port=0, evals=home / "evals"
            )
            nc = await nats.connect(server.url)
            js = nc.jetstream()
            await topology.apply(js, settings)
            dark_room = await browser.new_page()
            with Progress(transient=True) as progress:
                task = progress.add_task("starting", total=len(shown) * len(LOOKS))
                wrong, size = list[str](), 0
                async with console(settings) as running:
                    camera = Camera(browser, running, folder, dark_room, progress)
                    await camera.take(by_time["new"], task)
                    wrong, size = wrong + camera.wrong, size + camera.bytes
                progress.update(task, description="four weeks of runs")
                await log_the_past(settings)
                async with shop(settings, js) as instances, console(settings) as running:
                    await work(settings, nc, js, running)
                    os.environ["NATS_URL"] = server.url
                    await asyncio.to_thread(eval_set, settings.evals)
                    camera = Camera(browser, running, folder, dark_room, progress)
                    await camera.take(by_time["work"], task)
                    if by_time["halted"]:
                        await halt(running, instances)
                        await camera.take(by_time["halted"], task)
                    if by_time["spoiled"]:
                        switch = await js.key_value(subjects.SWITCH)
                        await switch.put(subjects.tools_key(REFUNDS), b"[not a list")
                        await camera.take(by_time["spoiled"], task)
                    wrong, size = wrong + camera.wrong, size + camera.bytes
            await nc.close()
    return wrong, size


def document(shown: Sequence[Shown]) -> Iterator[str]:
    """The page that shows the pictures."""
    yield "# The console in pictures\n"
    yield "Written by `make pictures` from a made-up shop: each page light, dark and on a phone, the long ones"
    yield "cut. What the pages do stands in [console.md](console.md).\n"
    for one in shown:
        yield f"## {one.name.replace('-', ' ').capitalize()}\n\n{one.says}\n"
        cells = " ".join(
            f'<img src="pictures/{one.name}-{look}.png" width="{width}" alt="{one.name.replace("-", " ")}, {look}">'
            for look, width in (("light", 330), ("dark", 330), ("phone", 140))
        )
        yield f"{cells}\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=DOCS / "pictures", metavar="FOLDER", help="where the pictures go")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="these pages alone")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    shown, missing = pages(options.only)
    options.to.mkdir(parents=True, exist_ok=True)
    wrong, size = asyncio.run(pictures(options.to, shown))
    if not options.only and options.to == DOCS / "pictures":
        (DOCS / "pictures.md").write_text("\n".join(document(shown)), encoding="utf-8")
    for line in (*missing, *wrong):
        print(line, file=sys.stderr)
    wrong += missing
    print(f"{len(shown) * len(LOOKS)} pictures in {options.to}, {size / 1e6:.1f} MB; wrong: {len(wrong)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
