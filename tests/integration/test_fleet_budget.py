"""The fleet's budget of a day: summed over every agent's live runs, across restarts, each event once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from nats.js import JetStreamContext

from helpers import eventually
from kill_switch_helpers import kill_switch, publish, said
from midwatch.contracts import subjects
from midwatch.contracts.codec import RunEvent
from midwatch.contracts.control import BudgetRule, Card
from midwatch.contracts.runs import ModelCalled
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.delivery import Received
from midwatch.runtime.service import Service, run_services
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Switchboard
from midwatch_services.cost_watchdog.app import build
from midwatch_services.cost_watchdog.handlers import Watchdog

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
TITLE = "The fleet has spent {} of its $10.00 budget for 2026-11-22"
_numbers = count()


class Cards:
    """Stands in for the card book: no agent's own budget is ever spent."""

    def get(self, agent: str) -> Card:
        return Card(agent=agent, owner="o", purpose="p", can=["c"], budget=BudgetRule(run="1000", ticket="1000"))


def call(usd: str | None, agent: str = "desk", mode: Any = "live", at: datetime = NOON, id: str = "") -> Received:
    """A model call in a run of its own."""
    number = next(_numbers)
    data = ModelCalled(run_id=f"r{number}", agent=agent, version="1", mode=mode, seq=0, model="m", cost_usd=usd)
    event = RunEvent(agent, "model_called", id or f"e{number}", at, "/agents/desk/pod-1", data)
    return Received(event, b"", subjects.run(agent, "model_called"), None, number, 1, at, "")


class World:
    """One database and one clock, and as many watchdogs as a test asks for."""

    def __init__(self, js: JetStreamContext, url: str) -> None:
        self.js, self.url, self.now = js, url, NOON
        self.databases: list[Database] = []

    async def watchdog(self, budget: str | None = "10") -> Watchdog:
        database = Database(self.url, name=subjects.COST_WATCHDOG)
        self.databases.append(database)
        limit = None if budget is None else Decimal(budget)
        cards: Any = Cards()
        watchdog = Watchdog(database, self.js, cards, lambda: self.now, timedelta(days=30), limit)
        await watchdog.load()
        await watchdog.on_tick()
        return watchdog

    async def alerts(self, watchdog: Watchdog) -> list[tuple[str, Any]]:
        """Everything said of the fleet so far."""
        await watchdog.outbox.drain()
        return [(event, data) for event, data in await said(self.js, "alert")]


@pytest.fixture
async def world(js: JetStreamContext, tmp_path: Path) -> AsyncIterator[World]:
    url = f"sqlite:///{tmp_path}/watchdog.db"
    migrate(url, subjects.COST_WATCHDOG)
    world = World(js, url)
    yield world
    for database in world.databases:
        database.close()


async def test_at_eighty_percent_a_ticket_and_at_a_hundred_a_page_both_of_the_fleet(world: World) -> None:
    watchdog = await world.watchdog()
    await watchdog.on_events([call("0.9", agent) for agent in ("desk", "mail", "chat") for _ in range(3)])  # $8.10
    await watchdog.on_events([call("0.9"), call("0.9"), call("0.9")])  # $10.80
    (_, warned), (_, over) = await world.alerts(watchdog)
    assert (warned.rule, warned.severity, warned.agent) == ("budget_fleet_day", "ticket", "_fleet")
    assert (warned.title, warned.value, warned.limit) == (TITLE.format("$8.10"), "8.1", "10")
    assert (over.severity, over.title, over.value, over.cost_basis) == (
        "page",
        TITLE.format("$10.80"),
        "10.8",
        "reported",
    )
    assert (over.run_id, over.evidence, over.mode) == (None, None, "live")


