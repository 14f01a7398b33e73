"""Live pages in a real browser: they say when nothing can arrive, come back by themselves, and take nothing away from
under one's hands."""

import asyncio
import contextlib
import dataclasses
import re
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest
from jinja2 import ChoiceLoader, DictLoader
from nats.js import JetStreamContext
from playwright.async_api import Browser, Page, Route, expect
from starlette import routing
from starlette.requests import Request
from starlette.responses import Response

from browser_helpers import PHONE, axe, fits, window
from console_helpers import Running, console
from helpers import eventually
from midwatch.contracts import subjects
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.settings import Settings
from midwatch_services.console import live, routes
from midwatch_services.console.access import key
from midwatch_services.console.access.roles import Role
from midwatch_services.console.view import environment, render

pytestmark = pytest.mark.browser

_PAGE = """{% extends "base.html" %}{% import "macros.html" as ui with context %}
{% block title %}Live{% endblock %}
{% block main %}<h1>Live</h1>{% call ui.live("part", "/live-test/part", "alerts") %}{{ inside|safe }}{% endcall %}
{% endblock %}"""
_LIVE = "Live: this page follows what happens"


@dataclasses.dataclass
class Part:
    """A part of a page as the test has it: what it holds, and what it waits for before it answers."""

    inside: str = "as it was"
    answers: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    asked: int = 0


@pytest.fixture
async def part(monkeypatch: pytest.MonkeyPatch) -> Part:
    """A page at /live-test with one part that follows alerts."""
    made = Part()
    made.answers.set()

    @routes.page(role=Role.VIEWER)
    async def shown(request: Request) -> Response:
        return render(request, "live_test.html", inside=made.inside)

    @routes.page(role=Role.VIEWER)
    async def inside(request: Request) -> Response:
        made.asked += 1
        await made.answers.wait()
        return Response(made.inside, media_type="text/html")

    there = routes.collect()
    ours = [routing.Route("/live-test", shown), routing.Route("/live-test/part", inside)]
    monkeypatch.setattr(routes, "collect", lambda: [*there, routes.Page("live_test", ours, "", Role.VIEWER)])
    loader = environment().loader
    assert loader
    monkeypatch.setattr(environment(), "loader", ChoiceLoader([DictLoader({"live_test.html": _PAGE}), loader]))
    return made


@pytest.fixture
async def running(part: Part, js: JetStreamContext, settings: Settings) -> AsyncIterator[Running]:
    async with console(settings) as one:
        yield one


@contextlib.asynccontextmanager
async def opened(browser: Browser, running: Running, **how: Any) -> AsyncIterator[Page]:
    """The page of the part, once it is live, with its own clock where `at` says when."""
    at = how.pop("at", None)
    async with window(browser, running, **how) as page:
        if at:
            await page.clock.install(time=at)
        await page.goto("/live-test")
        await expect(page.locator("[data-live-state]")).to_have_text(_LIVE)
        yield page


async def move(js: JetStreamContext) -> None:
    await js.publish(subjects.alert("desk", "raised"), b"{}")


async def asked(part: Part, times: int) -> None:
    await eventually(lambda: part.asked >= times)


async def test_a_page_that_a_proxy_refused_is_live_again_by_itself(browser: Browser, running: Running) -> None:
    refused = 0

    async def proxy(route: Route) -> None:
        nonlocal refused
        refused += 1
        await (route.fulfill(status=502) if refused == 1 else route.continue_())

    async with window(browser, running, silent=False) as page:
        await page.clock.install()
        await page.route("**/live?*", proxy)
        await page.goto("/live-test")
        state = page.locator("[data-live-state]")
        await expect(state).to_contain_text("Not live")
        await page.clock.fast_forward(10_001)
        await expect(state).to_have_text(_LIVE)


async def test_an_open_page_leads_to_signing_in_once_everybody_is_signed_out(
    browser: Browser, running: Running, settings: Settings
) -> None:
    async with opened(browser, running, silent=False) as page:
        await asyncio.to_thread(key.replace, settings)
        await expect(page).to_have_url(re.compile("/sign-in"))


async def test_a_page_says_that_the_console_hears_nothing_and_asks_again_once_it_does(
    browser: Browser, running: Running, part: Part, nats_server: NatsServer
) -> None:
    async with opened(browser, running) as page:
        state = page.locator("[data-live-state]")
        nats_server.kill()
        await expect(state).to_contain_text("Not live: the console hears nothing from the agents just now")
        assert await axe(page) == []
        part.inside = "what happened meanwhile"
        await nats_server.restart()
        await expect(state).to_have_text(_LIVE)
        await expect(page.locator("#part")).to_have_text("what happened meanwhile")


