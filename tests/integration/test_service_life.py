"""A service's life on a real server: in what order it starts, what ends it, what does not."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from faststream.nats import JStream, PullSub
from nats.aio.client import Client
from nats.js import JetStreamContext
from prometheus_client import REGISTRY

from helpers import eventually
from midwatch.contracts import codec, subjects
from midwatch.contracts.runs import Started
from midwatch.runtime import telemetry
from midwatch.runtime.delivery import Received
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.service import Context, Service, ServiceEnded, run_services
from midwatch.runtime.settings import Settings

Build = Callable[[Context], None]


@contextlib.asynccontextmanager
async def _running(build: Build, settings: Settings, *, restart: bool = False) -> AsyncIterator["asyncio.Task[None]"]:
    """The service once it runs; it is ended at the end."""
    up = asyncio.Event()
    service = Service("logger", build, tables=False)
    task = asyncio.create_task(run_services([service], settings, started=lambda _: up.set(), restart=restart))
    waiting = asyncio.create_task(up.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if task.done():
        task.result()
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _publish(js: JetStreamContext, run_id: str) -> None:
    data = Started(run_id=run_id, agent="a", version="1", mode="live", seq=0, input="hello")
    envelope = codec.envelope("run", "started", data, source="/agents/a/i")
    await js.publish(subjects.run("a", "started"), codec.encode(envelope))


def _restarts() -> float:
    return REGISTRY.get_sample_value("midwatch_service_restarts_total", {"service": "logger"}) or 0.0


def _read(context: Context) -> None:
    context.read_runs(subjects.LOGGER, _nothing)


async def _nothing(_: list[Received]) -> None:
    pass


async def test_state_is_loaded_in_order_before_anything_is_read(js: JetStreamContext, settings: Settings) -> None:
    await _publish(js, "r-1")
    seen: list[str] = []

    def build(context: Context) -> None:
        async def load() -> None:
            await asyncio.sleep(0.1)
            seen.append("loaded")

        async def drain() -> None:
            seen.append("drained")

        async def handle(batch: list[Received]) -> None:
            seen.extend(received.event.data.run_id for received in batch)

        context.read_runs(subjects.LOGGER, handle)
        context.on_start(load)
        context.on_start(drain)

    async with _running(build, settings):
        await eventually(lambda: len(seen) == 3)
    assert seen == ["loaded", "drained", "r-1"]


async def test_a_subscriber_of_faststream_leaves_the_streams_limits_as_they_are(
    js: JetStreamContext, settings: Settings
) -> None:
    before = (await js.stream_info(subjects.GOVERNANCE)).config
    heard: list[dict[str, Any]] = []

    def build(context: Context) -> None:
        @context.broker.subscriber(
            "midwatch.alert.>",
            stream=JStream(subjects.GOVERNANCE, declare=False),
            durable=subjects.LOGGER_GOVERNANCE,
            pull_sub=PullSub(batch_size=1),
        )
        async def alert(body: dict[str, Any]) -> None:
            heard.append(body)

    async with _running(build, settings):
        await js.publish(subjects.alert("a", "raised"), b'{"rule": "x"}')
        await eventually(lambda: heard == [{"rule": "x"}])
    assert (await js.stream_info(subjects.GOVERNANCE)).config == before


async def test_a_service_whose_task_dies_ends_with_its_error(js: JetStreamContext, settings: Settings) -> None:
    async def dies() -> None:
        raise ValueError("out of paper")

    with pytest.raises(ValueError, match="out of paper"):
        async with _running(lambda context: context.background(dies), settings) as task:
            await task


async def test_a_task_that_ends_by_itself_is_a_death_as_well(js: JetStreamContext, settings: Settings) -> None:
    async def ends() -> None:
        pass

    with pytest.raises(ServiceEnded, match="its task `watch` ended"):
        async with _running(lambda context: context.background(ends, name="watch"), settings) as task:
            await task


async def test_in_up_a_dead_service_is_started_again_and_counted(js: JetStreamContext, settings: Settings) -> None:
    lives = 0
    before = _restarts()

    def build(context: Context) -> None:
        nonlocal lives
        lives += 1
        life = lives

        async def work() -> None:
            if life == 1:
                raise ValueError("boom")
            await asyncio.Event().wait()

        context.background(work)

    async with _running(build, settings, restart=True) as task:
        await eventually(lambda: lives == 2)
        assert not task.done()
    assert _restarts() == before + 1


async def test_periodic_work_that_raises_goes_on(js: JetStreamContext, settings: Settings) -> None:
    times = 0

    def build(context: Context) -> None:
        async def work() -> None:
            nonlocal times
            times += 1
            raise ValueError("again")

        context.every(0.01, work)

    async with _running(build, settings) as task:
        await eventually(lambda: times >= 3)
        assert not task.done()
    assert 'work="test_periodic_work_that_raises_goes_on' in telemetry.metrics("logger").decode()


async def test_a_service_waits_for_the_topology_and_then_starts(
    nats_server: NatsServer, nc: Client, settings: Settings
) -> None:
    from midwatch.runtime import topology

    async def apply_later() -> None:
        await asyncio.sleep(0.2)
        await topology.apply(nc.jetstream(), settings)

    applying = asyncio.create_task(apply_later())
    async with asyncio.timeout(20), _running(lambda _: None, settings) as task:
        assert not task.done()
    await applying


async def test_a_service_reads_on_after_the_server_was_killed(
    nats_server: NatsServer, nc: Client, js: JetStreamContext, settings: Settings
) -> None:
    seen: set[str] = set()

    def build(context: Context) -> None:
        async def handle(batch: list[Received]) -> None:
            seen.update(received.event.data.run_id for received in batch)

        context.read_runs(subjects.LOGGER, handle)

    async with _running(build, settings) as task:
        await _publish(js, "r-1")
        await eventually(lambda: seen == {"r-1"})
        nats_server.kill()
        await nats_server.restart()
        await eventually(lambda: nc.is_connected)
        await _publish(js, "r-2")
        await eventually(lambda: "r-2" in seen, within=20)
        assert not task.done()
        await eventually(lambda: _is_there(js, subjects.PRESENCE))


async def _is_there(js: JetStreamContext, stream: str) -> bool:
    from nats.js.errors import NotFoundError

    try:
        return bool(await js.stream_info(stream))
    except NotFoundError:
        return False


async def test_a_service_ends_quickly_and_cleanly_while_the_server_is_away(
    nats_server: NatsServer, js: JetStreamContext, settings: Settings
) -> None:
    async with _running(_read, settings) as task:
        nats_server.kill()
        await nats_server.wait()
        async with asyncio.timeout(20):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()


async def test_a_service_without_tables_says_so_when_asked_for_its_database(
    js: JetStreamContext, settings: Settings
) -> None:
    from midwatch.errors import MidwatchError

    with pytest.raises(MidwatchError, match="say tables=True"):
        async with _running(lambda context: context.on_start(context.database.ping), settings):
            pass


async def test_a_task_that_misses_its_cancellation_is_cancelled_again(js: JetStreamContext, settings: Settings) -> None:
    ended = asyncio.Event()

    async def deaf() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with asyncio.timeout(20), _running(lambda context: context.background(deaf), settings):
        pass
    assert ended.is_set()
