"""Reviewing in a real browser: ten runs by keys alone; every page about reviews and evals in each theme and size."""

import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from playwright.async_api import Browser, Page, Route, expect

import reading_helpers as shop
from browser_helpers import PHONE, WIDE, axe, fits, picture, window
from console_helpers import Running, console
from eval_helpers import put
from gate_helpers import case as result
from gate_helpers import results
from helpers import eventually
from logged import received
from midwatch.contracts import codec, subjects
from midwatch.contracts.governance import EvalCompleted
from midwatch.contracts.runs import Started
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.settings import Settings
from midwatch_services.console.access.roles import Role
from midwatch_services.evals import load
from midwatch_services.logger import store
from review_helpers import judge, judged, put_card, rows, sampler

pytestmark = pytest.mark.browser
AGENT = shop.AGENT
RUNS = [f"run-{number:02d}" for number in range(12)]
SAID = "SELECT run_id, by, verdict, reasons, corrected, note, seconds FROM reviewer_sampler_judgements ORDER BY run_id"
VIEWS = [("light", WIDE), ("dark", WIDE), ("light", PHONE), ("dark", PHONE)]


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"evals": tmp_path / "evals"})


async def keep_runs(js: JetStreamContext, settings: Settings, runs: list[str]) -> None:
    """Runs that began two hours ago: in the log, and in the queue by their first event."""
    url = settings.database_for(subjects.LOGGER)
    migrate(url, subjects.LOGGER)
    database = Database(url)
    began = datetime.now(UTC) - timedelta(hours=2)
    for place, run_id in enumerate(runs):
        steps = shop.refund(f"A-10{place:02d}", good=place % 3 != 1)
        if place == 2:
            steps = [*steps[:1], ("said", {"by": "customer", "text": shop.HOSTILE}), *steps[1:]]
        batch = [
            received(event, run_id=run_id, agent=AGENT, seq=seq, version=shop.NEW, ticket=f"T-{place}",
                     at=began + timedelta(seconds=3 * seq), stored_at=began + timedelta(seconds=3 * seq), **fields)
            for seq, (event, fields) in enumerate(steps)
        ]  # fmt: skip
        await database.write(lambda conn, batch=batch: store.save(conn, batch))  # type: ignore[misc]
        data = Started(run_id=run_id, agent=AGENT, version=shop.NEW, mode="live", seq=0, input="?", ticket=f"T-{place}")
        body = codec.encode(codec.envelope("run", "started", data, source=f"/agents/{AGENT}/t", subject=run_id))
        await js.publish(subjects.run(AGENT, "started"), body)
    database.close()


async def wait_for_queue(settings: Settings, count: int) -> None:
    await eventually(lambda: len(rows(settings, "SELECT 1 FROM reviewer_sampler_queue")) == count)


@pytest.fixture
async def running(js: JetStreamContext, settings: Settings) -> AsyncIterator[Running]:
    await put_card(js, AGENT, minutes_a_day=60)
    async with sampler(settings), console(settings) as one:
        await keep_runs(js, settings, RUNS)
        await wait_for_queue(settings, len(RUNS))
        yield one


async def press(page: Page, *keys: str) -> None:
    """Keys, the last of which goes on to the next page."""
    for key in keys[:-1]:
        await page.keyboard.press(key)
    async with page.expect_navigation():
        await page.keyboard.press(keys[-1])


