"""The reviewer-sampler on a real server: each run is drawn once, whatever repeats, crashes or comes late."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from sqlalchemy.engine import Connection

from helpers import eventually
from midwatch.contracts import codec, control, subjects
from midwatch.contracts.control import Card, ReviewRule
from midwatch.contracts.reviews import ReviewKeyCommitted, ReviewKeyRevealed, ReviewSampled
from midwatch.contracts.runs import RUN_EVENTS
from midwatch.errors import Temporary
from midwatch.runtime import faults
from midwatch.runtime.card_book import CardBook
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.delivery import Received, RunReader
from midwatch.runtime.service import run_services
from midwatch.runtime.settings import Settings
from midwatch_services.reviewer_sampler import audit, store
from midwatch_services.reviewer_sampler.app import SERVICE
from midwatch_services.reviewer_sampler.handlers import Sampler
from midwatch_services.reviewer_sampler.verify import Said

FIELDS: dict[str, dict[str, Any]] = {
    "started": {"input": "hello"},
    "said": {"by": "agent", "text": "hi"},
    "finished": {"resolution": "resolved"},
}


class Crash(BaseException):
    """A process that died."""


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'sampler.db'}"


class Bed:
    """One life of the sampler: what a process has, made anew for each."""

    def __init__(self, url: str, nc: Client, js: JetStreamContext) -> None:
        self.database = Database(url, name="reviewer-sampler")
        self.cards = CardBook(js, nc)
        self.sampler = Sampler(self.database, nc, js, self.cards, lambda: datetime.now(UTC), keep=timedelta(days=30))
        self.reader: RunReader = RunReader(
            nc, js, stream=subjects.RUNS, consumer=subjects.REVIEWER_SAMPLER, service="reviewer-sampler",
            handle=self.sampler.on_events, outbox=self.sampler.outbox,
        )  # fmt: skip

    @contextlib.asynccontextmanager
    async def alive(self) -> AsyncIterator[asyncio.Task[None]]:
        await self.cards.start()
        await self.sampler.load()
        task = asyncio.create_task(self.reader.run())
        try:
            yield task
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Crash):
                await task
            await self.cards.close()
            self.database.close()


async def put_card(js: JetStreamContext, agent: str, rate: float) -> None:
    card = Card(agent=agent, owner="Ann", purpose="p", can=["c"], review=ReviewRule(rate=rate))
    await js.publish(subjects.key_subject(subjects.AGENTS, agent), control.encode(card))


def body(run_id: str, event: str, mode: str = "live", agent: str = "desk", **fields: Any) -> bytes:
    given = {**FIELDS[event], **fields}
    data = RUN_EVENTS[event](run_id=run_id, agent=agent, version="1", mode=mode, seq=0, **given)  # type: ignore[arg-type]
    return codec.encode(codec.envelope("run", event, data, source=f"/agents/{agent}/test", subject=run_id))


async def publish(js: JetStreamContext, run_id: str, event: str = "started", mode: str = "live", **fields: Any) -> None:
    await js.publish(subjects.run("desk", event), body(run_id, event, mode, **fields))


async def handled(js: JetStreamContext) -> bool:
    stream = await js.stream_info(subjects.RUNS)
    info = await js.consumer_info(subjects.RUNS, subjects.REVIEWER_SAMPLER)
    return info.ack_floor is not None and info.ack_floor.stream_seq == stream.state.last_seq


async def bus(js: JetStreamContext, kind: type[Any]) -> list[Said]:
    return [one for one in await audit.read_bus(js) if isinstance(one.data, kind)]


async def sampled(js: JetStreamContext) -> list[str]:
    return sorted(one.data.run_id for one in await bus(js, ReviewSampled) if isinstance(one.data, ReviewSampled))


def received(run_id: str, stored_at: datetime, event: str = "started", mode: str = "live") -> Received:
    subject, data = subjects.run("desk", event), body(run_id, event, mode)
    return Received(codec.decode_run(subject, data), data, subject, None, 1, 1, stored_at, "reply")


@pytest.fixture
async def bed(js: JetStreamContext, nc: Client, database_url: str) -> Bed:
    migrate(database_url, "reviewer-sampler")
    await put_card(js, "desk", 1.0)
    return Bed(database_url, nc, js)


@pytest.fixture
async def short_ack_wait(js: JetStreamContext) -> None:
    info = await js.consumer_info(subjects.RUNS, subjects.REVIEWER_SAMPLER)
    await js.add_consumer(subjects.RUNS, info.config.evolve(ack_wait=0.3))


async def read(bed: Bed, work: Callable[[Connection], Any]) -> Any:
    return await bed.database.read(work)


async def test_a_run_is_drawn_with_the_rate_of_its_card(bed: Bed, js: JetStreamContext) -> None:
    async with bed.alive():
        await publish(js, "run-1", ticket="T-1")
        await eventually(lambda: handled(js))
        await put_card(js, "desk", 0.0)
        await eventually(lambda: bed.cards.get("desk").review.rate == 0.0)
        await publish(js, "run-2")
        await eventually(lambda: handled(js))
        [row] = await read(bed, store.queue)
        assert (row["agent"], row["run_id"], row["ticket"], row["mode"], row["rate"], row["state"]) == (
            "desk", "run-1", "T-1", "live", 1.0, "waiting",
        )  # fmt: skip
        assert await read(bed, store.shares) == [{"agent": "desk", "runs": 2, "drawn": 1, "share": 0.5}]
    [said] = await bus(js, ReviewSampled)
    assert isinstance(said.data, ReviewSampled)
    assert (said.data.run_id, said.data.ticket, said.data.rate, said.data.draw) == ("run-1", "T-1", 1.0, row["draw"])


async def test_an_agent_that_withholds_started_is_drawn_at_its_first_event(bed: Bed, js: JetStreamContext) -> None:
    async with bed.alive():
        await publish(js, "run-1", "finished")
        await eventually(lambda: handled(js))
    assert await sampled(js) == ["run-1"]


async def test_each_run_is_drawn_once_whatever_is_repeated(bed: Bed, js: JetStreamContext) -> None:
    async with bed.alive():
        for _ in range(3):
            for event in ("finished", "said", "started"):
                await publish(js, "run-1", event)
        await eventually(lambda: handled(js))
    assert await sampled(js) == ["run-1"]


async def test_each_run_is_drawn_once_by_a_sampler_that_remembers_nothing(
    bed: Bed, js: JetStreamContext, nc: Client, database_url: str
) -> None:
    async with bed.alive():
        await publish(js, "run-1")
        await eventually(lambda: handled(js))
    again = Bed(database_url, nc, js)
    async with again.alive():
        await publish(js, "run-1", "said")
        await publish(js, "run-2")
        await eventually(lambda: handled(js))
    assert await sampled(js) == ["run-1", "run-2"]


async def test_the_hash_of_the_key_is_published_before_the_first_draw(bed: Bed, js: JetStreamContext) -> None:
    async with bed.alive():
        for n in range(20):
            await publish(js, f"run-{n}")
        await eventually(lambda: handled(js))
    [committed] = await bus(js, ReviewKeyCommitted)
    draws = await bus(js, ReviewSampled)
    assert len(draws) == 20
    assert all(committed.position < one.position for one in draws)
    assert {one.data.key_hash for one in draws if isinstance(one.data, ReviewSampled)} == {
        committed.data.key_hash  # type: ignore[union-attr]
    }


async def test_nothing_is_drawn_while_the_hash_cannot_be_published(
    bed: Bed, js: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any, **__: Any) -> None:
        raise TimeoutError

    await bed.cards.start()
    monkeypatch.setattr(js, "publish", refuse)
    with pytest.raises(Temporary, match=r"midwatch\.review\._fleet\.committed was not acknowledged"):
        await bed.sampler.on_events([received("run-1", datetime.now(UTC))])
    assert await read(bed, store.shares) == []
    monkeypatch.undo()
    await bed.sampler.on_events([received("run-1", datetime.now(UTC))])
    await bed.sampler.outbox.drain()
    assert await sampled(js) == ["run-1"]
    await bed.cards.close()


async def test_a_replay_is_drawn_apart_and_hidden(bed: Bed, js: JetStreamContext) -> None:
    async with bed.alive():
        await publish(js, "run-1", mode="replay")
        await publish(js, "run-1")
        await eventually(lambda: handled(js))
        assert [row["mode"] for row in await read(bed, store.queue)] == ["live"]
        assert [row["mode"] for row in await read(bed, lambda conn: store.queue(conn, mode="replay"))] == ["replay"]
        assert await read(bed, lambda conn: store.shares(conn, track="replay")) == [
            {"agent": "desk", "runs": 1, "drawn": 1, "share": 1.0}
        ]
    modes = sorted(one.data.mode for one in await bus(js, ReviewSampled) if isinstance(one.data, ReviewSampled))
    assert modes == ["live", "replay"]


async def test_the_key_is_revealed_once_the_day_is_over_and_not_before(
    bed: Bed, js: JetStreamContext, nc: Client, database_url: str
) -> None:
    now = datetime.now(UTC)
    await bed.cards.start()
    before = now - timedelta(days=2)  # in the first minutes of a day the one before is not over yet, as clocks differ
    await bed.sampler.on_events([received("today", now), received("before", before)])
    await bed.cards.close()
    again = Bed(database_url, nc, js)  # after a restart
    await again.sampler.reveal()
    [revealed] = await bus(js, ReviewKeyRevealed)
    assert isinstance(revealed.data, ReviewKeyRevealed)
    assert revealed.data.day == before.date().isoformat()
    await again.sampler.reveal()
    assert len(await bus(js, ReviewKeyRevealed)) == 1


async def test_a_clock_that_is_ahead_reveals_nothing_early(bed: Bed, js: JetStreamContext) -> None:
    await bed.cards.start()
    await bed.sampler.on_events([received("today", datetime.now(UTC))])
    await bed.cards.close()
    bed.sampler._now = lambda: datetime.now(UTC) + timedelta(days=7)
    await bed.sampler.reveal()
    assert await bus(js, ReviewKeyRevealed) == []


async def test_an_event_read_after_the_reveal_is_drawn_with_the_key_of_its_day(bed: Bed, js: JetStreamContext) -> None:
    before = datetime.now(UTC) - timedelta(days=3)
    await bed.cards.start()
    await bed.sampler.on_events([received("run-1", before)])
    await bed.sampler.reveal()
    await bed.sampler.on_events([received("run-2", before)])
    await bed.sampler.outbox.drain()
    await bed.cards.close()
    draws = [one.data for one in await bus(js, ReviewSampled) if isinstance(one.data, ReviewSampled)]
    assert {one.run_id for one in draws} == {"run-1", "run-2"}
    assert len({one.key_hash for one in draws}) == 1
    assert len(await bus(js, ReviewKeyCommitted)) == 1


async def test_runs_are_forgotten_when_the_stream_has_forgotten_them(bed: Bed) -> None:
    now = datetime.now(UTC)
    await bed.cards.start()
    await bed.sampler.on_events([received("old", now - timedelta(days=33)), received("new", now - timedelta(days=31))])
    await bed.sampler.prune()
    await bed.cards.close()
    assert await read(bed, store.shares) == [{"agent": "desk", "runs": 1, "drawn": 1, "share": 1.0}]
    assert len(await read(bed, store.queue)) == 2


async def test_an_id_with_a_nul_stops_nothing(bed: Bed, js: JetStreamContext) -> None:
    async with bed.alive():
        await publish(js, "run\0one", ticket="T\0")
        await eventually(lambda: handled(js))
    assert await sampled(js) == ["run\ufffdone"]


POINTS = [
    "delivery.received", "reviewer_sampler.key_saved", "reviewer_sampler.key_published", "reviewer_sampler.saved",
    "delivery.handled", "outbox.read", "outbox.published", "outbox.deleted", "delivery.drained", "delivery.acked",
]  # fmt: skip


@pytest.mark.usefixtures("short_ack_wait")
@pytest.mark.parametrize("point", POINTS)
async def test_a_crash_between_any_two_steps_neither_loses_nor_doubles_a_sample(
    bed: Bed, js: JetStreamContext, nc: Client, database_url: str, point: str
) -> None:
    reached = []

    def die(name: str) -> None:
        if name == point:
            reached.append(name)
            raise Crash

    async with bed.alive() as task:
        faults.set_hook(die)
        try:
            for n in range(3):
                await publish(js, f"run-{n}")
            with pytest.raises(Crash):
                await asyncio.wait_for(task, 20)
        finally:
            faults.set_hook(None)
    assert reached
    again = Bed(database_url, nc, js)
    async with again.alive():
        await eventually(lambda: handled(js))
        assert sorted(row["run_id"] for row in await read(again, store.queue)) == ["run-0", "run-1", "run-2"]
    assert await sampled(js) == ["run-0", "run-1", "run-2"]
    assert len(await bus(js, ReviewKeyCommitted)) == 1


@pytest.mark.postgres
async def test_it_draws_once_on_postgresql_too(js: JetStreamContext, nc: Client, postgres_url: str) -> None:
    url = postgres_url.replace("postgresql://", "postgresql+psycopg://", 1)
    migrate(url, "reviewer-sampler")
    await put_card(js, "desk", 1.0)
    for life in range(2):
        bed = Bed(url, nc, js)
        async with bed.alive():
            for n in range(10 * (life + 1)):
                await publish(js, f"run-{n}", ticket="T\0")
            await publish(js, "run-\0")
            await eventually(lambda: handled(js))
            assert len(await read(bed, store.queue)) == 10 * (life + 1) + 1
            assert await read(bed, lambda conn: store.known(conn, [("desk", "run-1", "live"), ("a", "b", "live")])) == {
                ("desk", "run-1", "live")
            }
            bed.sampler._now = lambda: datetime.now(UTC) - timedelta(days=400)
            await bed.sampler.reveal()
            await bed.sampler.prune()
    assert len(await sampled(js)) == 21


async def test_the_service_draws_and_says_so_as_it_is_wired(js: JetStreamContext, settings: Settings) -> None:
    await put_card(js, "desk", 1.0)
    started = asyncio.Event()
    task = asyncio.create_task(run_services([SERVICE], settings, started=lambda _: started.set(), restart=False))
    try:
        await asyncio.wait_for(started.wait(), 20)
        await publish(js, "run-1")

        async def drawn() -> bool:
            return await sampled(js) == ["run-1"]

        await eventually(drawn)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
