"""What the watchdog remembers: across processes, failures and time. Real NATS and SQLite; the clock is the test's."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from nats.js import JetStreamContext

from midwatch.contracts import subjects
from midwatch.contracts.codec import RunEvent
from midwatch.contracts.control import BudgetRule, Card, LoopRule
from midwatch.contracts.runs import Finished, ModelCalled, RunData, ToolCalled, Usage
from midwatch.errors import Temporary
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.delivery import Received
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Switchboard
from midwatch_services.cost_watchdog import policy
from midwatch_services.cost_watchdog.handlers import Watchdog

AGENT = "refund-desk"
START = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)


class Cards:
    """Stands in for the card book: every agent has this card."""

    def __init__(self) -> None:
        self.card = Card(agent=AGENT, owner="o", purpose="p", can=["c"])

    def get(self, agent: str) -> Card:
        return self.card


class World:
    """One database, one server, one clock, and as many watchdogs as a test asks for."""

    def __init__(self, settings: Settings, js: JetStreamContext) -> None:
        self.url = settings.database_for(subjects.COST_WATCHDOG)
        self.js = js
        self.cards = Cards()
        self.now = self.began = datetime.now(UTC)
        self.databases: list[Database] = []

    async def watchdog(self) -> Watchdog:
        database = Database(self.url, name=subjects.COST_WATCHDOG)
        self.databases.append(database)
        cards: Any = self.cards
        watchdog = Watchdog(database, self.js, cards, lambda: self.now, timedelta(days=30))
        await watchdog.load()
        return watchdog

    async def tick(self, watchdog: Watchdog, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        await watchdog.on_tick()

    async def halted(self) -> set[str]:
        records = (await Switchboard(self.js).read(subjects.runs_key(AGENT))).map() or {}
        return {run_id for run_id, record in records.items() if record.state == "halted"}

    async def count(self, table: str) -> int:
        query = sa.text(f"SELECT count(*) FROM cost_watchdog_{table}")
        return int(await self.databases[0].read(lambda conn: conn.execute(query).scalar_one()))


@pytest.fixture
async def world(settings: Settings, js: JetStreamContext) -> AsyncIterator[World]:
    world = World(settings, js)
    migrate(world.url, subjects.COST_WATCHDOG)
    yield world
    for database in world.databases:
        database.close()


def received(data: RunData, id: str | None = None) -> Received:
    event = RunEvent(AGENT, "", id or f"{data.run_id}-{data.seq}", START, f"/agents/{AGENT}/pod-7", data)
    return Received(event, b"", "", None, 1, 1, START, "")


def common(seq: int, run_id: str, **fields: Any) -> dict[str, Any]:
    return {"run_id": run_id, "agent": AGENT, "version": "1", "mode": "live", "seq": seq, **fields}


def spend(amount: str, seq: int, run_id: str = "run-1", **fields: Any) -> Received:
    return received(ModelCalled(**common(seq, run_id, **fields), model="m", cost_usd=amount))


def call(seq: int, run_id: str = "run-1") -> Received:
    return received(ToolCalled(**common(seq, run_id), tool="lookup_order", result="not found"))


def finish(seq: int, run_id: str = "run-1") -> Received:
    return received(Finished(**common(seq, run_id), resolution="resolved"))


async def say(watchdog: Watchdog, *events: Received) -> None:
    await watchdog.on_events(list(events))
    await watchdog.outbox.drain()


async def test_a_gap_closes_after_five_seconds_without_a_further_event(world):
    watchdog = await world.watchdog()
    await say(watchdog, *(call(seq) for seq in (0, 1, 2, 3, 4, 6)))
    await world.tick(watchdog, 4.9)
    assert await world.halted() == set()
    await world.tick(watchdog, 0.2)
    assert await world.halted() == {"run-1"}


async def test_a_missing_event_that_was_stored_during_a_restart_is_read_before_its_gap_closes(world):
    await say(await world.watchdog(), *(call(seq) for seq in (0, 1, 2, 3, 4, 6)))
    world.now += timedelta(hours=1)
    watchdog = await world.watchdog()
    new = received(ToolCalled(**common(5, "run-1"), tool="lookup_order", result="found"))
    await say(watchdog, call(7), new)
    assert await world.halted() == set()


async def test_after_a_restart_a_gap_stays_open_until_what_was_stored_can_have_been_read(world):
    await say(await world.watchdog(), *(call(seq) for seq in (0, 1, 2, 3, 4, 6)))
    world.now += timedelta(hours=1)
    watchdog = await world.watchdog()
    await world.tick(watchdog, 1)
    assert await world.halted() == set()
    await world.tick(watchdog, 5)
    assert await world.halted() == {"run-1"}


async def test_two_processes_on_one_database_add_up_one_sum(world):
    one, other = await world.watchdog(), await world.watchdog()
    await say(one, spend("0.4", 0, ticket="T-1"))
    await say(other, spend("0.4", 1, ticket="T-1"))
    assert await world.halted() == set()
    await say(one, spend("0.2", 2, ticket="T-1"))
    assert await world.halted() == {"run-1"}


async def test_a_restart_takes_up_where_the_last_process_stopped(world):
    await say(await world.watchdog(), spend("0.6", 0), *(call(seq, "run-2") for seq in range(4)))
    watchdog = await world.watchdog()
    await say(watchdog, spend("0.4", 1), call(4, "run-2"), call(5, "run-2"))
    assert await world.halted() == {"run-1", "run-2"}


async def test_what_could_not_be_saved_is_not_remembered(world, monkeypatch):
    watchdog = await world.watchdog()
    await say(watchdog, spend("0.4", 0))
    before = watchdog._store.save

    def full(*_: Any) -> None:
        raise Temporary("the disk is full")

    monkeypatch.setattr(watchdog._store, "save", full)
    with pytest.raises(Temporary):
        await say(watchdog, spend("0.4", 1))
    monkeypatch.setattr(watchdog._store, "save", before)
    await say(watchdog, spend("0.4", 1))
    assert await world.halted() == set()
    await say(watchdog, spend("0.2", 2))
    assert await world.halted() == {"run-1"}


async def test_a_card_that_changed_while_the_service_was_down_is_obeyed(world):
    await say(await world.watchdog(), spend("0.4", 0), *(call(seq, "run-2") for seq in range(2)), finish(2, "run-2"))
    world.cards.card = Card(
        agent=AGENT, owner="o", purpose="p", can=["c"], budget=BudgetRule(run="0.3"), loops=LoopRule(halt_at=2)
    )
    watchdog = await world.watchdog()
    await world.tick(watchdog, 1)
    assert await world.halted() == {"run-1"}


async def no_answer(*_: Any, **__: Any) -> None:
    raise Temporary("NATS does not answer")


async def test_a_halt_does_not_wait_for_the_outbox(world):
    watchdog = await world.watchdog()
    await watchdog.on_events([spend("1.0", 0)])
    assert await world.halted() == {"run-1"}


async def test_a_halt_that_could_not_be_written_at_once_leaves_with_the_outbox(world, monkeypatch):
    watchdog = await world.watchdog()
    with monkeypatch.context() as patch:
        patch.setattr(Switchboard, "halt", no_answer)
        await watchdog.on_events([spend("1.0", 0)])
        with pytest.raises(Temporary):
            await watchdog.outbox.drain()
    assert await world.halted() == set()
    await watchdog.outbox.drain()
    assert await world.halted() == {"run-1"}


async def test_an_operators_resume_is_not_undone_by_a_halt_that_was_decided_before(world, monkeypatch):
    watchdog = await world.watchdog()
    with monkeypatch.context() as patch:
        patch.setattr(Switchboard, "halt_run", no_answer)
        await watchdog.on_events([spend("1.0", 0)])
    world.now += timedelta(seconds=1)
    board = Switchboard(world.js)
    await board.halt_run(AGENT, "run-1", reason="by hand", by="sam", at=world.now)
    await board.resume_run(AGENT, "run-1", reason="it may go on", by="sam", at=world.now)
    await watchdog.outbox.drain()
    assert await world.halted() == set()


async def test_finished_runs_are_forgotten_after_a_day_silent_ones_after_a_week(world):
    watchdog = await world.watchdog()
    await say(watchdog, spend("0.1", 0, "done", ticket="T-1"), finish(1, "done"), spend("0.1", 0, "silent"))
    for age, runs, tickets, applied in (  # the days and the hour are kept among the tickets
        (policy.KEEP_FINISHED, 1, 4, 3), (policy.KEEP_HOUR, 1, 3, 3),
        (policy.KEEP_SILENT, 0, 3, 3), (policy.KEEP_TICKET, 0, 0, 0),
    ):  # fmt: skip
        world.now = world.began + age - timedelta(minutes=1)
        await watchdog.prune()
        assert [await world.count(table) for table in ("runs", "tickets", "applied")] != [runs, tickets, applied]
        world.now += timedelta(minutes=2)
        await watchdog.prune()
        assert [await world.count(table) for table in ("runs", "tickets", "applied")] == [runs, tickets, applied]


@pytest.mark.parametrize("size", [1, 3, 50])
async def test_batches_of_any_size_come_to_the_same(world, size):
    watchdog = await world.watchdog()
    events: Sequence[Received] = [call(seq, f"run-{run}") for seq in range(6) for run in range(5)]
    for start in range(0, len(events), size):
        await say(watchdog, *events[start : start + size])
    assert await world.halted() == {f"run-{run}" for run in range(5)}


async def test_an_event_twice_in_one_batch_counts_once(world):
    watchdog = await world.watchdog()
    await say(watchdog, spend("0.5", 0), spend("0.5", 0))
    assert await world.halted() == set()


async def test_a_model_that_nobody_calls_any_more_is_forgotten_and_its_alert_resolved(world):
    watchdog = await world.watchdog()
    usage = Usage(input_tokens=1_000_000)  # $0.15
    call_of = ModelCalled(**common(0, "run-1"), provider="openai", model="gpt-4o-mini", usage=usage, cost_usd="0.30")
    await say(watchdog, received(call_of))
    world.now += timedelta(days=29)
    await watchdog.prune()
    assert await world.count("models") == 1
    world.now += timedelta(days=2)
    await watchdog.prune()
    await watchdog.outbox.drain()
    assert await world.count("models") == 0
    info = await world.js.stream_info(subjects.GOVERNANCE, subjects_filter=subjects.alert(AGENT, ">"))
    assert (info.state.subjects or {})[subjects.alert(AGENT, "resolved")] == 1
