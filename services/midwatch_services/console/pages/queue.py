"""The human queue: whose customers wait, since when, and the whole of what they were handed over with."""

import asyncio
from collections.abc import Sequence
from typing import Any

from nats.errors import Error as NatsError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from midwatch.contracts.subjects import is_agent_name
from midwatch.errors import Temporary
from midwatch_services.console.access.roles import Role
from midwatch_services.console.addresses import run_path
from midwatch_services.console.filters import said
from midwatch_services.console.others import cases
from midwatch_services.console.routes import action, attempt, fail, once, page, record, record_standing
from midwatch_services.console.view import back, console_of, query, render, session_of

_LIMIT = 100  # cases on a page
_SOUGHT_LIMIT = 200  # characters
NOT_KEPT = "the bus (NATS) did not confirm it, so it may not be done: look at the case again and press once more"
_TEXT_LIMIT = 500  # characters
_LONG = 4000  # characters of one text, unless all of it is asked for


@page(role=Role.VIEWER)
async def listed(request: Request) -> Response:
    """The cases that wait or are in somebody's hands, the longest waiting first; somebody's, where they are sought."""
    asked, console = request.query_params, console_of(request)
    state, agent = asked.get("state") or "waiting", asked.get("agent") or None
    about, place = " ".join(asked.get("about", "").split())[:_SOUGHT_LIMIT], asked.get("after") or ""
    if state not in cases.STATES or (agent is not None and not is_agent_name(agent)):
        raise HTTPException(404)
    try:
        after = cases.place(place) if place else None
    except ValueError:
        raise HTTPException(404) from None
    found = await console.reading.read(
        cases.SERVICE, lambda conn: cases.listed(conn, state, agent, about, after, _LIMIT)
    )
    given = {"state": state if state != "waiting" else None, "agent": agent, "about": about}
    leaf = found.value
    agents = {card.agent for card in console.cards.all()} | {one["agent"] for one in (leaf.cases if leaf else ())}
    return render(
        request, "queue_list.html" if asked.get("part") else "queue.html", found=found, leaf=leaf, state=state,
        agent=agent, about=about, states=cases.STATES, me=session_of(request).by, place=place,
        agents=sorted(agents | {agent} if agent else agents), here=query(**given, after=place),
        first=_address(**given) if place else "",
        more=_address(**given, after=leaf.next) if leaf and leaf.next else "", every=_address(state="all", about=about),
        may=session_of(request).role.may(Role.OPERATOR), scope={"agent": agent} if agent else None,
    )  # fmt: skip


def _address(**given: str | None) -> str:
    return f"/queue?{query(**given)}".rstrip("?")


@page(role=Role.VIEWER)
async def case(request: Request) -> Response:
    """A case whole."""
    one, history = await _read(request)
    me, may = session_of(request).by, session_of(request).role.may(Role.OPERATOR)
    deeds = [
        verb for verb, event in cases.VERBS.items()
        if may and cases.standing(one, cases.Deed(event, one["case_id"], me)) == "may"
    ]  # fmt: skip
    asked = request.query_params
    tools = console_of(request).cards.get(one["agent"]).tools
    return render(
        request, "case.html", one=one, said=one["case"] or {}, history=history, deeds=deeds, me=me,
        steps=await asyncio.to_thread(cases.steps, one, tools, is_whole="all" in asked),
        holder=cases.holder(one, history), run=run_path(one["agent"], one["run_id"]),
        raw=cases.raw(one) if asked.get("raw") else None,
        limit=1_000_000 if asked.get("all") else _LONG, scope={"agent": one["agent"]},
    )  # fmt: skip


@action(role=Role.OPERATOR)
async def do(request: Request) -> Response:
    """Takes a case, gives it back or closes it, as `midwatch queue` does, and waits until kill-switch has judged it."""
    verb, form = request.path_params["verb"], await request.form()
    if verb not in cases.VERBS:
        raise HTTPException(404)
    one, history = await _read(request)
    text = str(form.get("text", "")).strip()[:_TEXT_LIMIT]
    deed = cases.Deed(
        cases.VERBS[verb], one["case_id"], session_of(request).by, reference=text if verb == "take" else "",
        note=text if verb != "take" else "",
    )  # fmt: skip
    standing = cases.standing(one, deed)
    done, in_vain, what = f"case.{deed.verb}", f"case.not_{deed.verb}", _what(one, history, deed, standing)
    if standing == "may":
        try:
            async with attempt(request, done, in_vain, **what):
                id = once(request, what["deed"], deed.case_id, deed.reference, deed.note)
                await cases.say(console_of(request).js, one["agent"], deed, id)
        except (NatsError, TimeoutError, OSError) as error:
            raise Temporary(NOT_KEPT) from error
        standing, (one, history) = await cases.outcome(deed, lambda: _found(request))
        if standing == "refused":
            await fail(request, in_vain, **what, why=standing)
    elif standing == "done":  # this form may have been sent before
        await record_standing(request, done, in_vain, **what, why=standing)
    else:
        await record(request, in_vain, **what, why=standing)
    holder = cases.holder(one, history)
    names = {"may": "queue.may", "done": f"queue.done.{verb}", "refused": f"queue.refused.{holder.state}"}
    return back(request, f"/queue/{one['case_id']}", names[standing], who=said(holder.who, 100))


def _what(one: dict[str, Any], history: Sequence[Any], deed: cases.Deed, standing: str) -> dict[str, Any]:
    """What is recorded of a deed. It is the same deed as long as nothing happened to the case since, or this person's
    word of it alone: a case that came back may be taken again by an old page."""
    seen = len(history)
    if standing == "done":
        seen = cases.said_at(history, deed.by)
    return {"agent": one["agent"], "target": one["case_id"], "deed": f"{deed.verb} {seen}"}


async def _found(request: Request) -> cases.Found | None:
    case_id = request.path_params["case"]
    found = await console_of(request).reading.read(cases.SERVICE, lambda conn: cases.one(conn, case_id))
    if not found.ok:
        raise Temporary("the database of cases does not answer")
    return found.value


async def _read(request: Request) -> cases.Found:
    async with asyncio.timeout(5):
        found = await _found(request)
    if found is None:
        raise HTTPException(404)
    return found


LINK = "/queue"
ROUTES = [
    Route("/queue", listed),
    Route("/queue/{case}", case),
    Route("/queue/{case}/{verb}", do, methods=["POST"]),
]
