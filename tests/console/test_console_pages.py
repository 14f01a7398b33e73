"""What pages show while something is missing, and what open pages cost."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from sqlalchemy.engine import Connection

from console_helpers import Person, Running, console, keep_digest
from digest_helpers import facts, runs, write
from helpers import eventually
from midwatch.contracts import subjects
from midwatch.contracts.envelope import utc_now
from midwatch.runtime.database import migrate
from midwatch.runtime.settings import Settings
from midwatch_services.console import hearing
from midwatch_services.console import reading as module
from midwatch_services.console.access.roles import Role
from midwatch_services.console.live import Hub, Topic
from midwatch_services.console.reading import SEARCHES, SUMS, Found, Reading
from review_helpers import begin, sampler

YESTERDAY = utc_now().date() - timedelta(days=1)


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


COUNTING = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"  # never ends


async def test_searches_that_take_too_long_free_their_threads_and_hold_up_nothing_else(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.to_thread(migrate, settings.database_for(subjects.LOGGER), subjects.LOGGER)
    reading = Reading(settings)
    monkeypatch.setattr(module, "WITHIN", 0.4)

    def endless(conn: Connection) -> int:
        return int(conn.exec_driver_sql(COUNTING).scalar_one())

    slow = [asyncio.create_task(reading.read(subjects.LOGGER, endless, lane=SEARCHES, within=0.4)) for _ in range(4)]
    await asyncio.sleep(0.05)
    assert (await reading.read(subjects.LOGGER, lambda conn: 1)).value == 1
    assert [(await task).problem for task in slow] == ["slow"] * 4
    await eventually(lambda: _is_read(reading), within=2)
    await reading.close()


async def _is_read(reading: Reading) -> bool:
    return (await reading.read(subjects.LOGGER, lambda conn: 1, lane=SEARCHES)).ok


@pytest.mark.postgres
async def test_on_postgresql_too_a_reader_cannot_write_and_its_query_ends(
    settings: Settings, postgres_url: str
) -> None:
    there = settings.model_copy(update={"database_url": postgres_url})
    await asyncio.to_thread(migrate, there.database_for(subjects.DIGEST), subjects.DIGEST)
    reading = Reading(there)

    def write(conn: Connection) -> None:
        conn.exec_driver_sql("DELETE FROM digest_written")

    def endless(conn: Connection) -> int:
        return int(conn.exec_driver_sql(COUNTING).scalar_one())

    assert (await reading.read(subjects.DIGEST, write)).problem == "down"
    assert (await reading.read(subjects.DIGEST, endless, within=0.2)).problem == "slow"
    assert (await reading.read(subjects.DIGEST, lambda conn: 1)).value == 1
    assert (
        await reading.read(subjects.LOGGER, lambda conn: conn.exec_driver_sql("SELECT 1 FROM logger_runs"))
    ).problem == ("none_yet")
    await reading.close()


async def test_what_takes_longer_than_a_page_waits_is_there_for_the_next_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.to_thread(migrate, settings.database_for(subjects.LOGGER), subjects.LOGGER)
    reading = Reading(settings)
    monkeypatch.setattr(module, "WITHIN", 0.1)
    gate, begun = threading.Event(), list[int]()

    def work(conn: Connection) -> int:
        begun.append(1)
        gate.wait(10)
        return 7

    async def asked() -> Found[int]:
        return await reading.read(subjects.LOGGER, work, keep=("sum",), seconds=60, lane=SUMS, within=30)

    assert ((await asked()).problem, (await asked()).problem) == ("slow", "slow")
    gate.set()
    await eventually(lambda: _is_seven(asked))
    assert begun == [1]
    await reading.close()


async def _is_seven(asked: Callable[[], Awaitable[Found[int]]]) -> bool:
    return (await asked()).value == 7


async def test_an_error_that_nobody_foresaw_is_told_and_not_kept(settings: Settings) -> None:
    await asyncio.to_thread(migrate, settings.database_for(subjects.LOGGER), subjects.LOGGER)
    reading = Reading(settings)
    answers = iter([KeyError("new"), 1, KeyError("newer"), 2])

    def work(conn: Connection) -> int:
        found = next(answers)
        if isinstance(found, Exception):
            raise found
        return found

    async def from_bus() -> int:
        raise KeyError("bus")

    async def asked(seconds: float) -> Found[int]:
        return await reading.read(subjects.LOGGER, work, keep=("n",), seconds=seconds, stale=60)

    assert (await asked(60)).problem == "down"
    assert (await asked(1e-6)).value == 1
    assert (await asked(1e-6)).value == 1  # a newer one is fetched, and fails
    await eventually(lambda: next(iter(reading._kept.values())).newer is None)
    assert (await asked(1e-6)).value == 1
    await eventually(lambda: next(iter(reading._kept.values())).newer is None)
    assert (await asked(60)).value == 2
    assert (await reading.ask(from_bus, keep=("b",), seconds=60)).problem == "down"
    await reading.close()


async def test_answers_that_are_over_are_dropped_and_there_is_a_bound(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEPT", 5)
    reading = Reading(settings)

    async def one() -> int:
        return 1

    for place in range(3):
        await reading.ask(one, keep=("brief", place), seconds=1e-6)
    await reading.ask(one, keep=("long", 0), seconds=60)
    assert list(reading._kept) == [("bus", "long", 0)]
    for place in range(1, 9):
        await reading.ask(one, keep=("long", place), seconds=60)
    assert list(reading._kept) == [("bus", "long", place) for place in range(4, 9)]
    await reading.close()


async def test_a_database_that_was_removed_or_restored_is_read_as_it_is_now(
    running: Running, settings: Settings
) -> None:
    keep_digest(settings, write(facts(agent=None, day=YESTERDAY, runs=runs(resolved=4, failed=1))))
    file = Path(settings.database_for(subjects.DIGEST).removeprefix("sqlite:///"))
    async with running.person(Role.VIEWER) as ann:
        assert "5 runs began on this day" in (await ann.get("/")).text
        for one in file.parent.glob(f"{file.name}*"):
            one.unlink()
        assert "5 runs began on this day" not in (await ann.get("/")).text
        assert not file.exists()
        keep_digest(settings, write(facts(agent=None, day=YESTERDAY, runs=runs(resolved=7))))
        assert "7 runs began on this day" in (await ann.get("/")).text


async def test_a_service_that_does_not_read_is_told_on_every_page_until_it_does(
    js: JetStreamContext, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearing, "EVERY", 0.05)
    monkeypatch.setattr(hearing, "GRACE", 0.3)
    said = "Reviews: its service has not read what happened since"

    async def told(ann: Person) -> bool:
        pages = [(await ann.get(path)).text for path in ("/", "/alerts", "/about")]
        assert len({said in page for page in pages}) == 1
        return said in pages[0] and "Does not read" in pages[2]

    async with console(settings) as running, running.person(Role.VIEWER) as ann, running.person() as stranger:
        assert not await told(ann)  # what never ran is not missed
        async with sampler(settings):
            await begin(js, "r-1")
            await asyncio.sleep(0.5)
            assert not await told(ann)
        await eventually(lambda: told(ann))
        assert said not in (await stranger.get("/sign-in")).text
        async with sampler(settings):

            async def silent() -> bool:
                return not await told(ann)

            await eventually(silent)


async def test_a_service_that_reads_and_settles_nothing_is_told(
    nc: Client, js: JetStreamContext, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearing, "STUCK", 0.3)
    looks = hearing.Hearing(js, utc_now)
    await js.publish(subjects.audit("desk", "acted"), b"{}")
    pull = f"$JS.API.CONSUMER.MSG.NEXT.{subjects.GOVERNANCE}.{subjects.LOGGER_GOVERNANCE}"
    held: list[Msg] = []

    async def hold(message: Msg) -> None:
        held.append(message)

    await nc.subscribe("held", cb=hold)
    await nc.publish(pull, b'{"batch": 10, "expires": 20000000000}', reply="held")
    await eventually(lambda: held)
    await looks.look()
    assert looks.deaf == []

    async def deaf() -> list[str]:
        await looks.look()
        return [one.service for one in looks.deaf]

    assert await eventually(deaf) == [subjects.LOGGER]
    await nc.publish(held[0].reply, b"+ACK")

    async def again() -> bool:
        return not await deaf()

    await eventually(again)


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
