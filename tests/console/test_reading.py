"""The pages that one reads, walked in a real browser: the morning, a search that is shared, the first start, and what
agents and customers wrote."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from nats.js import JetStreamContext
from playwright.async_api import Browser, expect

import digest_helpers
from browser_helpers import PHONE, WIDE, axe, fits, picture, window
from console_helpers import Running, console, keep_digest
from digest_helpers import runs
from helpers import eventually
from midwatch.contracts import subjects
from midwatch.contracts.control import BudgetRule
from midwatch.contracts.envelope import utc_now
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Switchboard
from midwatch.testing import card
from midwatch_services.console import hearing
from midwatch_services.console.access.roles import Role
from reading_helpers import (
    AGENT,
    FORMULA,
    HOSTILE,
    LONG,
    OTHER,
    arm,
    fill,
    judged,
    refund,
    refund_card,
    run,
    told_of,
    two_weeks,
)

pytestmark = pytest.mark.browser

NOW = utc_now()
YESTERDAY = NOW.date() - timedelta(days=1)
LOOKS = [("light", WIDE), ("dark", WIDE), ("light", PHONE), ("dark", PHONE)]


@pytest.fixture
async def running(js: JetStreamContext, settings: Settings) -> AsyncIterator[Running]:
    """A shop with two agents, two weeks of runs, and a run of yesterday that its digest speaks of."""
    told = digest_helpers.facts(agent=None, day=YESTERDAY, runs=runs(resolved=8, failed=1), asked={})
    keep_digest(settings, digest_helpers.write(told))
    events = [*two_weeks(NOW)]
    for one in told.runs:
        events += run(one.run_id, NOW - timedelta(days=1, hours=2), refund(f"C-{one.run_id}"), agent="desk")
    last = next(one.event.data.run_id for one in reversed(events) if one.event.agent == AGENT)
    await fill(settings, iter(events), told_of(last, NOW), judged(last, NOW))
    await arm(js, refund_card())
    await arm(js, refund_card(budget=BudgetRule(run="0.50", day="0.08")), card(OTHER), by="ben")
    await fill(settings, run("run-now", utc_now(), refund("A-1001", good=False), ticket="T-1001"))
    async with console(settings) as one:
        yield one


@pytest.mark.parametrize(("theme", "size"), LOOKS)
async def test_each_page_reads_well_in_every_theme_and_size(
    browser: Browser, running: Running, theme: str, size: tuple[int, int]
) -> None:
    async with window(browser, running, size=size, theme=theme) as page:  # type: ignore[arg-type]
        await page.goto("/runs?agent=refund-desk")
        run_path = await page.locator("#runs tbody th a").first.get_attribute("href") or ""
        other = await page.locator("#runs tbody th a").nth(2).get_attribute("href") or ""
        pair = "&".join(
            f"{name}={path.split('?')[0].removeprefix('/runs/')}" for name, path in (("a", run_path), ("b", other))
        )
        pages = {
            "today": "/", "agents": "/agents", "agent": f"/agents/{AGENT}", "runs": "/runs?since=30d", "run": run_path,
            "compare": f"/compare?{pair}", "no-run": "/runs?tool=teleport", "wrong": "/runs?since=soon&cost_over=much",
        }  # fmt: skip
        for name, path in pages.items():
            await page.goto(path)
            if name == "run":
                await page.wait_for_selector("#rules + div table")
            await picture(page, f"{name}-{theme}-{size[0]}")
            assert (name, await axe(page)) == (name, [])
            assert (name, await fits(page)) == (name, True)


async def test_the_morning_read_goes_from_a_sentence_to_its_run_to_the_next_and_is_recorded(
    browser: Browser, running: Running
) -> None:
    async with window(browser, running, Role.VIEWER, by="vera") as page:
        await page.goto("/")
        assert "1 run failed." in await page.inner_text("article")
        assert "more than the $1.00 that a run may cost" in await page.inner_text("#needs")
        await page.click("article li:has-text('1 run failed.') a")
        await page.wait_for_url("**/runs/desk/r-8")
        assert "Run r-8" in await page.inner_text("h1")
        await page.click("text=All runs of desk")
        await page.wait_for_url("**/runs?agent=desk")
        await page.locator("#runs tbody th a").first.click()
        first = await page.inner_text("h1")
        await page.keyboard.press("n")
        await expect(page.locator("h1")).not_to_have_text(first)
        second = await page.inner_text("h1")
        await page.keyboard.press("p")
        await expect(page.locator("h1")).not_to_have_text(second)
        assert await page.inner_text("h1") == first
        await page.click("text=Today")
        await page.wait_for_selector("article")
        await page.keyboard.press("r")
        await page.wait_for_selector(".flash")
    kept = [(one["by"], one["action"], one["target"]) for one in await running.recorded()]
    assert kept == [("vera", "digest.read", YESTERDAY.isoformat())]


async def test_what_needs_somebody_appears_on_an_open_page_by_itself(
    browser: Browser, running: Running, js: JetStreamContext
) -> None:
    async with window(browser, running, Role.VIEWER) as page:
        await page.goto("/")
        await page.wait_for_selector("[data-live-state]:not([hidden]):not(.is-off)")
        await Switchboard(js).halt_agent(OTHER, reason="wrong prices", by="ben")
        await page.wait_for_selector("#needs :text('wrong prices')")


async def test_that_a_service_does_not_read_is_seen_in_both_themes_and_sizes(
    browser: Browser, js: JetStreamContext, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearing, "EVERY", 0.05)
    monkeypatch.setattr(hearing, "GRACE", 0.2)
    await js.publish(subjects.run("desk", "started"), b"{}")
    reader = await js.pull_subscribe_bind(subjects.LOGGER, subjects.RUNS)
    await (await reader.fetch(1))[0].ack_sync()
    await reader.unsubscribe()
    async with console(settings) as running:
        async with running.person(Role.VIEWER) as ann:

            async def told() -> bool:
                return "its service has not read" in (await ann.get("/agents")).text

            await eventually(told)
        for theme, size in (LOOKS[0], LOOKS[3]):
            async with window(browser, running, Role.VIEWER, size=size, theme=theme) as page:  # type: ignore[arg-type]
                for place in ("/agents", "/about"):
                    await page.goto(place)
                    await expect(page.get_by_text("The run log: its service has not read")).to_have_role("status")
                    assert (place, await axe(page)) == (place, [])
                    assert (place, await fits(page)) == (place, True)
                    await picture(page, f"deaf{place[1:]}-{theme}-{size[0]}")


async def test_a_search_that_is_shared_finds_the_same_for_somebody_else(browser: Browser, running: Running) -> None:
    async with window(browser, running, Role.REVIEWER, by="rosa") as page:
        await page.goto("/runs")
        await page.keyboard.press("/")
        await page.keyboard.type("charged refund*")
        await page.fill("#f-agent", AGENT)
        await page.select_option("#f-resolution", "handed_off")
        await page.click("text=More filters")
        await page.fill("#f-tool", "issue_refund")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/runs?*tool=issue_refund*")
        address, found = page.url, await page.locator("#runs tbody th").all_inner_texts()
        assert found
        async with page.expect_download() as download:
            await page.click("text=Save as a table")
        saved = (await (await download.value).path()).read_text("utf-8").splitlines()
        assert len(saved) == len(found) + 1
    async with window(browser, running, Role.VIEWER, by="vera") as page:
        await page.goto(address)
        assert await page.locator("#runs tbody th").all_inner_texts() == found
        assert await page.input_value("#f-tool") == "issue_refund"


async def test_nothing_that_somebody_wrote_runs_on_any_page(
    browser: Browser, js: JetStreamContext, settings: Settings
) -> None:
    steps = [
        ("started", {"input": HOSTILE, "customer": "c"}),
        ("said", {"by": "customer", "text": FORMULA}),
        ("tool_called", {"tool": "<b>tool", "kind": "read", "arguments": {HOSTILE: HOSTILE}, "result": LONG}),
        ("model_called", {"model": "<i>model", "output": HOSTILE, "error": HOSTILE}),
        ("handed_off", {"to": "human", "reason": HOSTILE, "summary": HOSTILE, "context": {"x": HOSTILE}}),
        ("finished", {"resolution": "failed", "error": HOSTILE}),
    ]  # fmt: skip
    told = told_of("r-1", NOW, title=HOSTILE)
    await fill(settings, run("r-1", utc_now(), steps, version="<v>", ticket=HOSTILE[:60]), told)
    asked = digest_helpers.facts(agent=None, day=YESTERDAY, runs=runs(failed=1), asked={("desk", "r-0"): HOSTILE})
    keep_digest(settings, digest_helpers.write(asked))
    await arm(js, refund_card(purpose=HOSTILE, can=[HOSTILE]))
    path = f"/runs/{AGENT}/r-1"
    async with console(settings) as running, window(browser, running, size=PHONE) as page:
        page.on("dialog", lambda dialog: pytest.fail(f"a dialog opened: {dialog.message}"))
        for place in ("/", "/agents", f"/agents/{AGENT}", "/runs", path, f"/compare?a={AGENT}/r-1&b={AGENT}/r-1"):
            await page.goto(place)
            await expect(page.locator("#rules + div a")).to_have_count(0)  # the rules came in
            assert (place, await page.evaluate("window.ran === undefined")) == (place, True)
            assert (place, await page.locator("main img, main script, main b, main i, main iframe").count()) == (
                place,
                0,
            )
            text = await page.inner_text("main")
            assert (place, "\u202e" in text, "\x1b" in text) == (place, False, False)
            assert (place, await axe(page)) == (place, [])
            assert (place, await fits(page)) == (place, True)
        await page.goto(path)
        assert len(await page.content()) < 200_000
        await page.click("text=Show all of it")
        await page.wait_for_url("**all=*")
        assert (
            await page.locator(".said").evaluate_all("all => Math.max(...all.map(one => one.innerText.length))")
            > 1_000_000
        )
        assert await fits(page)
