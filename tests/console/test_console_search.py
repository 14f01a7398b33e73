"""What one may ask the list of runs, over HTTP from a real console beside a real run log."""

import asyncio
import base64
import contextlib
import inspect
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from urllib.parse import quote

import httpx
import pytest
from nats.js import JetStreamContext

from console_helpers import Running, console
from midwatch.contracts.envelope import utc_now
from midwatch.runtime.settings import Settings
from midwatch_services.commands.runs import runs as command
from midwatch_services.console.access.roles import Role
from midwatch_services.console.search import FILTERS
from reading_helpers import AGENT, fill, refund, run, told_of

NOW = utc_now()
WRONG = {
    "cost_over": ("nan", "sNaN", "Infinity", "1e999", "1e7", "-1", "much", "9" * 500),
    "cost_under": ("-0.01", "1e", "$", "0x1"),
    "slower_than": ("9999999999999d", "9" * 400 + "d", "-5s", "5", "1e3s"),
    "since": ("soon", "9" * 400 + "d", "999999999d", "2026-13-01", "99999-01-01"),
    "until": ("0000-01-01", "7 days", "-7d"),
    "mode": ("all", "LIVE"), "resolution": ("gone",), "verdict": ("good",),
    "text": ("***", "-", "a*", "x" * 501, " ".join(["word"] * 40)),
    "agent": ("a" * 501,),
}  # fmt: skip
ODD = (
    "cost_over=0e999999", "cost_under=1e-999999", "cost_under=1e-50", "slower_than=0s", "slower_than=999999999d",
    "since=0001-01-01", "until=0001-01-01T00:00%2B23:59", "until=9999-12-31T23:59:59-23:59", "since=2026-W01-1",
    "since=%D9%A3d", "agent=fleet", "agent=_fleet", "agent=No+such", "agent=..%2F..", "tool=%00", "ticket=%ED%A0%80",
    "text=%ED%A0%80", "text=%22", "text=%22%22+x", "text=NEAR(a+b)", "version=%F0%9F%92%A9", "agent=a&agent=b",
    "&".join(f"x{at}=1" for at in range(100)), "&".join(f"{name}=x" for name in FILTERS),
)  # fmt: skip


@pytest.fixture
async def running(js: JetStreamContext, settings: Settings) -> AsyncIterator[Running]:
    stopped = told_of("r-1", NOW, action_taken="halted_run")
    await fill(settings, run("r-1", NOW - timedelta(minutes=1), refund("A-1", good=False)), stopped)
    async with console(settings) as one:
        yield one


def _place(*parts: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


async def test_what_cannot_be_asked_is_told_in_the_form(running: Running) -> None:
    async with running.person(Role.VIEWER) as ann:
        for name, values in WRONG.items():
            for value in values:
                page = await ann.get(f"/runs?{name}={quote(value)}")
                assert (name, value[:20], page.status_code) == (name, value[:20], 200)
                assert (name, value[:20], "cannot be asked as it is" in page.text) == (name, value[:20], True)
                assert (name, value[:20], 'aria-invalid="true"' in page.text) == (name, value[:20], True)
                assert (await ann.get(f"/runs.csv?{name}={quote(value)}")).status_code == 400


async def test_no_question_is_too_odd_for_an_answer(running: Running) -> None:
    far = "9999-12-31T23:59:59-23:59"
    places = [_place(far, "r", "a"), _place("0001-01-01T00:00:00+23:59", "r", "a"), _place("x", 1, []),
              _place(NOW.isoformat(), "\ud800", "a"), _place(NOW.isoformat(), "r" * 5000, "a"), "A" * 9000]  # fmt: skip
    asked = [*(f"/runs?{one}" for one in ODD), *(f"/runs.csv?{one}" for one in ODD)]
    asked += [f"/runs?{name}={one}" for one in places for name in ("before", "newer")]
    asked += [f"/runs?text=gift&{name}={one}" for one in places for name in ("before", "newer")]
    asked += [f"/writes?before={one}" for one in places]
    asked += [f"/runs/{AGENT}/r-1?in={quote(one)}&from={place}" for one, place in zip(ODD, places * 9, strict=False)]
    asked += [
        f"/runs/{AGENT}/r-1?page=999999999",
        f"/runs/{AGENT}/r-1?page=" + "9" * 5000,
        "/runs?text=" + "x" * 60_000,
    ]
    async with running.person(Role.VIEWER) as ann:
        for path in asked:
            assert (path[:200], (await ann.get(path)).status_code in (200, 303, 400, 404, 414)) == (path[:200], True)


async def test_a_question_of_a_million_letters_is_refused_and_the_next_is_answered(running: Running) -> None:
    async with running.person(Role.VIEWER) as ann:
        url = httpx.URL(running.url)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(b"GET /runs?text=" + b"x" * 1_000_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):  # it may hang up before it has read all
                assert b" 400 " in (await reader.readline() or b" 400 ")
        writer.close()
        assert (await ann.get("/runs")).status_code == 200


async def test_every_filter_of_the_command_is_on_the_page(running: Running) -> None:
    wanted = set(inspect.signature(command).parameters) - {"limit", "as_json"}
    assert set(FILTERS) == wanted
    async with running.person(Role.VIEWER) as ann:
        page = (await ann.get("/runs")).text
        assert {name for name in wanted if f'name="{name}"' in page} == wanted
        for name in sorted(wanted - {"text", "agent", "mode", "resolution", "verdict"}):
            nobody = {"cost_over": "999", "cost_under": "0", "slower_than": "9d", "since": "2999-01-01", "until": "99d"}
            rows = (await ann.get(f"/runs.csv?{name}={nobody.get(name, 'nobodys')}")).text.splitlines()
            assert (name, len(rows)) == (name, 1)


async def test_what_stopped_a_run_is_told_in_words_and_leads_to_its_alert(running: Running) -> None:
    async with running.person(Role.VIEWER) as ann:
        why = "because it had cost all that one run may cost"
        assert why in (await ann.get("/runs")).text
        page = (await ann.get(f"/runs/{AGENT}/r-1")).text
        assert f"stopped {why}" in page
        assert "cost-watchdog/budget_run" not in page
        assert "The run was stopped" in page
        assert 'href="/alerts/alert-r-1"' in page
