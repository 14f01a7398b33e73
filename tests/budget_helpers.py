"""What the tests of budgets share: cost-watchdog running, cards, and requests to it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import msgspec
from nats.aio.client import Client
from nats.js import JetStreamContext

from helpers import all_read
from midwatch import testing
from midwatch.contracts import budget, codec, control, subjects
from midwatch.contracts.budget import Commit, Committed, Reserve, Reserved
from midwatch.contracts.control import BudgetRule
from midwatch.contracts.runs import Mode, ModelCalled
from midwatch.runtime.service import Service, run_services
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Switchboard
from midwatch_services.cost_watchdog.app import build


@asynccontextmanager
async def watchdog(settings: Settings) -> AsyncIterator[None]:
    """cost-watchdog, running, until the block ends."""
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


async def apply(js: JetStreamContext, agent: str, **rule: Any) -> None:
    """An agent with a card, and running."""
    card = testing.card(agent, budget=BudgetRule(**rule), switch=control.SwitchRule(lease=60))
    await js.publish(subjects.key_subject(subjects.AGENTS, agent), control.encode(card))
    await Switchboard(js).resume_agent(agent, reason="test", by="tester")


async def reserve(nc: Client, id: str, ceiling: str | None = "0.18", agent: str = "desk", **fields: Any) -> Reserved:
    ask = Reserve(id=id, ceiling=ceiling, **{"run_id": "r", "ticket": "T-1", **fields})
    answer = await nc.request(subjects.budget(agent, "reserve"), budget.encode(ask), timeout=5)
    return msgspec.json.decode(answer.data, type=Reserved)


async def commit(nc: Client, id: str, cost: str, agent: str = "desk") -> Committed:
    answer = await nc.request(subjects.budget(agent, "commit"), budget.encode(Commit(id=id, cost=cost)), timeout=5)
    return msgspec.json.decode(answer.data, type=Committed)


async def event(
    js: JetStreamContext, reservation: str | None, cost: str | None, agent: str = "desk", mode: Mode = "live",
    id: str = "", **fields: Any,
) -> None:  # fmt: skip
    """The event of a model call."""
    data = ModelCalled(
        run_id="r", agent=agent, version="1", mode=mode, seq=0, ticket="T-1", model="m", cost_usd=cost,
        reservation=reservation, **fields,
    )  # fmt: skip
    body = codec.encode(codec.envelope("run", "model_called", data, source=f"/agents/{agent}/1", id=id or None))
    await js.publish(subjects.run(agent, "model_called"), body)


async def caught_up(js: JetStreamContext) -> bool:
    """Whether cost-watchdog has judged every event."""
    return await all_read(js, subjects.RUNS, subjects.COST_WATCHDOG)


class Model:
    """A model that bills every call and keeps the bill."""

    def __init__(self, cost: str = "0.18") -> None:
        self.cost = Decimal(cost)
        self.billed = Decimal(0)

    async def call(self, model: str) -> dict[str, Any]:
        self.billed += self.cost
        await asyncio.sleep(0.005)
        return {"model": model, "usage": {"prompt_tokens": 9, "completion_tokens": 1, "cost": float(self.cost)}}


async def spend(desk: Any, model: Model, *, calls: int = 20, ceiling: Any = None, **options: Any) -> Any:
    """A run that calls the model again and again."""
    more = {} if ceiling is None else {"ceiling": ceiling}
    async with desk.run(**{"input": "Where is it?", "ticket": "T-1", **options}) as run:
        for _ in range(calls):
            await run.model(model.call, model="m", **more)
        run.finish("done")
    return run
