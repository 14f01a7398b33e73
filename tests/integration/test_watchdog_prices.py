"""Prices as the running watchdog and the running logger use them: a real nats-server, real databases, real files."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
from nats.js import JetStreamContext

from helpers import eventually
from logged import NOON, publish
from midwatch.contracts import codec, control, subjects
from midwatch.contracts.control import BudgetRule, Card, ToolRule
from midwatch.contracts.runs import Usage
from midwatch.runtime import price_book, pricing, telemetry
from midwatch.runtime.database import Database
from midwatch.runtime.service import run_services
from midwatch.runtime.settings import Settings
from midwatch_services.cost_watchdog import app as watchdog
from midwatch_services.cost_watchdog.differs import AGREEING
from midwatch_services.logger import app as logger
from midwatch_services.logger import store
from watchdog_helpers import all_read

MILLION = {"input_tokens": 1_000_000}  # $0.15 at gpt-4o-mini
MINI: dict[str, Any] = {"provider": "openai", "model": "gpt-4o-mini", "usage": MILLION}
FREE = 'ollama: {"*": {input: 0, output: 0}}\n'
DEAR = 'ollama: {"*": {input: 1.50, output: 0}}\n'


@pytest.fixture(autouse=True)
def _own_prices(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(price_book, "EVERY", 0.02)
    yield
    pricing.use(())


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def stored(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """Settings with each database in turn."""
    if request.param == "sqlite":
        return settings
    return settings.model_copy(update={"database_url": request.getfixturevalue("postgres_url")})


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[None]:
    """The watchdog and the logger, until the block ends."""
    started = asyncio.Event()
    services = [watchdog.SERVICE, logger.SERVICE]
    task = asyncio.create_task(run_services(services, settings, started=lambda _: started.set(), restart=False))
    try:
        await asyncio.wait_for(started.wait(), 20)
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def said(js: JetStreamContext) -> list[tuple[str, Any]]:
    """The alerts in the governance stream, raised and resolved, in order."""
    info = await js.stream_info(subjects.GOVERNANCE)
    found = []
    for seq in range(max(1, info.state.first_seq), info.state.last_seq + 1):
        message = await js.get_msg(subjects.GOVERNANCE, seq)
        if (message.subject or "").startswith("midwatch.alert."):
            event = codec.decode(message.subject or "", message.data or b"")
            found.append((event.type.split(".")[2], event.data))
    return found


async def alerts(js: JetStreamContext, count: int) -> list[tuple[str, Any]]:
    """So many of them, once they are there."""

    async def all_of_them() -> list[tuple[str, Any]] | None:
        found = await said(js)
        return found if len(found) >= count else None

    found = await eventually(all_of_them)
    assert len(found) == count
    return list(found)


async def told(js: JetStreamContext, severity: str) -> Any:
    """The first alert of that severity."""

    async def found() -> Any:
        return next((data for event, data in await said(js) if event == "raised" and data.severity == severity), None)

    return await eventually(found)


async def row(settings: Settings, events: int, run_id: str = "r-1") -> dict[str, Any]:
    """The run in the log, once so many of its events are."""
    database = Database(settings.database_for("logger"), name="test")

    async def found() -> dict[str, Any] | None:
        runs = await database.read(lambda conn: store.read_runs(conn, run_id=run_id))
        return next((run for run in runs if run["events"] == events), None)

    try:
        return dict(await eventually(found, within=20))
    finally:
        database.close()


def differing_so_far() -> float:
    value = telemetry.COST_DIFFERS.labels(subjects.COST_WATCHDOG, "desk")
    return float(value._value.get())


async def test_a_cost_that_is_reported_wrong_raises_one_ticket_until_twenty_calls_agree(js, stored):
    before = differing_so_far()
    async with running(stored):
        for seq in range(3):
            await publish(js, "model_called", seq=seq, cost_usd="0.10", **MINI)
        ((event, alert),) = await alerts(js, 1)
        assert (event, alert.rule, alert.severity, alert.run_id) == ("raised", "cost_differs", "ticket", "r-1")
        assert alert.title == (
            "A call of gpt-4o-mini (openai) by desk is reported to cost $0.10, by its price it costs $0.15; cached "
            "tokens that it does not report would explain it"
        )
        for seq in range(3, 3 + AGREEING):
            await publish(js, "model_called", seq=seq, run_id="r-2", cost_usd="0.0015", provider="openai",
                          model="gpt-4o-mini", usage={"input_tokens": 10_000})  # fmt: skip
        _, (event, resolved) = await alerts(js, 2)
        assert (event, resolved.alert_id, resolved.repeats) == ("resolved", alert.alert_id, 2)
        run = await row(stored, events=3)
    assert differing_so_far() - before == 3
    assert (run["cost_usd"], run["cost_basis"], run["differing_calls"]) == ("0.3", "reported", 3)
    assert (run["differing_reported_usd"], run["differing_computed_usd"]) == ("0.3", "0.45")


async def test_the_open_alert_is_remembered_across_a_restart(js, stored):
    for seq in range(2):
        async with running(stored):
            await publish(js, "model_called", seq=seq, cost_usd="0.10", **MINI)
            await eventually(lambda: all_read(js))
            await alerts(js, 1)
    async with running(stored):
        for seq in range(AGREEING):
            await publish(js, "model_called", seq=seq, run_id="r-2", cost_usd="0.0015", provider="openai",
                          model="gpt-4o-mini", usage={"input_tokens": 10_000})  # fmt: skip
        _, (_, resolved) = await alerts(js, 2)
    assert resolved.repeats == 1


async def test_a_tool_that_reports_no_cost_spends_what_the_card_says(js, stored):
    card = Card(
        agent="desk", owner="o", purpose="p", can=["c"], budget=BudgetRule(run="1", ticket="9"),
        tools={"search": ToolRule(kind="read", cost="0.45"), "look": ToolRule(kind="read")},
    )  # fmt: skip
    await js.publish(subjects.key_subject(subjects.AGENTS, "desk"), control.encode(card))
    async with running(stored):
        for seq, (tool, cost) in enumerate([("search", None), ("look", None), ("search", "0.05"), ("search", None)]):
            await publish(js, "tool_called", seq=seq, tool=tool, result=seq, cost_usd=cost)
        alert = await told(js, "ticket")
        run = await row(stored, events=4)
    assert (alert.rule, alert.value, alert.cost_basis) == ("budget_run", "0.95", "estimated")
    assert alert.title == "Run r-1 of desk has spent about $0.95 of its $1.00 budget"
    assert (run["cost_usd"], run["cost_basis"], run["unpriced_calls"]) == ("0.95", "estimated", 0)


async def test_a_file_of_prices_takes_effect_without_a_restart_and_a_mistake_in_it_changes_nothing(js, settings):
    local: dict[str, Any] = {"provider": "ollama", "model": "qwen2.5:7b", "usage": MILLION}
    prices = settings.home / "prices.yaml"

    def in_force(dollars: str) -> bool:
        tariff = pricing.tariff("ollama", "qwen2.5:7b")
        return tariff is not None and tariff.origin.startswith(str(prices)) and (
            pricing.price("ollama", "qwen2.5:7b", Usage(**MILLION), None, NOON).amount == Decimal(dollars)
        )  # fmt: skip

    async with running(settings):
        await publish(js, "model_called", seq=0, run_id="unpriced", **{**local, "usage": {"input_tokens": 9}})
        assert (await row(settings, 1, "unpriced"))["cost_basis"] == "unpriced"
        prices.write_text(FREE, encoding="utf-8")
        await eventually(lambda: in_force("0"))
        await publish(js, "model_called", seq=0, run_id="free", **local)
        free = await row(settings, 1, "free")
        prices.write_text(DEAR + "  oops: {}\n", encoding="utf-8")
        said = b'midwatch_prices_file_wrong{service="cost-watchdog"} 1.0'
        await eventually(lambda: said in telemetry.metrics(subjects.COST_WATCHDOG))
        await publish(js, "model_called", seq=0, run_id="still-free", **local)
        still = await row(settings, 1, "still-free")
        prices.write_text(DEAR, encoding="utf-8")
        await eventually(lambda: in_force("1.5"))
        await publish(js, "model_called", seq=0, run_id="dear", **local)
        alert = await told(js, "page")
    assert [(run["cost_usd"], run["cost_basis"]) for run in (free, still)] == [("0", "priced"), ("0", "priced")]
    assert (alert.rule, alert.run_id, alert.value, alert.cost_basis) == ("budget_run", "dear", "1.5", "priced")


async def test_a_service_starts_with_a_file_that_is_wrong(js, settings):
    prices = settings.home / "prices.yaml"
    prices.parent.mkdir(parents=True, exist_ok=True)
    prices.write_text("openai: 5\n", encoding="utf-8")
    async with running(settings):
        await publish(js, "model_called", seq=0, **MINI)
        run = await row(settings, events=1)
    assert (run["cost_usd"], run["cost_basis"]) == ("0.15", "priced")
