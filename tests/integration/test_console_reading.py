"""What the pages that one reads say, asked over HTTP from a real console beside real databases."""

import csv
import io
import re
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from nats.js import JetStreamContext

from console_helpers import Person, Running, console
from logged import received
from midwatch.contracts import subjects
from midwatch.contracts.control import BudgetRule
from midwatch.contracts.envelope import utc_now
from midwatch.runtime.database import migrate
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Switchboard
from midwatch.testing import card
from midwatch_services.console.access.roles import Role
from midwatch_services.console.others import runs as log_of
from midwatch_services.console.pages import runs as runs_page
from reading_helpers import (
    AGENT,
    FORMULA,
    HOSTILE,
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

NOW = utc_now()
_RUN = re.compile(r'<th scope="row"><a href="(/runs/[^"]+)"')


@pytest.fixture
async def shop(js: JetStreamContext, settings: Settings) -> AsyncIterator[Running]:
    """Two agents with two weeks of runs; the newest run of one has an alert and a judgement of one reviewer."""
    fill(settings, two_weeks(NOW), told_of("run-1001", NOW), judged("run-1001", NOW))
    await arm(js, refund_card(budget=BudgetRule(day="0.08")), card(OTHER))
    async with console(settings) as one:
        yield one


async def listed(ann: Person, path: str) -> list[str]:
    """The ids of the runs on a page of the list, as their links have them."""
    page = await ann.get(path)
    assert page.status_code == 200, page.text
    return [link.split("?")[0].rsplit("/", 1)[1] for link in _RUN.findall(page.text)]


async def test_every_page_answers(shop: Running) -> None:
    async with shop.person(Role.VIEWER) as ann:
        for path in (
            "/",
            "/agents",
            f"/agents/{AGENT}",
            "/runs",
            f"/runs/{AGENT}/run-1001",
            f"/runs/{AGENT}/run-1001/rules",
            f"/compare?a={AGENT}/run-1001&b={AGENT}/run-1002",
            "/today/needs",
            "/runs.csv",
        ):
            page = await ann.get(path)
            assert (path, page.status_code) == (path, 200), page.text[:3000]
