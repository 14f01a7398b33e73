"""What browser tests share: somebody's window on a console, and what axe says of a page."""

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page

from console_helpers import Running
from midwatch_services.console.access.roles import Role

WIDE, PHONE = (1280, 900), (390, 844)
_RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


@contextlib.asynccontextmanager
async def window(
    browser: Browser, running: Running, role: Role | None = Role.ADMIN, *, by: str = "ann",
    size: tuple[int, int] = WIDE, theme: Literal["light", "dark"] = "light", silent: bool = True,
) -> AsyncIterator[Page]:  # fmt: skip
    """A window of its own, signed in with `role`. What its page complains of fails the test at the end, unless a page
    that is refused is part of it (`silent=False`); a call to another host fails it always."""
    context = await browser.new_context(
        base_url=running.url, viewport={"width": size[0], "height": size[1]}, color_scheme=theme, locale="en-GB",
        timezone_id="Europe/Berlin", has_touch=size == PHONE,
    )  # fmt: skip
    if role is not None:
        name, value = running.cookie(role, by)
        await context.add_cookies([{"name": name, "value": value, "url": running.url, "httpOnly": True}])
    page = await context.new_page()
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    elsewhere: list[str] = []
    page.on("request", lambda one: None if one.url.startswith((running.url, "data:")) else elsewhere.append(one.url))
    yield page
    await context.close()
    assert not silent or complaints == [], complaints
    assert elsewhere == []


async def axe(page: Page) -> list[str]:
    """What breaks WCAG 2.2 AA on the page, a line each; nothing where all is well."""
    found: Any = await Axe().run(page, options=_RULES)
    return [
        f"{one['id']}: {one['help']}: {node['html'][:200]} {node.get('failureSummary', '')}"
        for one in found.response["violations"]
        for node in one["nodes"]
    ]


async def fits(page: Page) -> bool:
    """Whether nothing makes the page wider than its window."""
    return bool(await page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


async def picture(page: Page, name: str) -> None:
    """A picture of the whole page, where PICTURES names a folder: for people to look at."""
    if folder := os.environ.get("PICTURES"):
        await page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)
