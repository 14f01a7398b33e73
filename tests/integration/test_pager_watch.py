"""Who watches the watchdog: events that cost-watchdog leaves lying page, and its catching up ends that."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

from helpers import eventually
from logged import publish as run_event
from midwatch.contracts import subjects
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.service import run_services
from midwatch.runtime.settings import Settings
from midwatch.runtime.telemetry import metrics
from midwatch_services import registry
from midwatch_services.pager import watch
from pager_helpers import FILE, SECRET, Clock, Receiver, Ticks, alerts_said, listening, pager, told, write_file

BEHIND = "watchdog: {behind: 0.3s}\ngroups: {calm: 0.1s}\n"


@pytest.fixture
def people() -> Iterator[Receiver]:
    with listening() as found:
        yield found


@pytest.fixture(autouse=True)
def ticks(monkeypatch: pytest.MonkeyPatch) -> Ticks:
    monkeypatch.setenv("PAGER_SECRET", SECRET)
    monkeypatch.setattr(watch, "LOOK", 0.05)
    monkeypatch.setattr(watch, "CAUGHT_UP", 0.3)
    return Ticks(monkeypatch)


async def publish(js: JetStreamContext, count: int) -> None:
    for _ in range(count):
        await js.publish(subjects.run("desk", "started"), b"{}")


async def take(js: JetStreamContext, count: int, *, ack: bool = True) -> None:
    """What cost-watchdog does with its events, as far as its consumer can tell."""
    reader = await js.pull_subscribe_bind(subjects.COST_WATCHDOG, subjects.RUNS)
    for message in await reader.fetch(count):
        if ack:
            await message.ack_sync()
    await reader.unsubscribe()


async def test_events_that_nobody_reads_page_and_catching_up_ends_it(
    js: JetStreamContext, settings: Settings, people: Receiver
) -> None:
    write_file(settings, FILE % {"url": people.url} + BEHIND)
    async with pager(settings):
        for seq in range(3):
            await run_event(js, "model_called", seq=seq, model="m")
        [page] = await told(people, "/ann", "page")
        data = page.said["data"]
        assert (data["rule"], data["agent"], data["severity"]) == ("watchdog_behind", "_fleet", "page")
        assert data["title"].startswith("cost-watchdog is 0 s behind: 3 events wait for it")
        watchdog = asyncio.create_task(run_services([registry.load("cost-watchdog")], settings))
        try:
            await told(people, "/ann", "page", "ended", within=20)
        finally:
            watchdog.cancel()
            await asyncio.gather(watchdog, return_exceptions=True)
        said = await alerts_said(js, "watchdog_behind")
        assert [event for event, _ in said] == ["raised", "resolved"]
        assert (said[0][1].limit, said[1][1].reason) == (0.3, "cost-watchdog has caught up")
        assert b'midwatch_watchdog_lag_seconds{service="pager"} 0.0' in metrics("pager")


async def test_events_that_are_taken_and_never_acknowledged_page(
    js: JetStreamContext, settings: Settings, people: Receiver
) -> None:
    write_file(settings, FILE % {"url": people.url} + BEHIND)
    async with pager(settings):
        await publish(js, 1)
        await take(js, 1, ack=False)
        await told(people, "/ann", "page")


async def test_a_stream_in_which_nothing_happens_is_no_lag(
    js: JetStreamContext, nc: Client, settings: Settings, people: Receiver, ticks: Ticks
) -> None:
    write_file(settings, FILE % {"url": people.url} + BEHIND)
    await publish(js, 2)
    await take(js, 2)
    clock = Clock()
    async with pager(settings, clock):
        await ticks.settled(js, settings)
        clock.forward(hours=5)
        await ticks.settled(js, settings)
        assert await watch.lag(nc, subjects.RUNS, subjects.COST_WATCHDOG) == (0, 0.0)
        assert await alerts_said(js) == []


async def test_the_lag_is_the_age_of_the_oldest_event_that_is_not_acknowledged(
    js: JetStreamContext, nc: Client
) -> None:
    await publish(js, 2)
    await take(js, 1)
    await asyncio.sleep(0.2)
    found = await watch.lag(nc, subjects.RUNS, subjects.COST_WATCHDOG)
    assert found is not None
    assert found.waiting == 1
    assert 0.2 <= found.seconds < 2
    assert await watch.lag(nc, subjects.RUNS, "nobody") is None


async def test_time_without_nats_is_not_the_watchdogs(
    js: JetStreamContext, nats_server: NatsServer, settings: Settings, people: Receiver, ticks: Ticks
) -> None:
    write_file(settings, FILE % {"url": people.url} + "watchdog: {behind: 30s}\n")
    await publish(js, 1)
    clock = Clock()
    async with pager(settings, clock):
        await ticks.settled(js, settings)
        await nats_server.stop()
        clock.ahead += timedelta(minutes=10)
        await nats_server.start()
        await eventually(lambda: ticks.settled_once(js), within=20)
        assert await alerts_said(js) == []
        await ticks.settled(js, settings)
        assert people.calls == []
