"""Puts a run's dossier together from the run log, the other services' tables and NATS; only reads."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar

import sqlalchemy as sa
from msgspec import Struct
from nats.errors import Error as NatsError
from sqlalchemy.engine import Connection

from midwatch.contracts import codec, subjects
from midwatch.contracts.codec import Refused, RunEvent
from midwatch.contracts.control import kind_of
from midwatch.contracts.runs import HandedOff, ModelCalled, ToolCalled
from midwatch.errors import MidwatchError
from midwatch.runtime.broker import connection
from midwatch.runtime.database import Database
from midwatch.runtime.settings import Settings
from midwatch_services.kill_switch.cases import case_store
from midwatch_services.logger import store
from midwatch_services.logger.evidence import keys
from midwatch_services.logger.evidence.proof import check
from midwatch_services.logger.evidence.prove import prove
from midwatch_services.reviewer_sampler import store as reviews

from . import in_force
from .in_force import InForce
from .judged import Rule, judged

T = TypeVar("T")
FORMAT = 1  # of the dossier


class NoRun(MidwatchError):
    """No run {run_id!r} is in the log: list them with `midwatch runs`."""


class ManyRuns(MidwatchError):
    """{agents} each have a run {run_id!r}: say whose with --agent."""


class Dossier(Struct, kw_only=True):
    """All that is known of a run. `unknown`: what is not, in sentences. `proof`: as `midwatch verify --dossier` takes
    it; `found`: what it found wrong with it, None where there was no public key to check it with."""

    format: int = FORMAT
    made_at: datetime
    made_by: str
    run: dict[str, Any]
    models: list[str]
    in_force: InForce
    rules: list[Rule]
    alerts: list[dict[str, Any]]
    writes: list[dict[str, Any]]
    hand_offs: list[dict[str, Any]]
    case: dict[str, Any] | None
    reviews: list[dict[str, Any]]
    events: list[dict[str, Any]]
    proof: dict[str, Any]
    found: list[str] | None = None
    unknown: list[str]


async def gather(settings: Settings, run_id: str, agent: str | None, by: str) -> Dossier:
    """The dossier of a run. Raises NoRun, ManyRuns, NoDatabase, Temporary where the run log cannot be read."""
    unknown: list[str] = []
    found = _read(settings, subjects.LOGGER, lambda conn: _logged(conn, run_id, agent))
    run, events, alerts, ticket_usd, proof = found
    decoded = _decoded(run["agent"], proof["events"], unknown)
    stood = await _stood(settings, run, unknown)
    case = _or_unknown(
        settings, subjects.KILL_SWITCH, lambda conn: _case(conn, run), "Whether a case was opened", unknown
    )
    drawn = _or_unknown(
        settings, subjects.REVIEWER_SAMPLER, lambda conn: reviews.of_run(conn, run["agent"], run_id),
        "Whether the run was drawn for review", unknown,
    )  # fmt: skip
    if stood.card is None:
        unknown.append("The rules that judged the run: they are known by its scope card alone")
    dossier = Dossier(
        made_at=datetime.now(UTC),
        made_by=by,
        run=run,
        models=sorted({one.data.model for one in decoded if isinstance(one.data, ModelCalled)}),
        in_force=stood,
        rules=judged(decoded, stood.card, alerts, ticket_usd) if stood.card else [],
        alerts=alerts,
        writes=[_write(one) for one in decoded if isinstance(one.data, ToolCalled) and _may_write(one.data, stood)],
        hand_offs=[_hand_off(one) for one in decoded if isinstance(one.data, HandedOff)],
        case=case,
        reviews=drawn or [],
        events=events,
        proof=proof,
        unknown=unknown + stood.unknown,
    )
    public = keys.public_path(settings.evidence_key)
    if public.exists():
        dossier.found = check({"proof": proof, "events": events}, keys.load_public(public))
    return dossier


Logged = tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]], Decimal | None, dict[str, Any]]


def _logged(conn: Connection, run_id: str, agent: str | None) -> Logged:
    found = store.read_runs(conn, run_id=run_id, agent=agent)
    if not found:
        raise NoRun(run_id=run_id)
    if len(found) > 1:
        raise ManyRuns(run_id=run_id, agents=", ".join(sorted(one["agent"] for one in found)))
    (run,) = found
    name, ticket = run["agent"], run["ticket"]
    costs = None
    if ticket is not None:
        query = sa.text(
            "SELECT cost_usd FROM logger_runs WHERE agent = :agent AND ticket = :ticket AND first_at <= :end"
        )
        given = {"agent": name, "ticket": ticket, "end": run["last_event_at"]}
        costs = sum((Decimal(cost or 0) for cost in conn.execute(query, given).scalars()), Decimal(0))
    alerts = store.read_alerts(conn, agent=name, run_id=run_id)
    return run, store.read_events(conn, name, run_id), alerts, costs, prove(conn, name, run_id)


def _decoded(agent: str, proved: Sequence[dict[str, Any]], unknown: list[str]) -> list[RunEvent]:
    decoded, unread = [], 0
    for event in sorted(proved, key=lambda one: (one["seq"], one["time"], one["id"])):
        try:
            decoded.append(codec.decode_run(subjects.run(agent, event["event"]), event["body"].encode()))
        except Refused:
            unread += 1
    if unread:
        unknown.append(f"What {unread:,} of its events said: erased on request")
    return decoded


async def _stood(settings: Settings, run: dict[str, Any], unknown: list[str]) -> InForce:
    start, end = datetime.fromisoformat(run["started_at"]), datetime.fromisoformat(run["last_event_at"])
    try:
        async with connection(settings.url) as nc:
            return await in_force.read(nc.jetstream(timeout=3), run["agent"], run["run_id"], start, end)
    except (MidwatchError, NatsError, TimeoutError):
        unknown.append("Card, route and switch as they stood then: NATS does not answer; ask again when it does")
        return InForce()


def _case(conn: Connection, run: dict[str, Any]) -> dict[str, Any] | None:
    found = case_store.of_run(conn, run["agent"], run["run_id"])
    return None if found is None else found | {"history": case_store.history(conn, found["case_id"])}


def _or_unknown(
    settings: Settings, service: str, work: Callable[[Connection], T], what: str, unknown: list[str]
) -> T | None:
    try:
        return _read(settings, service, work)
    except (MidwatchError, sa.exc.DBAPIError):
        unknown.append(f"{what}: the database of {service} cannot be read")
        return None


def _read(settings: Settings, service: str, work: Callable[[Connection], T]) -> T:
    database = Database(settings.database_for(service), name=service, must_exist=True)
    try:
        return database.read_now(work)
    finally:
        database.close()


def _may_write(call: ToolCalled, stood: InForce) -> bool:
    return kind_of(stood.card.tools if stood.card else {}, call.tool, call.kind) == "write"


def _write(event: RunEvent) -> dict[str, Any]:
    call = event.data
    assert isinstance(call, ToolCalled)
    return {
        "at": event.time, "seq": call.seq, "tool": call.tool, "arguments": call.arguments, "result": call.result,
        "error": call.error, "undo": call.undo,
    }  # fmt: skip


def _hand_off(event: RunEvent) -> dict[str, Any]:
    data = event.data
    assert isinstance(data, HandedOff)
    return {"at": event.time, "seq": data.seq, "to": data.to, "reason": data.reason, "summary": data.summary}
