"""What agents changed, asked over HTTP from a real console beside a real run log."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from nats.js import JetStreamContext

from console_helpers import Running, console
from midwatch.contracts.envelope import utc_now
from midwatch.runtime.settings import Settings
from midwatch_services.console.access.roles import Role
from midwatch_services.console.others import writes
from reading_helpers import fill, refund, run

NOW = utc_now()


@pytest.fixture
async def running(js: JetStreamContext, settings: Settings) -> AsyncIterator[Running]:
    async with console(settings) as one:
        yield one


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
