"""What is made of one run by others: its dossier, and the rules that judged it."""

import asyncio
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy.engine import Connection

from midwatch.contracts import codec, subjects
from midwatch.contracts.codec import Refused, RunEvent
from midwatch.contracts.control import Card
from midwatch.runtime.settings import Settings
from midwatch_services.console.reading import Found, Reading
from midwatch_services.dossier import in_force
from midwatch_services.dossier.gather import gather
from midwatch_services.dossier.judged import Judged, figures
from midwatch_services.dossier.page import render
from midwatch_services.logger import daily, store


async def page(settings: Settings, agent: str, run_id: str, by: str) -> str:
    """The dossier as one file that prints well. Raises NoRun, NoDatabase, Temporary."""
    return await asyncio.to_thread(lambda: render(asyncio.run(gather(settings, run_id, agent, by))))


async def data(settings: Settings, agent: str, run_id: str, by: str) -> bytes:
    """The same as data, which `midwatch verify` takes. Raises NoRun, NoDatabase, Temporary."""
    return await asyncio.to_thread(lambda: msgspec.json.encode(asyncio.run(gather(settings, run_id, agent, by))))


async def card_of(reading: Reading, js: Any, run: dict[str, Any]) -> Found[Card | None]:
    """The card that was in force as the run began, as far as NATS still has it."""

    async def work() -> Card | None:
        start, end = (datetime.fromisoformat(run[name]) for name in ("started_at", "last_event_at"))
        return (await in_force.read(js, run["agent"], run["run_id"], start, end)).card

    return await reading.ask(work, keep=("in_force", run["agent"], run["run_id"]), seconds=30)


def rules(conn: Connection, run: dict[str, Any], card: Card, limit: int) -> list[Judged]:
    """Every rule that judged the run, with its limit, the run's figure and what came of it; by its first `limit`
    events."""
    events = store.read_events(conn, run["agent"], run["run_id"], limit=limit)
    alerts = store.read_alerts(conn, agent=run["agent"], run_id=run["run_id"])
    ticket = None
    if run["ticket"] is not None:
        costs = daily.ticket_costs(conn, run["agent"], run["ticket"], run["last_event_at"])
        ticket = sum(map(Decimal, costs), Decimal(0))
    return figures([one for event in events if (one := _decoded(run["agent"], event))], card, alerts, ticket)


def _decoded(agent: str, event: dict[str, Any]) -> RunEvent | None:
    if "erased" in event:
        return None
    body = {
        "specversion": "1.0", "id": event["id"], "source": "/console", "datacontenttype": "application/json",
        "type": f"midwatch.run.{event['event']}.v1", "subject": event["data"]["run_id"], "time": event["time"],
        "data": event["data"],
    }  # fmt: skip
    try:
        return codec.decode_run(subjects.run(agent, event["event"]), msgspec.json.encode(body))
    except Refused:
        return None
