"""What is remembered of money set aside: over time, failures, other processes. A real database; the clock is ours."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from nats.js import JetStreamContext

from midwatch.contracts import subjects
from midwatch.contracts.budget import Commit, Reserve, Reserved
from midwatch.contracts.codec import RunEvent
from midwatch.contracts.control import BudgetRule, Card
from midwatch.contracts.runs import ModelCalled, ToolCalled
from midwatch.errors import Temporary
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.delivery import Received
from midwatch_services.cost_watchdog.allowances.handlers import Request
from midwatch_services.cost_watchdog.handlers import Watchdog

NOON = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
_numbers = count()


class Cards:
    """Stands in for the card book: every agent has this card."""

    def get(self, agent: str) -> Card:
        return Card(agent=agent, owner="o", purpose="p", can=["c"], budget=BudgetRule(run="100", ticket="1"))


class World:
    """One database and one clock, and as many watchdogs as a test asks for."""

    def __init__(self, js: JetStreamContext, url: str) -> None:
        self.js, self.url, self.now = js, url, NOON
        self.databases: list[Database] = []

    def watchdog(self) -> Watchdog:
        database = Database(self.url, name=subjects.COST_WATCHDOG)
        self.databases.append(database)
        cards: Any = Cards()
        return Watchdog(database, self.js, cards, lambda: self.now, timedelta(days=30))

    async def rows(self) -> int:
        query = sa.text("SELECT count(*) FROM cost_watchdog_reservations")
        return int(await self.databases[0].read(lambda conn: conn.execute(query).scalar_one()))


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
async def world(request: pytest.FixtureRequest, js: JetStreamContext, tmp_path: Path) -> AsyncIterator[World]:
    url = f"sqlite:///{tmp_path}/watchdog.db"
    if request.param == "postgresql":
        url = str(request.getfixturevalue("postgres_url")).replace("postgresql://", "postgresql+psycopg://")
    migrate(url, subjects.COST_WATCHDOG)
    world = World(js, url)
    yield world
    for database in world.databases:
        database.close()


async def reserve(watchdog: Watchdog, id: str, ceiling: str = "0.4", **fields: Any) -> Reserved:
    ask = Reserve(id=id, ceiling=ceiling, **{"run_id": "r", "ticket": "T-1", **fields})
    (answer,) = await watchdog.allowances.answering.answers([Request("reserve", "desk", ask, "inbox")])
    assert isinstance(answer, Reserved)
    return answer


async def commit(watchdog: Watchdog, id: str, cost: str) -> None:
    await watchdog.allowances.answering.answers([Request("commit", "desk", Commit(id=id, cost=cost), "inbox")])


def called(reservation: str | None, cost: str | None, kind: Any = ModelCalled, **fields: Any) -> Received:
    number = next(_numbers)
    what = {"model": "m"} if kind is ModelCalled else {"tool": "t"}
    data = kind(
        run_id="r", agent="desk", version="1", mode="live", seq=number, ticket="T-1", cost_usd=cost,
        reservation=reservation, **what, **fields,
    )  # fmt: skip
    event = RunEvent("desk", "model_called", f"e{number}", NOON, "/agents/desk/pod-1", data)
    return Received(event, b"", subjects.run("desk", "model_called"), None, number, 1, NOON, "")


async def stand(watchdog: Watchdog) -> tuple[str | None, str | None]:
    """What is spent of the ticket, and what is set aside."""
    answer = await reserve(watchdog, f"probe-{next(_numbers)}", "1000")
    return answer.spent, answer.reserved


async def test_an_orphan_is_charged_until_ten_minutes_past_its_lease_and_never_again(world: World) -> None:
    watchdog = world.watchdog()
    await reserve(watchdog, "a")
    world.now += timedelta(seconds=659)
    await watchdog.on_tick()
    assert await stand(watchdog) == ("0", "0.4")
    world.now += timedelta(seconds=2)
    await watchdog.on_tick()
    assert await stand(watchdog) == ("0", "0")
    assert await stand(world.watchdog()) == ("0", "0")  # nor by a process that starts now


async def test_asking_again_renews_what_is_held(world: World) -> None:
    watchdog = world.watchdog()
    await reserve(watchdog, "a")
    for _ in range(60):
        world.now += timedelta(seconds=20)
        await reserve(watchdog, "a")
        await watchdog.on_tick()
    assert await stand(watchdog) == ("0", "0.4")


async def test_a_cost_that_was_committed_is_charged_for_a_day_without_its_event(world: World) -> None:
    watchdog = world.watchdog()
    await reserve(watchdog, "a")
    await commit(watchdog, "a", "0.3")
    world.now += timedelta(hours=23, minutes=59)
    await watchdog.on_tick()
    assert await stand(watchdog) == ("0", "0.3")
    world.now += timedelta(minutes=2)
    await watchdog.on_tick()
    assert await stand(watchdog) == ("0", "0")


async def test_an_event_that_is_there_before_its_reservation_leaves_nothing_set_aside(world: World) -> None:
    watchdog = world.watchdog()
    await watchdog.on_events([called("a", "0.3")])
    assert (await reserve(watchdog, "a")).error == "over"
    assert await stand(watchdog) == ("0.3", "0")


async def test_the_event_of_a_tool_ends_its_reservation_too(world: World) -> None:
    watchdog = world.watchdog()
    await reserve(watchdog, "a")
    await watchdog.on_events([called("a", "0.3", ToolCalled)])
    assert await stand(watchdog) == ("0.3", "0")


async def test_an_event_that_comes_again_is_summed_once(world: World) -> None:
    watchdog, event = world.watchdog(), called("a", "0.3")
    await reserve(watchdog, "a")
    await watchdog.on_events([event, event])
    await world.watchdog().on_events([event])
    assert await stand(watchdog) == ("0.3", "0")


async def test_two_processes_that_take_turns_see_each_others_reservations(world: World) -> None:
    one, two = world.watchdog(), world.watchdog()
    assert [(await reserve(each, id)).granted for each, id in ((one, "a"), (two, "b"), (one, "c"), (two, "d"))] == [
        True, True, False, False,
    ]  # fmt: skip
    await two.on_events([called("a", "0.1")])
    await commit(one, "b", "0.1")
    assert [await stand(each) for each in (one, two)] == [("0.1", "0.1")] * 2


async def test_what_could_not_be_saved_is_not_granted_and_leaves_no_trace(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    watchdog = world.watchdog()
    await reserve(watchdog, "a")
    store = watchdog._store.reservations
    save = store.save

    def fails(conn: Any) -> None:
        save(conn)
        raise Temporary("the disk is full")

    monkeypatch.setattr(store, "save", fails)
    failed = await reserve(watchdog, "b")
    assert (failed.granted, failed.error, failed.reason) == (False, "unavailable", "the disk is full")
    monkeypatch.undo()
    assert await stand(watchdog) == ("0", "0.4")
    assert (await reserve(watchdog, "b")).granted


async def test_one_request_that_breaks_the_transaction_does_not_stop_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    watchdog = world.watchdog()
    allowances = watchdog.allowances
    judge = allowances._reserve

    def breaks(conn: Any, agent: str, ask: Reserve, now: datetime) -> Any:
        if ask.id == "bad":
            raise ZeroDivisionError
        return judge(conn, agent, ask, now)

    monkeypatch.setattr(allowances, "_reserve", breaks)
    asks = [Request("reserve", "desk", Reserve(id=id, run_id="r", ceiling="0.1"), "inbox") for id in ("a", "bad", "b")]
    answers = await allowances.answering.answers(asks)
    assert [(answer.id, answer.error) for answer in answers] == [("a", None), ("bad", "unavailable"), ("b", None)]


async def test_the_memory_of_what_is_over_is_pruned(world: World) -> None:
    watchdog = world.watchdog()
    for id in ("a", "b", "c"):
        await reserve(watchdog, id, "0.1")
        await commit(watchdog, id, "0")
    assert await world.rows() == 3
    world.now += timedelta(minutes=12)
    await watchdog.prune()
    assert await world.rows() == 0


async def test_one_agent_holds_no_more_than_it_may(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("midwatch_services.cost_watchdog.allowances.decide.OPEN_LIMIT", 2)
    watchdog = world.watchdog()
    answers = [await reserve(watchdog, id, "0.1") for id in ("a", "b", "c")]
    assert [(answer.granted, answer.error) for answer in answers] == [(True, None), (True, None), (False, "too_many")]
    await commit(watchdog, "a", "0")
    assert (await reserve(watchdog, "c", "0.1")).granted


async def test_a_long_ticket_is_the_one_that_the_events_name(world: World) -> None:
    watchdog, ticket = world.watchdog(), "T" * 3000
    event = called("a", "0.3")
    event.event = event.event._replace(data=ModelCalled(**{
        name: getattr(event.event.data, name) for name in ModelCalled.__struct_fields__
    } | {"ticket": ticket}))  # fmt: skip
    await watchdog.on_events([event])
    answer = await reserve(watchdog, "b", "5", ticket=ticket)
    assert answer.spent == "0.3"
    assert Decimal(answer.limit or 0) == 1