async def test_the_page_is_said_once_a_day_and_counts_its_repeats(world: World) -> None:
    watchdog = await world.watchdog()
    for _ in range(3):
        await watchdog.on_events([call("11")])
    world.now += timedelta(hours=12)  # midnight
    await watchdog.on_tick()
    raised = [(event, getattr(data, "rule", "")) for event, data in await world.alerts(watchdog)]
    assert raised.count(("raised", "budget_fleet_day")) == 1
    (end,) = [data for event, data in await world.alerts(watchdog) if event == "resolved"]
    assert (end.reason, end.repeats) == ("the day is over", 2)
    await watchdog.on_events([call("9", at=world.now)])
    *_, (event, warned) = await world.alerts(watchdog)
    assert (event, warned.severity, warned.value) == ("raised", "ticket", "9")


async def test_only_live_runs_count_and_each_event_once(world: World) -> None:
    watchdog = await world.watchdog()
    await watchdog.on_events([call("50", mode=mode) for mode in ("shadow", "eval", "drill", "replay")])
    for _ in range(4):
        await watchdog.on_events([call("4.9", id="same")])
    assert [data for _, data in await world.alerts(watchdog) if getattr(data, "agent", "") == "_fleet"] == []


async def test_the_sum_survives_a_restart_and_so_does_that_it_was_said(world: World) -> None:
    await (await world.watchdog()).on_events([call("7")])
    second = await world.watchdog()
    await second.on_events([call("4")])
    third = await world.watchdog()
    await third.on_events([call("1")])
    fleet = [data for _, data in await world.alerts(third) if getattr(data, "agent", "") == "_fleet"]
    assert [(alert.severity, alert.value) for alert in fleet] == [("info", "7"), ("page", "11")]


async def test_a_day_that_is_over_is_summed_and_not_judged(world: World) -> None:
    watchdog = await world.watchdog()
    await watchdog.on_events([call("99", at=NOON - timedelta(days=1))])
    assert [data for _, data in await world.alerts(watchdog) if getattr(data, "agent", "") == "_fleet"] == []


async def test_calls_without_a_price_make_the_sum_a_lower_bound(world: World) -> None:
    watchdog = await world.watchdog()
    await watchdog.on_events([call("10"), call(None)])
    (alert,) = [data for _, data in await world.alerts(watchdog) if getattr(data, "agent", "") == "_fleet"]
    assert alert.title == TITLE.format("at least $10.00") + " (1 call has no known price)"
    assert alert.cost_basis == "unpriced"


async def test_a_budget_that_is_raised_or_taken_away_resolves_its_alerts(world: World) -> None:
    await (await world.watchdog("10")).on_events([call("10")])
    raised = await world.watchdog("21")
    *_, (event, end) = await world.alerts(raised)
    assert (event, end.reason) == ("resolved", "the budget is now $21.00")
    none = await world.watchdog(None)
    await none.on_events([call("99")])
    assert [event for event, data in await world.alerts(none) if event == "raised" and data.agent == "_fleet"] == [
        "raised"
    ]


async def test_a_budget_that_is_set_during_the_day_counts_what_was_spent_before(world: World) -> None:
    await (await world.watchdog(None)).on_events([call("20")])
    *_, (_, alert) = await world.alerts(await world.watchdog())
    assert (alert.severity, alert.value) == ("page", "20")


async def test_with_the_settings_the_fleet_is_halted_when_its_day_is_spent(
    js: JetStreamContext, settings: Settings
) -> None:
    settings = settings.model_copy(update={"fleet_budget_day": Decimal(3), "fleet_trip": "act"})
    async with kill_switch(settings), _watchdog(settings):
        for n in range(4):
            await publish(js, "model_called", f"r{n}", agent=f"agent-{n}", cost_usd="0.75")

        async def halted() -> Any:
            record = (await Switchboard(js).read(subjects.FLEET_KEY)).record()
            assert record and record.state == "halted"
            return record

        record = await eventually(halted)
    assert record.by == "kill-switch/fleet_budget"
    assert record.reason.startswith("The fleet has spent $3.00 of its $3.00 budget for ")


@asynccontextmanager
async def _watchdog(settings: Settings) -> AsyncIterator[None]:
    running = asyncio.Event()
    service = Service(subjects.COST_WATCHDOG, build)
    task = asyncio.create_task(run_services([service], settings, started=lambda _: running.set(), restart=False))
    await asyncio.wait_for(running.wait(), 20)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