async def test_ten_runs_are_reviewed_by_keys_alone(browser: Browser, running: Running, js: JetStreamContext) -> None:
    async with window(browser, running, Role.REVIEWER, by="olga") as page:
        await page.goto("/")
        await page.goto("/review")
        await picture(page, "review-light-1280")
        assert "1 of 12 of refund-desk due today" in await page.inner_text("main")
        await press(page, "p")
        assert "run-00: pass." in await page.inner_text(".flash")
        await page.keyboard.press("1")  # does nothing before a fail is meant
        await page.keyboard.press("f")
        await picture(page, "review-reasons-1280")
        assert await axe(page) == []
        await press(page, "1", "3", "3", "4", "Enter")
        assert await page.evaluate("window.ran") is None
        await page.keyboard.press("c")
        await page.keyboard.type("The refund takes five days; p is no key here.")
        await page.keyboard.press("Escape")
        await page.keyboard.press("n")
        await page.keyboard.type("too short")
        await page.keyboard.press("Escape")
        await press(page, "f", "Enter")
        await press(page, "u")
        await press(page, "s")
        await press(page, "e", "2", "Enter")
        assert f"evals/{AGENT}/run-05.yaml" in await page.inner_text(".flash")
        for _ in range(5):
            await press(page, "p")
        assert "12 of 12" not in await page.inner_text("main")
        await page.keyboard.press("?")
        assert "Fail, then reasons by number, then Enter" in await page.inner_text("dialog")
        await page.keyboard.press("Escape")
        await press(page, "q")
        assert "is given back" in await page.inner_text(".flash")
    await judged(js)
    found = {one["run_id"]: one for one in rows(running.settings, SAID)}
    assert [(run, one["verdict"], one["reasons"]) for run, one in found.items()] == [
        ("run-00", "pass", "[]"), ("run-01", "fail", '["promised_too_much","should_have_handed_off"]'),
        ("run-02", "fail", "[]"),
        ("run-03", "unsure", "[]"), ("run-05", "fail", '["wrong_fact"]'),
        *((f"run-{at:02d}", "pass", "[]") for at in range(6, 11)),
    ]  # fmt: skip
    assert (found["run-02"]["corrected"], found["run-02"]["note"]) == (
        "The refund takes five days; p is no key here.", "too short",
    )  # fmt: skip
    assert all(0 <= one["seconds"] < 60 for one in found.values())
    assert found["run-02"]["seconds"] > 0
    assert rows(running.settings, "SELECT run_id FROM reviewer_sampler_claims WHERE over = 0") == []


async def test_a_verdict_key_that_is_held_down_judges_no_run_unread(browser: Browser, running: Running) -> None:
    async with window(browser, running, Role.REVIEWER, by="olga") as page:
        await page.goto("/review")
        async with page.expect_navigation():
            await page.keyboard.down("p")
        read = await page.inner_text("h1")
        for _ in range(3):
            await page.keyboard.down("p")
        await page.keyboard.up("p")
        await page.goto("/review")
        assert await page.inner_text("h1") == read


async def test_two_who_review_at_once_never_see_the_same_run(browser: Browser, running: Running) -> None:
    async with (
        window(browser, running, Role.REVIEWER, by="olga") as one,
        window(browser, running, Role.REVIEWER, by="ben") as other,
    ):
        seen: list[str] = []
        for page in (one, other):
            await page.goto("/review")
        for _ in range(3):
            for page in (one, other):
                seen.append(await page.inner_text("h1"))
                await press(page, "p")
        assert len(set(seen)) == 6


async def test_what_is_written_stays_while_one_looks_on_in_the_run(browser: Browser, running: Running) -> None:
    database = Database(running.settings.database_for(subjects.LOGGER))
    long = received("said", run_id="run-03", agent=AGENT, seq=50, by="customer", text="It is late. " * 300)
    await database.write(lambda conn: store.save(conn, [long]))
    database.close()
    async with window(browser, running, Role.REVIEWER, by="olga") as page:
        await page.goto(f"/review?agent={AGENT}&run=run-03")
        await page.fill("#corrected", "The refund takes five days.")
        await page.fill("#note", "too short")
        await page.keyboard.press("Escape")
        await page.keyboard.press("f")
        await page.keyboard.press("2")
        async with page.expect_navigation():
            await page.get_by_role("link", name="Show all of it").click()
        assert "run-03" in await page.inner_text("h1")
        assert await page.input_value("#corrected") == "The refund takes five days."
        assert await page.input_value("#note") == "too short"
        await page.keyboard.press("f")
        assert await page.locator("#reasons input:checked").count() == 1
        await press(page, "s")
        assert await page.input_value("#corrected") == ""


async def test_the_reasons_close_as_they_open(browser: Browser, running: Running) -> None:
    opened = "[...document.querySelectorAll('[data-opens]')].map(one => one.ariaExpanded)"
    async with window(browser, running, Role.REVIEWER, by="olga") as page:
        await page.goto("/review")
        for key, told, is_open in (
            ("f", ["true", "false"], True), ("e", ["false", "true"], True), ("e", ["false", "false"], False),
            ("f", ["true", "false"], True), ("Escape", ["false", "false"], False),
        ):  # fmt: skip
            await page.keyboard.press(key)
            assert await page.evaluate(opened) == told, key
            assert await page.locator("#reasons").is_visible() == is_open, key
        assert await page.evaluate("document.activeElement.dataset.opens") == "fail"


