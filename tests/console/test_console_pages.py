"""What pages show while something is missing, and what open pages cost."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from nats.aio.client import Client
from nats.js import JetStreamContext
from sqlalchemy.engine import Connection

from console_helpers import Running, console, keep_digest
from digest_helpers import facts, runs, write
from helpers import eventually
from midwatch.contracts import subjects
from midwatch.contracts.envelope import utc_now
from midwatch.runtime.database import migrate
from midwatch.runtime.settings import Settings
from midwatch_services.console.access.roles import Role
from midwatch_services.console.live import Hub, Topic
from midwatch_services.console.reading import Reading

YESTERDAY = utc_now().date() - timedelta(days=1)


@pytest.fixture
async def running(js: JetStreamContext, settings: Settings) -> AsyncIterator[Running]:
    async with console(settings) as one:
        yield one


async def test_today_tells_the_digest_that_was_sent_and_links_its_runs(
    js: JetStreamContext, settings: Settings
) -> None:
    keep_digest(settings, write(facts(agent=None, day=YESTERDAY, runs=runs(resolved=4, failed=1))))
    async with console(settings) as running, running.person(Role.VIEWER) as ann:
        page = (await ann.get("/")).text
        assert "5 runs began on this day: 4 settled and 1 failed." in page
        assert 'href="/runs/desk/r-4"' in page
        assert "A minute to read" in page
        assert "No digest of this day yet" in (await ann.get(f"/?day={YESTERDAY - timedelta(days=1)}")).text
        assert [(await ann.get(f"/?{wrong}")).status_code for wrong in ("day=x", "day=0001-01-01", "agent=..%2F")] == [
            404, 404, 404,
        ]  # fmt: skip


async def test_a_database_that_is_spoiled_costs_its_own_block_and_no_more(running: Running, settings: Settings) -> None:
    path = Path(settings.database_for(subjects.DIGEST).removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"this is no database" * 100)
    async with running.person(Role.VIEWER) as ann:
        page = await ann.get("/")
        assert page.status_code == 200
        assert "The daily digests: this cannot be read just now, because the database does not answer." in page.text
        about = await ann.get("/about")
        assert about.status_code == 200
        assert "Does not answer" in about.text


async def test_a_reader_cannot_write_and_what_is_kept_is_asked_for_once(settings: Settings) -> None:
    url = settings.database_for(subjects.DIGEST)
    reading = Reading(settings)
    try:
        missing = await reading.read(subjects.DIGEST, lambda conn: 1)
        assert (missing.ok, missing.problem, missing | 7) == (False, "none_yet", 7)
        await asyncio.to_thread(migrate, url, subjects.DIGEST)
        asked: list[int] = []

        def work(conn: Connection) -> int:
            asked.append(1)
            return int(conn.exec_driver_sql("SELECT count(*) FROM digest_written").scalar_one())

        found = await asyncio.gather(
            *(reading.read(subjects.DIGEST, work, keep=("count",), seconds=60) for _ in range(20))
        )
        assert ([one.value for one in found], asked) == ([0] * 20, [1])
        spoilt = await reading.read(subjects.DIGEST, lambda conn: conn.execute(sa.text("DELETE FROM digest_days")))
        assert spoilt.problem == "down"
        assert (await reading.read(subjects.LOGGER, work)).problem == "none_yet"
    finally:
        await reading.close()


async def test_an_older_answer_is_given_at_once_while_a_newer_one_is_fetched(settings: Settings) -> None:
    reading = Reading(settings)
    answers = iter(range(10))
    gate = asyncio.Event()

    async def work() -> int:
        found = next(answers)
        if found:
            await gate.wait()
        return found

    async def asked() -> int | None:
        return (await reading.ask(work, keep=("n",), seconds=1e-6, stale=60)).value

    assert [await asked(), await asked(), await asked()] == [0, 0, 0]  # one newer answer is under way, and no more
    gate.set()
    await eventually(lambda: next(iter(reading._kept.values())).newer is None)
    assert await asked() == 1
    assert next(answers) in (2, 3)

    async def silent() -> int:
        raise TimeoutError

    assert (await reading.ask(silent)).problem == "slow"
    await reading.close()


async def test_a_thousand_events_are_few_nudges_and_the_last_one_is_told(nc: Client) -> None:
    hub = Hub(nc, {"runs": Topic(("midwatch.run.{agent}.>",))})
    assert hub.known(["runs", "runs:desk", "runs:no agent", "other", "runs"], Role.VIEWER) == ["runs", "runs:desk"]
    heard: list[bytes] = []

    async def listen() -> None:
        async for part in hub.follow(["runs:desk"], lambda: True):
            heard.extend([part])

    task = asyncio.create_task(listen())
    await eventually(lambda: heard)
    await nc.flush()
    for place in range(1000):
        await nc.publish("midwatch.run.desk.said", b"%d" % place)
        await nc.publish("midwatch.run.other.said", b"")
    await nc.flush()
    await eventually(lambda: len(heard) >= 3)  # opened, at once, and once more at the end of the gap
    assert heard[1:3] == [b"event: moved\ndata: runs:desk\n\n"] * 2
    assert len(heard) <= 5
    hub.close()
    await task
    assert hub.pages == 0


async def test_two_hundred_open_pages_cost_less_than_a_tenth_of_a_core(running: Running) -> None:
    async with contextlib.AsyncExitStack() as stack:
        limits = httpx.Limits(max_connections=None)
        many = await stack.enter_async_context(httpx.AsyncClient(base_url=running.url, limits=limits, timeout=10))
        first = []
        for _ in range(200):
            cookie = {"cookie": "=".join(running.cookie(Role.VIEWER))}
            page = many.stream("GET", "/live?on=alerts&on=switch&on=runs", headers=cookie)
            stream = await stack.enter_async_context(page)
            assert stream.status_code == 200
            lines = stream.aiter_lines()
            first.append(await anext(lines))
        assert set(first) == {"retry: 2000"}
        before, began = time.process_time(), time.monotonic()
        await asyncio.sleep(0.9)  # what is measured is that nothing happens
        share = (time.process_time() - before) / (time.monotonic() - began)
    assert share < 0.1, f"{share:.1%} of a core"