async def test_a_link_that_is_silent_for_forty_seconds_is_taken_for_dead(
    browser: Browser, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "BEAT", 3600)
    is_up = asyncio.Event()

    async def cut(route: Route) -> None:
        await is_up.wait()
        await route.continue_()

    async with opened(browser, running, at=datetime(2026, 11, 26, 12)) as page:
        state = page.locator("[data-live-state]")
        await page.route("**/live?*", cut)
        await page.clock.fast_forward(39_000)
        assert await state.inner_text() == _LIVE
        await page.clock.fast_forward(2_000)
        await expect(state).to_contain_text("Not live")
        is_up.set()
        await expect(state).to_have_text(_LIVE)


async def test_a_beat_is_a_sign_of_life(browser: Browser, running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "BEAT", 0.2)
    asked_for: list[str] = []
    async with opened(browser, running, at=datetime(2026, 11, 26, 12)) as page:
        page.on("request", lambda one: asked_for.append(one.url))
        for _ in range(3):
            await page.clock.fast_forward(20_000)
            await asyncio.sleep(0.3)  # the browser hears a beat
        assert asked_for == []
        assert await page.inner_text("[data-live-state]") == _LIVE


async def test_the_second_ask_is_not_lost_while_the_first_is_under_way(
    browser: Browser, running: Running, part: Part, js: JetStreamContext
) -> None:
    async with opened(browser, running, at=datetime(2026, 11, 26, 12)) as page:
        part.answers.clear()
        await move(js)
        await asked(part, 1)
        await page.clock.fast_forward(1_600)
        part.answers.set()
        await asked(part, 2)


async def test_a_request_that_hangs_does_not_block_its_part(
    browser: Browser, running: Running, part: Part, js: JetStreamContext
) -> None:
    async with opened(browser, running, silent=False) as page:
        assert await page.evaluate("htmx.config.timeout") == 5000
        await page.evaluate("htmx.config.timeout = 200")
        part.answers.clear()
        await move(js)
        await asked(part, 1)
        part.inside = "it came after all"
        await page.wait_for_event("console", lambda said: "htmx:timeout" in said.text)
        part.answers.set()
        await expect(page.locator("#part")).to_have_text("it came after all")


async def test_a_part_that_may_take_longer_is_waited_for(browser: Browser, running: Running) -> None:
    async with window(browser, running) as page:
        await page.goto("/alerts")
        asks = "JSON.parse(document.querySelector('#alerts').getAttribute('hx-request')).timeout"
        assert await page.evaluate(asks) == 10_000


_FORM = """<p>{0}</p><form action="/take"><input id="note" name="note" aria-label="Note"></form>"""


@pytest.mark.parametrize("size", [(1280, 900), PHONE])
async def test_what_somebody_writes_stays_until_they_ask_for_what_changed(
    browser: Browser, running: Running, part: Part, js: JetStreamContext, size: tuple[int, int]
) -> None:
    part.inside = _FORM.format("before")
    async with opened(browser, running, size=size) as page:
        await page.fill("#note", "I am on")
        part.inside = _FORM.format("after")
        await move(js)
        news = page.locator("[data-news]")
        await expect(news).to_contain_text("Something changed.")
        assert await axe(page) == []
        assert await fits(page)
        await page.press("#note", "End")
        await page.keyboard.type(" it")
        assert await page.input_value("#note") == "I am on it"
        assert await page.inner_text("#part p") == "before"
        await news.get_by_role("button", name="Show it").press("Enter")
        await expect(page.locator("#part p")).to_have_text("after")
        assert await page.input_value("#note") == "I am on it"
        await expect(news).to_be_hidden()
        assert await page.evaluate("document.activeElement.id") == "part"


async def test_a_field_that_is_left_empty_lets_the_news_in(
    browser: Browser, running: Running, part: Part, js: JetStreamContext
) -> None:
    part.inside = _FORM.format("before")
    async with opened(browser, running) as page:
        await page.focus("#note")
        part.inside = _FORM.format("after")
        await move(js)
        await expect(page.locator("[data-news]")).to_be_visible()
        await page.keyboard.press("Tab")
        await expect(page.locator("#part p")).to_have_text("after")
        await expect(page.locator("[data-news]")).to_be_hidden()


_LIST = """<p><a href="/about?{0}">{0}</a></p>"""


