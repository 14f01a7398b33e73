"""What one may ask the list of runs, over HTTP from a real console beside a real run log."""

import asyncio
import base64
import contextlib
import inspect
import json
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from html import unescape
from itertools import chain
from urllib.parse import quote, urlencode

import httpx
import pytest
from nats.js import JetStreamContext
from typer.testing import CliRunner

from console_helpers import Running, console
from midwatch.contracts.envelope import utc_now
from midwatch.runtime.settings import Settings
from midwatch_services import cli
from midwatch_services.commands.runs import runs as command
from midwatch_services.console.access.roles import Role
from midwatch_services.console.others import runs as log_of
from midwatch_services.console.search import FILTERS
from midwatch_services.logger import unread
from reading_helpers import AGENT, fill, goes_on, refund, run, told_of

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


async def test_a_run_that_goes_on_is_found_by_tool_and_words_in_its_place_on_every_page_and_by_the_command(
    running: Running, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_of, "PAGE", 2)
    await fill(settings, run("r-0", NOW - timedelta(minutes=30), refund("A-2")))
    for run_id, minutes in (("r-2", 10), ("r-3", 20)):
        await goes_on(settings, *[*run(run_id, NOW - timedelta(minutes=minutes), refund("A-2"))][:-2])
    for asked in ({"tool": "issue_refund"}, {"text": "charged twi*"}, {"text": "charged", "tool": "issue_refund"}):
        words = chain(*((f"--{name}", text) for name, text in asked.items()))
        done = CliRunner().invoke(cli.app, ["runs", *words, "--json"])
        assert done.stderr == ""
        assert [json.loads(line)["run_id"] for line in done.stdout.splitlines()] == ["r-1", "r-2", "r-3", "r-0"]
        async with running.person(Role.VIEWER) as ann:
            first = (await ann.get(f"/runs?{urlencode(asked)}")).text
            second = (await ann.get(_leads(first, "next"))).text
            back = (await ann.get(_leads(second, "prev"), follow_redirects=True)).text
            pages = [re.findall(r'href="/runs/refund-desk/(r-\d)', page) for page in (first, second, back)]
            assert pages == [["r-1", "r-2"], ["r-3", "r-0"], ["r-1", "r-2"]]
            assert "cannot all be searched yet" not in first
            table = (await ann.get(f"/runs.csv?{urlencode(asked)}")).text
            assert re.findall(r'^"(r-\d)"', table, re.MULTILINE) == ["r-1", "r-2", "r-3", "r-0"]


async def test_where_more_goes_on_than_a_search_looks_at_page_file_and_command_say_so(
    running: Running, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unread, "CALLS", 0)
    await goes_on(settings, *[*run("r-2", utc_now() - timedelta(minutes=3), refund("A-2"))][:-2])
    async with running.person(Role.VIEWER) as ann:
        for tool in ("issue_refund", "nobodys"):
            page = (await ann.get(f"/runs?tool={tool}")).text
            assert "What was said and done in the last 3 minutes cannot all be searched yet" in page
        assert "could not all be searched yet" in (await ann.get("/runs.csv?tool=issue_refund")).text
        assert "searched yet" not in (await ann.get("/runs?mode=live")).text
    done = CliRunner().invoke(cli.app, ["runs", "--tool", "issue_refund"])
    assert done.stderr == "midwatch: not all of the last 3 minutes can be searched yet\n"


def _leads(page: str, rel: str) -> str:
    return unescape(page.split(f'rel="{rel}" href="')[1].split('"')[0])
