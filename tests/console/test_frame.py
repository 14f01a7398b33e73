"""What stands around every page, once every page is there: navigation, Stop, keys, and the pages that say no."""

import pytest
from jinja2 import ChoiceLoader, DictLoader
from nats.js import JetStreamContext
from playwright.async_api import Browser, expect
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from browser_helpers import PHONE, WIDE, axe, fits, picture, window
from console_helpers import console, keep_digests
from midwatch.contracts.envelope import utc_now
from midwatch.runtime.settings import Settings
from midwatch_services.console import filters, routes
from midwatch_services.console.access.roles import Role
from midwatch_services.console.routes import Page
from midwatch_services.console.view import environment, render

pytestmark = pytest.mark.browser


@pytest.mark.parametrize(("theme", "size"), [("light", WIDE), ("dark", PHONE)])
async def test_stop_is_within_reach_and_chosen_for_what_the_page_shows(
    browser: Browser, js: JetStreamContext, settings: Settings, theme: str, size: tuple[int, int]
) -> None:
    async with (
        console(settings) as running,
        window(browser, running, Role.ADMIN, size=size, theme=theme) as page,  # type: ignore[arg-type]
    ):
        await page.goto("/runs?agent=refund-desk")
        await picture(page, f"frame-{theme}-{size[0]}")
        named = await page.locator("nav[aria-label=Pages] a").all_inner_texts()
        assert named == ["Today", "Agents", "Runs", "Review", "Alerts", "Queue", "Writes", "Evals", "Drills", "Audit"]
        assert await page.locator("[aria-current=page]").all_inner_texts() == ["Runs"]
        stop = page.locator("a.stop")
        assert await stop.get_attribute("href") == "/stop?agent=refund-desk"
        box = await stop.bounding_box()
        assert box and box["height"] >= 44 and box["y"] + box["height"] <= size[1]
        assert await axe(page) == []
        assert await fits(page)
        await page.keyboard.press("?")
        await picture(page, f"keys-{theme}-{size[0]}")
        assert await axe(page) == []


async def test_small_targets_are_none(browser: Browser, js: JetStreamContext, settings: Settings) -> None:
    async with console(settings) as running, window(browser, running, size=PHONE) as page:
        await page.goto("/about")
        await page.click("summary")
        small = await page.evaluate(
            "[...document.querySelectorAll('header a, header button, summary')]"
            ".filter(e => e.offsetParent && e.getBoundingClientRect().height < 44).map(e => e.outerHTML)"
        )
        assert small == []


async def test_who_may_not_is_told_in_plain_words(browser: Browser, js: JetStreamContext, settings: Settings) -> None:
    async with console(settings) as running, window(browser, running, Role.VIEWER, silent=False) as page:
        answer = await page.goto("/no-such-page")
        assert answer and answer.status == 404
        await picture(page, "problem-404")
        assert "There is no such page" in await page.inner_text("h1")
        assert await axe(page) == []


_LIVE = """{% extends "base.html" %}{% import "macros.html" as ui with context %}
{% block title %}Live{% endblock %}
{% block main %}<h1>Live</h1>{% call ui.live("count", "/count-test/count", "audit") %}{{ count }}{% endcall %}
{% call(row) ui.table("Some", ["What", "#Many"], [("a", 1)]) %}<td>{{ row[0] }}</td><td>{{ row[1] }}</td>{% endcall %}
{{ ui.pager("/a", "/b") }}{{ ui.said("x" * 700, more="/all") }}{{ now|when }}
{% call ui.form("/today/read") %}<button class="button">Read</button>{% endcall %}{% endblock %}"""


async def test_a_live_part_asks_for_itself_again_when_its_topic_moves(
    browser: Browser, js: JetStreamContext, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_digests(settings)
    counted = [0]

    @routes.page(role=Role.VIEWER)
    async def shown(request: Request) -> Response:
        return render(request, "live_test.html", count=counted[0], now=utc_now())

    @routes.page(role=Role.VIEWER)
    async def count(request: Request) -> Response:
        counted[0] += 1
        return Response(f"{counted[0]} times, {filters.when(utc_now())}", media_type="text/html")

    there = routes.collect()
    page_of_ours = Page(
        "count_test", [Route("/count-test", shown), Route("/count-test/count", count)], "/count-test", Role.VIEWER
    )
    monkeypatch.setattr(routes, "collect", lambda: [*there, page_of_ours])
    loader = environment().loader
    assert loader
    monkeypatch.setattr(environment(), "loader", ChoiceLoader([DictLoader({"live_test.html": _LIVE}), loader]))
    async with console(settings) as running, window(browser, running) as page:
        await page.goto("/count-test")
        await page.wait_for_selector("[data-live-state]:not([hidden])")
        assert "Live: this page follows" in await page.inner_text("[data-live-state]")
        assert await page.inner_text("main > time") == await page.inner_text("main > time[title]")
        assert (await page.inner_text("main > time")).startswith("just now, ")
        await picture(page, "live")
        assert await axe(page) == []
        async with running.person(Role.VIEWER) as ann:
            await ann.act("/today/read")
        for times in (1, 2):  # at once, and once more when it is calm
            await expect(page.locator("#count")).to_contain_text(f"{times} times, just now, ")
        assert counted == [2]