async def test_a_press_on_what_has_just_come_under_the_thumb_does_not_count(
    browser: Browser, running: Running, part: Part, js: JetStreamContext
) -> None:
    part.inside = _LIST.format("first")
    async with opened(browser, running, size=PHONE, at=datetime(2026, 11, 26, 12)) as page:
        await page.clock.pause_at(datetime(2026, 11, 26, 12, 0, 20))
        part.inside = _LIST.format("newer") + _LIST.format("first")
        box = await page.locator("#part a").bounding_box()
        assert box
        at = (box["x"] + 5, box["y"] + 5)
        await move(js)
        await expect(page.locator("#part a")).to_have_count(2)
        await page.touchscreen.tap(*at)
        await expect(page.locator("[data-news]")).to_contain_text("The page changed under your press")
        assert page.url.endswith("/live-test")
        await page.clock.run_for(600)
        await page.touchscreen.tap(*at)
        await page.wait_for_url("**/about?newer")


async def test_a_press_on_what_stayed_where_it_was_counts_at_once(
    browser: Browser, running: Running, part: Part, js: JetStreamContext
) -> None:
    part.inside = _LIST.format("first")
    async with opened(browser, running, size=PHONE, at=datetime(2026, 11, 26, 12)) as page:
        await page.clock.pause_at(datetime(2026, 11, 26, 12, 0, 20))
        part.inside = _LIST.format("first") + _LIST.format("older")
        await move(js)
        await expect(page.locator("#part a")).to_have_count(2)
        await page.locator("#part a").first.tap()
        await page.wait_for_url("**/about?first")


async def test_the_focus_stays_on_what_it_was_on(
    browser: Browser, running: Running, part: Part, js: JetStreamContext
) -> None:
    part.inside = _LIST.format("first")
    async with opened(browser, running) as page:
        await page.focus("#part a")
        part.inside = _LIST.format("newer") + _LIST.format("first")
        await move(js)
        await expect(page.locator("#part a")).to_have_count(2)
        assert await page.evaluate("document.activeElement.textContent") == "first"


@pytest.mark.parametrize(
    ("happened", "told"),
    [
        ("2026-11-24T23:00:00+01:00", "2 days ago, "),
        ("2026-11-25T00:30:00+01:00", "yesterday, "),
        ("2026-11-25T23:00:00+01:00", "2 hours ago, "),
        ("2026-11-27T12:00:00+01:00", "tomorrow, "),
    ],
)
async def test_days_in_words_are_those_of_the_readers_calendar(
    browser: Browser, running: Running, part: Part, happened: str, told: str
) -> None:
    part.inside = f'<time datetime="{happened}" data-when>then</time>'
    async with opened(browser, running, at="2026-11-26T01:00:00+01:00") as page:
        assert (await page.inner_text("#part time")).startswith(told)


async def test_on_a_phone_the_live_line_is_not_under_the_stop_button(browser: Browser, running: Running) -> None:
    async with opened(browser, running, size=PHONE) as page:
        await page.evaluate("scrollTo(0, document.body.scrollHeight)")
        line, stop = await page.locator("[data-live-state]").bounding_box(), await page.locator(".stop").bounding_box()
        assert line and stop
        assert line["y"] + line["height"] <= stop["y"]
        assert "linear-gradient" in await page.evaluate("getComputedStyle(document.querySelector('.nav ul')).maskImage")


@pytest.mark.parametrize("size", [(1280, 900), PHONE])
async def test_no_choice_of_a_filter_is_cut(browser: Browser, running: Running, size: tuple[int, int]) -> None:
    async with window(browser, running, size=size) as page:
        await page.goto("/runs")
        cut = await page.evaluate(
            """[...document.querySelectorAll('.fields select')].filter(one => {
              if (!one.offsetParent) return false;
              const there = one.offsetWidth; one.style.width = 'auto';
              const wanted = one.offsetWidth; one.style.width = '';
              return wanted > there; }).map(one => one.id)"""
        )
        assert cut == []


async def test_a_key_that_is_held_down_is_pressed_once(browser: Browser, running: Running, part: Part) -> None:
    part.inside = """<button type="button" data-key="a">Take</button>"""
    async with opened(browser, running) as page:
        await page.evaluate(
            "() => { window.taken = 0; document.querySelector('#part button').onclick = () => window.taken += 1; }"
        )
        for _ in range(3):
            await page.keyboard.down("a")
        await page.keyboard.up("a")
        assert await page.evaluate("window.taken") == 1
        await page.focus("#part button")
        for _ in range(3):
            await page.keyboard.down("Enter")
        assert await page.evaluate("window.taken") == 2
