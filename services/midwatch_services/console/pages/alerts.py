"""Alerts: what needs a person, who has it, who was told; taken on by one press."""

import asyncio
import time
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import quote

from nats.errors import Error as NatsError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from midwatch.contracts.governance import BUDGET_FLEET_DAY
from midwatch.contracts.subjects import is_agent_name
from midwatch.errors import Temporary
from midwatch_services.console.access.roles import Role
from midwatch_services.console.filters import said
from midwatch_services.console.others import alerts as kept
from midwatch_services.console.others import contacts, switch
from midwatch_services.console.others.alerts import Leaf, Wanted
from midwatch_services.console.others.switch import MISSED
from midwatch_services.console.routes import action, attempt, once, page, record, record_standing
from midwatch_services.console.stopping import Instance
from midwatch_services.console.view import back, console_of, query, render, session_of

_SHOWN_WITHIN = 1.5  # seconds in which the run log is to show what was said; the page goes on after them
_LOOK = 0.05  # seconds
_NOTE_LIMIT = 500  # characters
_KEY_LIMIT = 400  # characters
_IN_DOLLARS = ("budget_run", "budget_ticket", "budget_hour", "budget_day", BUDGET_FLEET_DAY)
_DONE, _IN_VAIN = "alert.acknowledged", "alert.not_acknowledged"
_TAKEN = "taken"  # the deed, by which a form that is sent again is known
NOT_KEPT = "the bus (NATS) did not confirm that you took it on, so others may still be called: press once more"


@page(role=Role.VIEWER)
async def listed(request: Request) -> Response:
    """A page of alerts: the open ones, unless others are asked for."""
    wanted = _wanted(request)
    leaf, source = await _find(request, wanted)
    found = leaf.alerts if leaf else []
    told = await _told(request, [one["alert_id"] for one in found])
    state = wanted.state if wanted.state != "open" else None
    given = {"state": state, "agent": wanted.agent, "severity": wanted.severity}
    agents = {card.agent for card in console_of(request).cards.all()} | {one["agent"] for one in found}
    return render(
        request, "alerts_list.html" if request.query_params.get("part") else "alerts.html", leaf=leaf, source=source,
        wanted=wanted, told=told, here=query(before=wanted.before, after=wanted.after, **given),
        newest=_address(**given), whole=_address(state=state),
        newer=_address(after=found[0]["raised_key"], **given) if leaf and found and leaf.counts.newer else "",
        older=_address(before=found[-1]["raised_key"], **given) if leaf and leaf.has_older else "",
        agents=sorted(one for one in agents | {wanted.agent or ""} if is_agent_name(one)), states=kept.STATES,
        severities=kept.SEVERITIES, may=session_of(request).role.may(Role.OPERATOR), run_link=_run_link,
        scope={"agent": wanted.agent} if wanted.agent else None,
        nobody=await contacts.mend(console_of(request).settings),
    )  # fmt: skip


def _address(**given: str | None) -> str:
    return f"/alerts?{query(**given)}".rstrip("?")


@page(role=Role.VIEWER)
async def alert(request: Request) -> Response:
    """All of one alert."""
    alert_id = request.path_params["alert"]
    found = await _one(request, alert_id)
    if found is None:
        raise HTTPException(404)
    told = await _told(request, [alert_id])
    unarmed = await _unarmed(request, found["agent"]) if found["rule"] == switch.NOT_ARMED else None
    scope = {"agent": found["agent"]} | ({"run": found["run_id"]} if found["run_id"] else {})
    return render(
        request, "alert_part.html" if request.query_params.get("part") else "alert.html", one=found,
        told=told.value.get(alert_id) if told.value else None, told_found=told, run_link=_run_link,
        may=session_of(request).role.may(Role.OPERATOR), scope=scope, dollars=_dollars,
        unarmed=unarmed if found["state"] != "resolved" else None, write_off=switch.write_off,
    )  # fmt: skip


async def _unarmed(request: Request, agent: str) -> list[Instance]:
    """The agent's processes that would not obey the next halt just now; nobody where the bus does not answer."""
    console = console_of(request)
    state = await switch.state(console.nc, console.js)
    return [one for one in state.instances if one.agent == agent and one.why_not]