async def test_a_run_is_held_while_its_page_is_in_sight_however_wrong_the_readers_clock_is(
    browser: Browser, js: JetStreamContext, settings: Settings
) -> None:
    await put_card(js, AGENT, claim=8.0)
    held = "SELECT until FROM reviewer_sampler_claims"
    async with sampler(settings), console(settings) as running:
        await keep_runs(js, settings, RUNS[:1])
        await wait_for_queue(settings, 1)
        async with window(browser, running, Role.REVIEWER, by="olga") as page:
            await page.add_init_script("const now = Date.now; Date.now = () => now() - 86400000;")
            await page.goto("/review")
            first = rows(settings, held)[0]["until"]
            await eventually(lambda: rows(settings, held)[0]["until"] > first + 1)
            assert "Held for you" in await page.inner_text("#hold")


SLEEPS = "const now = Date.now; window.slept = 0; Date.now = () => now() + window.slept * 1000;"
UNTIL = "SELECT until FROM reviewer_sampler_claims"


async def test_after_a_sleep_a_run_is_held_on_at_once_and_none_is_called_held_whose_time_is_over(
    browser: Browser, running: Running
) -> None:
    async with window(browser, running, Role.REVIEWER, by="olga", silent=False) as page:
        await page.add_init_script(SLEEPS)
        await page.goto("/review")
        first = rows(running.settings, UNTIL)[0]["until"]
        await page.evaluate("slept += 1000")
        await eventually(lambda: rows(running.settings, UNTIL)[0]["until"] > first)
        await page.route("**/review/extend", lambda route: route.abort())

        async def is_told() -> bool:
            await page.evaluate("slept += 4000")
            return "others may be reading it by now" in await page.inner_text("#hold")

        await eventually(is_told)
        assert await axe(page) == []


@pytest.mark.parametrize("status", [0, 429, 503])
async def test_a_request_that_is_lost_does_not_end_the_holding(browser: Browser, running: Running, status: int) -> None:
    async with window(browser, running, Role.REVIEWER, by="olga", silent=False) as page:
        await page.add_init_script(SLEEPS)
        lost: list[str] = []

        async def lose(route: Route) -> None:
            lost.append(route.request.url)
            await (route.fulfill(status=status) if status else route.abort())

        await page.route("**/review/extend", lose, times=1)
        await page.goto("/review")
        first = rows(running.settings, UNTIL)[0]["until"]
        await page.evaluate("slept += 1000")
        await eventually(lambda: len(lost) == 1)

        async def is_held_on() -> bool:
            await page.evaluate("slept += 20")  # the page may hear only now that it was lost
            return bool(rows(running.settings, UNTIL)[0]["until"] > first)

        await eventually(is_held_on)
        await expect(page.locator("#hold")).to_contain_text("Held for you")


async def test_a_run_is_held_on_once_the_service_that_hands_out_runs_is_there_again(
    browser: Browser, js: JetStreamContext, settings: Settings
) -> None:
    await put_card(js, AGENT)
    async with console(settings) as running, window(browser, running, Role.REVIEWER, by="olga") as page:
        await page.add_init_script(SLEEPS)
        async with sampler(settings):
            await keep_runs(js, settings, RUNS[:1])
            await wait_for_queue(settings, 1)
            await page.goto("/review")
        first = rows(settings, UNTIL)[0]["until"]
        await page.evaluate("slept += 1000")
        await expect(page.locator("#hold")).to_contain_text("It could not be held for longer just now")
        async with sampler(settings):

            async def is_held_on() -> bool:
                await page.evaluate("slept += 20")
                return bool(rows(settings, UNTIL)[0]["until"] > first)

            await eventually(is_held_on)
            await expect(page.locator("#hold")).to_contain_text("Held for you")


@pytest.mark.parametrize(("theme", "size"), VIEWS)
async def test_pages_of_reviews_read_well_in_every_theme_and_size(
    browser: Browser, running: Running, nc: Client, theme: Any, size: tuple[int, int]
) -> None:
    for by in ("ann", "ben"):
        await judge(nc, by, "run-01", "fail", agent=AGENT, reasons=["tone"], corrected="We are sorry.", note="rude")
    await judge(nc, "ann", "run-03", agent=AGENT)
    week = datetime.now(UTC).isocalendar()
    async with window(browser, running, Role.REVIEWER, by="olga", size=size, theme=theme) as page:
        for path, name in (
            ("/review", "review"), ("/review/queue", "review-queue"), ("/review/agreement", "review-agreement"),
            (f"/review/feedback?week={week.year}-W{week.week:02d}", "review-feedback"),
        ):  # fmt: skip
            await page.goto(path)
            await picture(page, f"{name}-{theme}-{size[0]}")
            assert await axe(page) == [], path
            assert await fits(page), path
            assert len(await page.content()) < 200_000


