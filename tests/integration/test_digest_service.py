"""The digest as a service, on a real server: written at its hour, once, whatever is restarted."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from nats.js import JetStreamContext

from digest_helpers import Crash, log, service
from helpers import eventually
from logged import publish, received
from midwatch.contracts import codec, subjects
from midwatch.contracts.reviews import DigestWritten
from midwatch.runtime import faults
from midwatch.runtime.database import Database
from midwatch.runtime.settings import Settings
from midwatch_services.digest import app, store

MORNING = datetime(2026, 11, 26, 7, 0, tzinfo=UTC)
BEFORE = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def kept(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """Settings on each database."""
    if request.param == "sqlite":
        return settings
    return settings.model_copy(update={"database_url": request.getfixturevalue("postgres_url")})


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "_TICK", 0.05)


def fill(settings: Settings, *days: datetime, agents: tuple[str, ...] = ("desk",)) -> None:
    """A resolved run of each agent on each of the days."""
    found = []
    for at in days:
        for agent in agents:
            run = {"run_id": f"r-{agent}-{at:%d}", "agent": agent}
            found.append(received("started", at=at, stored_at=at, input="Where is my order?", **run))
            later = at + timedelta(seconds=40)
            found.append(received("finished", at=later, stored_at=later, resolution="resolved", seq=1, **run))
    log(settings, found)


async def said(js: JetStreamContext) -> list[tuple[str, DigestWritten]]:
    """Subject and data of every digest on the stream, in order."""
    info = await js.stream_info(subjects.GOVERNANCE)
    found = []
    for seq in range(1, info.state.last_seq + 1):
        message = await js.get_msg(subjects.GOVERNANCE, seq)
        subject = message.subject or ""
        if subject.startswith("midwatch.digest."):
            found.append((subject, codec.decode(subject, message.data or b"").data))
    return found


def at(moment: datetime) -> Callable[[], datetime]:
    return lambda: moment


async def test_at_the_hour_yesterdays_digests_are_published_and_kept(js: JetStreamContext, kept: Settings) -> None:
    fill(kept, BEFORE, agents=("desk", "post-room"))
    async with service(kept, at(MORNING)):
        found = await said(js)
    assert [(subject, data.date) for subject, data in found] == [
        ("midwatch.digest._fleet.written", "2026-11-24"),
        ("midwatch.digest._fleet.written", "2026-11-25"),
        ("midwatch.digest.desk.written", "2026-11-25"),
        ("midwatch.digest.post-room.written", "2026-11-25"),
    ]
    assert "No run began on this day." in found[0][1].text
    whole = found[1][1]
    assert whole.title == "The whole shop: Wednesday, 25 November 2026"
    assert "2 runs of 2 agents began on this day: 2 settled. [1]" in whole.text
    assert whole.html.startswith("<!doctype html>")
    assert 0 < whole.words <= 2000
    assert "wrote “Where is my order?”; the agent settled it after 40 seconds" in found[2][1].text.replace("\n  ", " ")
    database = Database(kept.database_for(subjects.DIGEST))
    try:
        again = database.read_now(lambda conn: store.read(conn, day="2026-11-25", agent="desk"))
    finally:
        database.close()
    assert [one.data for one in again] == [found[2][1]]
    assert again[0].written_at == MORNING


async def test_before_the_hour_only_the_day_before_is_due(js: JetStreamContext, settings: Settings) -> None:
    fill(settings, BEFORE)
    async with service(settings, at(MORNING - timedelta(minutes=1))):
        assert {data.date for _, data in await said(js)} == {"2026-11-23", "2026-11-24"}


async def test_what_was_missed_is_written_once_and_for_two_days_at_most(
    js: JetStreamContext, settings: Settings
) -> None:
    days = [BEFORE - timedelta(days=back) for back in range(5)]
    fill(settings, *days)
    for _ in range(2):
        async with service(settings, at(MORNING)):
            pass
    assert [(data.agent, data.date) for _, data in await said(js)] == [
        ("_fleet", "2026-11-24"), ("desk", "2026-11-24"), ("_fleet", "2026-11-25"), ("desk", "2026-11-25"),
    ]  # fmt: skip


async def test_the_hour_passes_while_the_service_runs(js: JetStreamContext, settings: Settings) -> None:
    fill(settings, BEFORE)
    now = MORNING - timedelta(minutes=1)
    async with service(settings, lambda: now):
        assert "2026-11-25" not in {data.date for _, data in await said(js)}
        now = MORNING

        async def is_said() -> bool:
            return ("desk", "2026-11-25") in [(data.agent, data.date) for _, data in await said(js)]

        await eventually(is_said)


async def test_two_instances_write_one(js: JetStreamContext, kept: Settings) -> None:
    fill(kept, BEFORE)
    async with service(kept, at(MORNING)), service(kept, at(MORNING)):
        pass
    names = [(data.agent, data.date) for _, data in await said(js)]
    assert len(names) == len(set(names)) == 3


@pytest.mark.parametrize("point", ["digest.saved", "digest.committed", "outbox.published"])
async def test_a_crash_at_any_step_loses_and_doubles_nothing(
    js: JetStreamContext, settings: Settings, point: str
) -> None:
    fill(settings, BEFORE)

    def crash(reached: str) -> None:
        if reached == point:
            faults.set_hook(None)
            raise Crash

    faults.set_hook(crash)
    try:
        async with service(settings, at(MORNING)) as task:
            with pytest.raises(Crash):
                async with asyncio.timeout(10):
                    await task
    finally:
        faults.set_hook(None)
    async with service(settings, at(MORNING)):
        names = [(data.agent, data.date) for _, data in await said(js)]
    assert sorted(names) == [("_fleet", "2026-11-24"), ("_fleet", "2026-11-25"), ("desk", "2026-11-25")]


async def test_a_logger_that_is_behind_is_waited_for_and_after_three_hours_it_is_said(
    js: JetStreamContext, settings: Settings
) -> None:
    fill(settings, BEFORE)
    await publish(js, "started", id="unread", input="x")  # stored now; no logger reads here
    info = await js.get_msg(subjects.RUNS, 1)
    assert info.data
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).replace(hour=7, minute=0, second=0, microsecond=0)
    day = (tomorrow - timedelta(days=1)).date().isoformat()
    now = tomorrow
    async with service(settings, lambda: now):
        names = [data.date for _, data in await said(js)]
        assert day not in names, "the event is of that day"
        assert names, "of the day before it is not, and that one is written"
        now = tomorrow + timedelta(hours=3)

        async def is_said() -> bool:
            return day in [data.date for _, data in await said(js)]

        await eventually(is_said)
        (found,) = [data for _, data in await said(js) if data.date == day]
    assert "The run log was not complete when this was written" in found.text


async def test_without_a_run_log_it_waits_and_says_nothing(
    js: JetStreamContext, settings: Settings, tmp_path: Path
) -> None:
    async with service(settings, at(MORNING)) as task:
        assert not task.done()
        assert await said(js) == []
        fill(settings, BEFORE)

        async def is_said() -> bool:
            return len(await said(js)) == 3

        await eventually(is_said)


async def test_a_log_in_which_nothing_ever_ran_is_not_told_of(js: JetStreamContext, settings: Settings) -> None:
    log(settings, [])
    async with service(settings, at(MORNING)):
        assert await said(js) == []