@action(role=Role.OPERATOR)
async def acknowledge(request: Request) -> Response:
    """Takes an alert on, as `midwatch ack` does; one that is over or that somebody has stays as it is."""
    alert_id, form = request.path_params["alert"], await request.form()
    found = await _one(request, alert_id)
    if found is None:
        raise HTTPException(404)
    by, note = session_of(request).by, str(form.get("note", "")).strip()[:_NOTE_LIMIT]
    to = f"/alerts/{quote(alert_id, safe='')}" if form.get("from") == "one" else f"/alerts?{form.get('here', '')}"
    what = {"agent": found["agent"], "target": alert_id, "deed": _TAKEN, "rule": found["rule"]}
    if found["state"] != "open":
        if found["acknowledged_by"] == by:  # this form may have been sent before
            await record_standing(request, _DONE, _IN_VAIN, **what, why=found["state"])
        else:
            await record(request, _IN_VAIN, **what | {"deed": ""}, why=found["state"])
        name = "over_already" if found["state"] == "resolved" else "yours" if found["acknowledged_by"] == by else "had"
        return back(request, to.rstrip("?"), f"alerts.{name}", by=said(found["acknowledged_by"] or "", 100))
    try:
        async with attempt(request, _DONE, _IN_VAIN, **what):
            await kept.acknowledge(
                console_of(request).js, found["agent"], alert_id, by=by, note=note, source=f"/people/{by}",
                id=once(request, _TAKEN, alert_id, note),
            )  # fmt: skip
    except (NatsError, TimeoutError, OSError) as error:
        raise Temporary(NOT_KEPT) from error
    await _shown(request, alert_id)
    return back(request, to.rstrip("?"), "alerts.taken")


async def _shown(request: Request, alert_id: str) -> None:
    """Waits a moment for the run log to have read it, so that the next page shows it."""
    until = time.monotonic() + _SHOWN_WITHIN
    while time.monotonic() < until:
        found = await console_of(request).reading.read(kept.LOG, lambda conn: kept.one(conn, alert_id))
        if not found.ok or found.value is None or found.value["state"] != "open":
            return
        await asyncio.sleep(_LOOK)


async def _find(request: Request, wanted: Wanted) -> tuple[Leaf | None, Any]:
    """From the run log; from the bus where that cannot be read; None where neither answers."""
    console = console_of(request)
    found = await console.reading.read(kept.LOG, lambda conn: kept.listed(conn, wanted))
    if found.ok:
        return found.value, found
    try:
        async with asyncio.timeout(3):
            return await kept.heard(console.nc, console.now(), wanted), found
    except MISSED:
        return None, found


async def _one(request: Request, alert_id: str) -> dict[str, Any] | None:
    console = console_of(request)
    found = await console.reading.read(kept.LOG, lambda conn: kept.one(conn, alert_id))
    if found.ok and found.value is not None:
        return found.value
    heard: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(3):
            heard = (await kept.heard(console.nc, console.now(), Wanted(state="all", limit=1000), alert_id)).alerts
    except MISSED as error:
        if not found.ok:
            raise HTTPException(503, str(error) or type(error).__name__) from None
    return next((one for one in heard if one["alert_id"] == alert_id), None)


async def _told(request: Request, alert_ids: list[str]) -> Any:
    return await console_of(request).reading.read(kept.PAGER, lambda conn: kept.told(conn, alert_ids))


def _wanted(request: Request) -> Wanted:
    asked = request.query_params
    state, agent = asked.get("state") or "open", asked.get("agent") or None
    severity, before, after = (asked.get(name) or None for name in ("severity", "before", "after"))
    known = state in kept.STATES and severity in (None, *kept.SEVERITIES) and (agent is None or is_agent_name(agent))
    if not known or any(len(key or "") > _KEY_LIMIT for key in (before, after)):
        raise HTTPException(404)
    return Wanted(
        state=state, agent=agent, severity=severity, before=before, after=None if before else after,  # type: ignore[arg-type]
        limit=kept.PAGE,
    )  # fmt: skip


def _dollars(rule: str, figure: object) -> Decimal | None:
    """The figure or limit of a budget's alert; None where it counts something else."""
    if rule not in _IN_DOLLARS:
        return None
    try:
        return Decimal(str(figure))
    except InvalidOperation:
        return None


def _run_link(agent: str, run_id: str) -> str:
    return f"/runs/{quote(agent, safe='')}/{quote(run_id, safe='')}"


LINK = "/alerts"
ROUTES = [
    Route("/alerts", listed),
    Route("/alerts/{alert}", alert),
    Route("/alerts/{alert}/acknowledge", acknowledge, methods=["POST"]),
]
