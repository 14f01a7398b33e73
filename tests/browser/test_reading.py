"""The pages that one reads, walked in a real browser: the morning, a search that is shared, the first start, and what
agents and customers wrote."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from nats.js import JetStreamContext
from playwright.async_api import Browser

import digest_helpers
from browser_helpers import PHONE, WIDE, axe, fits, picture, window
from console_helpers import Running, console, keep_digest
from digest_helpers import runs
from midwatch.contracts.control import BudgetRule
from midwatch.contracts.envelope import utc_now
from midwatch.runtime.settings import Settings
from midwatch.testing import card
from reading_helpers import (
    AGENT,
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
