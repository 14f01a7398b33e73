"""A console with nothing but the bus, its switch, and a real Chromium where one is installed."""

import shutil
from collections.abc import AsyncIterator

import pytest
from nats.js import JetStreamContext
from playwright.async_api import Browser, async_playwright

from console_helpers import Running, console
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Switchboard


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Chromium of the system; a test that needs it is skipped where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest.fixture
async def running(js: JetStreamContext, settings: Settings) -> AsyncIterator[Running]:
    async with console(settings) as one:
        yield one


@pytest.fixture
def board(js: JetStreamContext) -> Switchboard:
    return Switchboard(js)
