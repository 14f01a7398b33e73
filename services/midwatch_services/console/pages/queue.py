"""The human queue: whose customers wait, since when, and the whole of what they were handed over with."""

import asyncio
from typing import Any
from urllib.parse import quote

from nats.errors import Error as NatsError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from midwatch.contracts.subjects import is_agent_name
from midwatch.errors import Temporary
from midwatch_services.console.access.roles import Role
from midwatch_services.console.others import cases
from midwatch_services.console.routes import action, page, record
from midwatch_services.console.view import back, console_of, render, session_of

_LIMIT = 200  # cases on a page
_TEXT_LIMIT = 500  # characters
_LONG = 4000  # characters of one text, unless all of it is asked for


@page(role=Role.VIEWER)
async def listed(request: Request) -> Response:
    """The cases that wait or are in somebody's hands, the longest waiting first."""
    state, agent = request.query_params.get("state") or "waiting", request.query_params.get("agent") or None
    if state not in cases.STATES or (agent is not None and not is_agent_name(agent)):
        raise HTTPException(404)
    found = await console_of(request).reading.read(cases.SERVICE, lambda conn: cases.listed(conn, state, agent, _LIMIT))
    return render(
        request, "queue_list.html" if request.query_params.get("part") else "queue.html", found=found, state=state,
        agent=agent, states=cases.STATES, me=session_of(request).by, limit=_LIMIT,
        may=session_of(request).role.may(Role.OPERATOR), scope={"agent": agent} if agent else None,
    )  # fmt: skip


@page(role=Role.VIEWER)
async def case(request: Request) -> Response:
    """A case whole."""
    found = await _read(request)
    return _case(request, *found)


def _case(request: Request, one: dict[str, Any], history: list[dict[str, Any]], status: int = 200) -> Response:
    me, may = session_of(request).by, session_of(request).role.may(Role.OPERATOR)
    deeds = [
        verb for verb, event in cases.VERBS.items()
        if may and cases.standing(one, cases.Deed(event, one["case_id"], me)) == "may"
    ]  # fmt: skip
    run = f"/runs/{one['agent']}/{quote(one['run_id'], safe='')}"
    return render(
        request, "case.html", status=status, one=one, said=one["case"] or {}, history=history, deeds=deeds, me=me,
        steps=cases.steps(one), holder=cases.holder(one, history), run=run,
        limit=None if request.query_params.get("all") else _LONG, scope={"agent": one["agent"]},
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
    await record(request, f"case.{deed.verb}", agent=one["agent"], target=one["case_id"], standing=standing)
    if standing == "may":
        try:
            await cases.say(console_of(request).js, one["agent"], deed)
        except (NatsError, TimeoutError) as error:
            raise Temporary(f"it was not acknowledged, so nothing was done: {error or 'no answer'}") from error
        standing, (one, history) = await cases.outcome(deed, lambda: _found(request))
    name = f"queue.{standing}.{verb}" if standing == "done" else f"queue.{standing}"
    return back(request, f"/queue/{one['case_id']}", name, holder=cases.holder(one, history))


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