@pytest.mark.parametrize("size", [WIDE, PHONE])
async def test_pages_with_nothing_say_what_to_do_next(
    browser: Browser, js: JetStreamContext, settings: Settings, size: tuple[int, int]
) -> None:
    async with console(settings) as running, window(browser, running, Role.REVIEWER, size=size) as page:
        for path in ("/review", "/review/queue", "/review/agreement", "/review/feedback", "/evals"):
            await page.goto(path)
            await picture(page, f"empty{path.replace('/', '-')}-{size[0]}")
            assert await page.locator(".empty").count() == 1, path
            assert await axe(page) == [], path
            assert await fits(page), path


CASE = """\
case: {name}
about: The customer was charged twice
from: {{run: run-05, version: "2026-11-20"}}
conversation:
  - I was charged twice for order A-1001.
  - "Order A-1001, and please <b>hurry</b>"
expect:
  says: [refund]
  says_not: guarantee
  calls: [lookup_order]
  writes:
    - {{tool: issue_refund, arguments: {{order_id: A-1001, amount: 39.9}}}}
  max_steps: 8
"""


async def eval_set(settings: Settings, js: JetStreamContext) -> None:
    """Cases of the shop's agent, the results of a replay, and two words of the gate."""
    for name in ("duplicate-charge", "late-parcel", "lost-parcel"):
        put(settings.evals.parent, f"{name}.yaml", CASE.format(name=name))
    shutil.move(settings.evals / "desk", settings.evals / AGENT)
    twin = load.load(AGENT, settings.evals)[0][0]
    (settings.evals / AGENT / "stress").mkdir()
    (settings.evals / AGENT / "stress" / "duplicate-charge-shouting.yaml").write_text(
        "case: duplicate-charge-shouting\n"
        f"twin: {{of: duplicate-charge, how: shouting, hash: {twin.hash}}}\n"
        "conversation: [I WAS CHARGED TWICE FOR ORDER A-1001., NOW]\n"
    )
    cases = {one.name: one for one in load.load(AGENT, settings.evals)[0]}
    made = [
        result(name, "f" if name in ("late-parcel", "duplicate-charge-shouting") else "p", hash=case.hash)
        for name, case in cases.items()
    ]
    folder = settings.evals / AGENT / "results"
    folder.mkdir()
    (folder / "new.json").write_bytes(msgspec.json.encode(results(made, "2026-11-20", agent=AGENT)))
    for version, verdict, worse in (("2026-11-10", "passed", []), ("2026-11-20", "failed", ["late-parcel"])):
        data = EvalCompleted(
            agent=AGENT, version=version, verdict=verdict, why="It got worse: 1 of 3 cases fail that passed.",  # type: ignore[arg-type]
            baseline="2026-11-01", cases=3, gating=9, passed=3 - len(worse), baseline_passed=3, regressions=worse,
        )  # fmt: skip
        body = codec.encode(codec.envelope("eval", "completed", data, source="/people/command-line"))
        await js.publish(subjects.evaluated(AGENT, "completed"), body)


@pytest.mark.parametrize(("theme", "size"), VIEWS)
async def test_pages_of_evals_read_well_in_every_theme_and_size(
    browser: Browser, js: JetStreamContext, settings: Settings, theme: Any, size: tuple[int, int]
) -> None:
    await eval_set(settings, js)
    async with console(settings) as running, window(
        browser, running, Role.REVIEWER, by="olga", size=size, theme=theme
    ) as page:  # fmt: skip
        for path, name in (
            ("/evals", "evals"), (f"/evals/{AGENT}", "evals-agent"), (f"/evals/{AGENT}/late-parcel", "evals-case"),
            (f"/evals/{AGENT}/duplicate-charge-shouting", "evals-twin"),
        ):  # fmt: skip
            await page.goto(path)
            await picture(page, f"{name}-{theme}-{size[0]}")
            assert await axe(page) == [], path
            assert await fits(page), path
        assert "duplicate-charge, in capitals" in await page.inner_text("main")
        await page.goto(f"/evals/{AGENT}/late-parcel")
        async with page.expect_navigation():
            await page.keyboard.press("a")
        assert "Noted. One more person has to agree before it gates." in await page.inner_text(".flash")
        assert "You agree with these criteria" in await page.inner_text("main")
        assert await axe(page) == []
