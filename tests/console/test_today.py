"""The first page in a real browser: read in both themes and on a phone, found by axe to be open to everybody."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from nats.js import JetStreamContext
from playwright.async_api import Browser

import digest_helpers
from browser_helpers import PHONE, WIDE, axe, fits, picture, window
from console_helpers import Running, console, keep_digest
from digest_helpers import runs
from midwatch.contracts.envelope import utc_now
from midwatch.runtime.settings import Settings
from midwatch_services.console.access.roles import Role

pytestmark = pytest.mark.browser

YESTERDAY = utc_now().date() - timedelta(days=1)
HOSTILE = (
    "</li><script>window.ran = 1</script><img src=x onerror='window.ran=2'> \u202egnp.exe \x1b[31m *bold* [a](http://b)"
)


@pytest.fixture
async def running(js: JetStreamContext, settings: Settings) -> AsyncIterator[Running]:
    some = runs(resolved=80, handed_off=15, failed=5)
    some = (*some[:-1], replace(some[-1], cost_usd=some[-1].cost_usd and 50 * some[-1].cost_usd))
    asked = {some[-1].key: HOSTILE, some[-2].key: "I was charged twice for order A-1001, please help"}
    found = digest_helpers.facts(agent=None, day=YESTERDAY, runs=some, asked=asked)
    keep_digest(settings, digest_helpers.write(found))
    async with console(settings) as one:
        yield one


@pytest.mark.parametrize(("theme", "size"), [("light", WIDE), ("dark", WIDE), ("light", PHONE), ("dark", PHONE)])
async def test_the_digest_reads_well_in_every_theme_and_size(
    browser: Browser, running: Running, theme: str, size: tuple[int, int]
) -> None:
    async with window(browser, running, size=size, theme=theme) as page:  # type: ignore[arg-type]
        await page.goto("/")
        assert await page.title() == "Today · Midwatch"
        await picture(page, f"today-{theme}-{size[0]}")
        assert await axe(page) == []
        assert await fits(page)


async def test_what_needs_somebody_comes_before_anything_that_one_may_choose(
    browser: Browser, running: Running
) -> None:
    async with window(browser, running, size=PHONE) as page:
        await page.goto("/")
        needs, choice = await page.locator("#needs").bounding_box(), await page.locator("#day").bounding_box()
        assert needs and choice
        assert needs["y"] + needs["height"] < choice["y"]


async def test_what_customers_wrote_is_shown_as_text_and_nothing_of_it_runs(browser: Browser, running: Running) -> None:
    async with window(browser, running) as page:
        await page.goto("/")
        text = await page.inner_text("article")
        assert "<script>window.ran" in text
        assert "\u202e" not in text
        assert await page.evaluate("window.ran") is None
        assert await page.locator("article script, article img").count() == 0


async def test_one_marks_the_digest_as_read_by_a_key_and_it_is_recorded(browser: Browser, running: Running) -> None:
    async with window(browser, running, Role.VIEWER, by="vera") as page:
        await page.goto("/")
        await page.keyboard.press("?")
        assert "Mark as read" in await page.inner_text("dialog")
        await page.keyboard.press("Escape")
        await page.keyboard.press("r")
        await page.wait_for_selector(".flash")
        assert "recorded that you have read the digest" in await page.inner_text(".flash")
        await picture(page, "today-read")
        assert "You read this" in await page.inner_text("article")
        assert await page.locator("[data-key=r]").count() == 0
        assert await axe(page) == []
    kept = [(one["by"], one["action"], one["target"]) for one in await running.recorded()]
    assert kept == [("vera", "digest.read", YESTERDAY.isoformat())]


async def test_the_colours_that_one_chose_stay(browser: Browser, running: Running) -> None:
    async with window(browser, running) as page:
        await page.goto("/about")
        await page.click("summary")
        await picture(page, "menu")
        assert await axe(page) == []
        await page.click("[data-theme-toggle]")
        await page.click("[data-theme-toggle]")
        assert await page.inner_text("[data-theme-toggle]") == "Colours: dark"
        await page.reload()
        assert await page.evaluate("document.documentElement.dataset.theme") == "dark"
        await picture(page, "about-dark")
        assert await axe(page) == []


@pytest.mark.parametrize("size", [WIDE, PHONE])
async def test_the_first_start_with_nothing_and_the_pages_that_refuse_say_what_to_do_next(
    browser: Browser, js: JetStreamContext, settings: Settings, size: tuple[int, int]
) -> None:
    async with console(settings) as running, window(browser, running, None, size=size) as page:
        await page.goto("/")
        await picture(page, f"sign-in-{size[0]}")
        assert "midwatch console link" in await page.inner_text("main")
        assert await axe(page) == []
        await page.goto(running.link(Role.VIEWER))
        await picture(page, f"today-empty-{size[0]}")
        assert await page.locator("main .command").all_inner_texts() == [
            "source .venv/bin/activate", "midwatch card new refund-desk", "midwatch apply agents/refund-desk.yaml",
            "python examples/ten_line_agent.py", "midwatch demo --keep",
        ]  # fmt: skip
        assert await axe(page) == []
        for path, says in (("/agents", "No agents yet"), ("/runs", "No runs yet")):
            await page.goto(path)
            await picture(page, f"{path[1:]}-empty-{size[0]}")
            assert says in await page.inner_text("main")
            assert await axe(page) == []
            assert await fits(page)
        await page.goto("/about")
        await picture(page, f"about-{size[0]}")
        assert await axe(page) == []
        assert await fits(page)
