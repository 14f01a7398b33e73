"""What agents changed, asked over HTTP from a real console beside a real run log."""

import re
from datetime import datetime, timedelta
from itertools import chain

import pytest
from nats.js import JetStreamContext

from console_helpers import Running, console
from logged import received
from midwatch.contracts.envelope import utc_now
from midwatch.runtime.settings import Settings
from midwatch_services.console.access.roles import Role
from midwatch_services.console.others import writes
from midwatch_services.logger import unread
from reading_helpers import AGENT, Steps, arm, fill, goes_on, refund, refund_card, run

NOW = utc_now()


def given(tool: str, **fields: str) -> Steps:
    """The steps of a run that calls one tool."""
    return [("started", {"input": "Hello"}), ("tool_called", {"tool": tool, **fields})]


async def begun(settings: Settings, run_id: str, steps: Steps, minutes: int = 0) -> None:
    """A run that began so many minutes ago is in the log, and its index does not know of it yet."""
    await goes_on(settings, *run(run_id, NOW - timedelta(minutes=minutes), steps))


async def test_a_write_behind_many_runs_that_wrote_nothing_is_found(
    running: Running, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = [("started", {"input": "Hello"}), ("finished", {"resolution": "resolved"})]
    events = [*run("wrote", NOW - timedelta(hours=9), refund("A-1"))]
    for at in range(120):
        events += run(f"talked-{at}", NOW - timedelta(minutes=at), talk)
    await fill(settings, iter(events))
    async with running.person(Role.VIEWER) as ann:
        page = (await ann.get("/writes")).text
        assert "/runs/refund-desk/wrote" in page
        assert "In the newest 121 runs of these days." in page
        monkeypatch.setattr(writes, "LOOKED_AT", 60)
        page = (await ann.get("/writes?agent=refund-desk")).text
        assert "Nothing in the newest 60 runs: look further back" in page
        for _ in range(2):
            page = (await ann.get(page.split('rel="next" href="')[1].split('"')[0].replace("&amp;", "&"))).text
        assert "/runs/refund-desk/wrote" in page
        assert 'rel="next"' not in page


async def test_what_a_replay_wrote_is_shown_only_where_it_is_asked_for_and_says_so(
    running: Running, settings: Settings
) -> None:
    events = [*run("played", NOW, refund("A-1"), mode="replay"), *run("real", NOW, refund("A-2"))]
    await fill(settings, iter(events))
    async with running.person(Role.VIEWER) as ann:
        page = (await ann.get("/writes")).text
        assert ("/refund-desk/real" in page, "/refund-desk/played" in page) == (True, False)
        page = (await ann.get("/writes?mode=replay")).text
        assert ("/refund-desk/real" in page, "/refund-desk/played" in page) == (False, True)
        assert "<span>Replay</span>" in page
        page = (await ann.get("/writes?mode=all")).text
        assert ("/refund-desk/real" in page, "/refund-desk/played" in page) == (True, True)


async def test_what_a_tool_wrote_in_a_run_that_goes_on_is_there_at_once_and_in_its_place(
    running: Running, settings: Settings
) -> None:
    ended = [*run("oldest", NOW - timedelta(hours=2), refund("A-1")), *run("newest", NOW, refund("A-2"))]
    await fill(settings, iter([*ended, *run("longer", NOW - timedelta(minutes=5), given("lookup_order"))]))
    await begun(settings, "begun", given("issue_refund", kind="write"), minutes=20)
    await begun(settings, "talking", given("lookup_order", kind="read"), minutes=10)
    await begun(settings, "longer", [*given("lookup_order"), *given("issue_refund", kind="write")[1:]], minutes=5)
    await begun(settings, "oldest", [*refund("A-1"), ("said", {"by": "customer", "text": "Thanks"})], minutes=120)
    async with running.person(Role.VIEWER) as ann:
        for asked in ("tool=issue_refund", "tool=issue_refund&agent=refund-desk"):
            page = (await ann.get(f"/writes?{asked}")).text
            assert re.findall(r'href="/runs/refund-desk/(\w+)">Run', page) == ["newest", "longer", "begun", "oldest"]
            assert "In the newest 4 runs of these days." in page
            assert "may be missing" not in page
        assert "Nothing was changed" in (await ann.get("/writes?tool=issue_refund&agent=order-desk")).text


async def test_where_more_runs_are_new_than_it_looks_through_it_says_up_to_when_it_has_all(
    running: Running, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unread, "CALLS", 2)
    await fill(settings, run("ended", NOW - timedelta(hours=1), refund("A-1")))
    for minutes in (30, 20, 10):
        await begun(settings, f"new-{minutes}", given("issue_refund", kind="write"), minutes=minutes)
    async with running.person(Role.VIEWER) as ann:
        page = (await ann.get("/writes?tool=issue_refund")).text
        since = (NOW - timedelta(minutes=30)).isoformat(timespec="seconds").removesuffix("+00:00")
        assert re.search(rf'may be missing if it was made after <time datetime="{since}', page)
        assert "new-10" in page


async def test_what_a_run_that_began_long_ago_changed_just_now_stands_first(
    running: Running, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writes, "SHOWN", 2)
    newer = [run(f"newer-{at}", NOW - timedelta(minutes=30 + at), refund("A-1")) for at in range(4)]
    long_ago = [*run("long-ago", NOW - timedelta(hours=5), refund("A-2", good=False))]
    await fill(settings, chain(*newer, long_ago[:-1]))
    at = utc_now() - timedelta(minutes=2)
    late = received(
        "tool_called", run_id="long-ago", seq=9, agent=AGENT, at=at, stored_at=at, tool="void_refund", kind="write"
    )
    await goes_on(settings, late)
    async with running.person(Role.VIEWER) as ann:
        page = (await ann.get("/writes")).text
        assert re.findall(r'href="/runs/refund-desk/([\w-]+)">Run', page) == ["long-ago", "newer-0", "newer-1"]
        since = r'every change is on this page that was made since <time datetime="([^"]+)"'
        told = re.search(since, page)
        assert told
        assert timedelta(minutes=9) < utc_now() - datetime.fromisoformat(told[1]) < timedelta(minutes=11)
        older = (await ann.get(page.split('rel="next" href="')[1].split('"')[0].replace("&amp;", "&"))).text
        assert re.findall(r'href="/runs/refund-desk/([\w-]+)">Run', older) == ["newer-2", "newer-3"]
        assert "made since" not in older
        assert "long-ago" not in (await ann.get("/writes?mode=replay")).text


async def test_what_writes_is_said_by_the_card_and_where_it_says_nothing_by_the_call(
    js: JetStreamContext, settings: Settings
) -> None:
    await arm(js, refund_card())
    called = [
        *run("no-kind", NOW, given("issue_refund")), *run("other-kind", NOW, given("issue_refund", kind="read")),
        *run("not-on-card", NOW, given("set_address", kind="write")),
        *run("reads", NOW, given("lookup_order", kind="write")), *run("unknown", NOW, given("ping")),
    ]  # fmt: skip
    await fill(settings, iter(called))
    async with console(settings) as running, running.person(Role.VIEWER) as ann:
        page = (await ann.get("/writes")).text
        assert set(re.findall(r'href="/runs/refund-desk/([\w-]+)">Run', page)) == {
            "no-kind",
            "other-kind",
            "not-on-card",
        }
        page = (await ann.get("/writes?tool=issue_refund")).text
        assert set(re.findall(r'href="/runs/refund-desk/([\w-]+)">Run', page)) == {"no-kind", "other-kind"}


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ("from=2026-03-02&to=2026-03-01", "From has to be a day before To or the same, at most 92 days apart"),
        ("from=2025-03-02&to=2026-03-01", "From has to be a day before To or the same, at most 92 days apart"),
        ("from=x", "From has to be a day before To or the same"), ("agent=No", "No agent has such a name"),
        ("tool=" + "x" * 200, "No tool has a name so long"), ("mode=dry", "There is no such kind of run"),
    ],
)  # fmt: skip
async def test_what_cannot_be_asked_is_told_beside_the_form(running: Running, asked: str, why: str) -> None:
    async with running.person(Role.VIEWER) as ann:
        page = await ann.get(f"/writes?{asked}")
        assert page.status_code == 200
        assert why in page.text
        assert 'action="/writes"' in page.text
