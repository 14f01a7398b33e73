"""Mending the switch: an empty list in the place of one of halted tools or runs that cannot be read."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from midwatch.contracts import subjects
from midwatch.errors import Temporary
from midwatch.runtime.switchboard import Entry, Scope, Switchboard
from midwatch_services.console import stopping
from midwatch_services.console.access.roles import Role
from midwatch_services.console.others import switch
from midwatch_services.console.routes import action, fail, page, record
from midwatch_services.console.view import back, console_of, environment, render

from .stop import bus_answers, not_done

_KEYS = {"tools": subjects.tools_key, "runs": subjects.runs_key}


@page(role=Role.OPERATOR)
async def mend(request: Request) -> Response:
    """Says what an empty list would lift, and does nothing."""
    return await _mend(request, request.query_params)


async def _mend(request: Request, given: Mapping[str, str], wrong: str = "", status: int = 200) -> Response:
    agent, what = _of(given)
    console = console_of(request)
    state = await switch.state(console.nc, console.js)
    stands = next((one for one in state.halts if (one.scope.agent, one.unreadable) == (agent, what)), None)
    return render(
        request, "stop_mend.html", status=status, agent=agent, list=what, stands=stands, known=state.known, wrong=wrong,
        limit=stopping.REASON_LIMIT, scope=stopping.fields_of(Scope(agent)),
    )  # fmt: skip


@action(role=Role.OPERATOR)
async def mended(request: Request) -> Response:
    """Puts an empty list in the place of the write that its page showed, and of no other. It waits until that is
    recorded."""
    given = {name: str(value) for name, value in (await request.form()).items()}
    reason, seen = given.get("reason", "").strip()[: stopping.REASON_LIMIT], given.get("seen", "")
    if not reason:
        return await _mend(request, given, "reason", 422)
    async with _one_at_a_time(request):  # what one press has mended the next reads as mended
        return await _clear(request, given, reason, seen)


async def _clear(request: Request, given: Mapping[str, str], reason: str, seen: str) -> Response:
    agent, what = _of(given)
    key = _KEYS[what](agent)
    deed = f"mend {seen}"
    try:
        bus_answers(request)
        js = console_of(request).js
        entry = await Switchboard(js).read(key)
        is_it = entry.map() is None and str(entry.revision) == seen
        action = "switch.mend" if is_it else "switch.not_mended"
        is_new = await record(request, action, agent=agent, target=key, deed=deed, reason=reason, epoch=entry.revision)
        if not is_it and not is_new and entry.map() is not None:
            return _done(request, agent, what)  # by the press before
        if not is_it:
            return await _mend(request, given, "mended", 409)
    except switch.MISSED as error:
        return not_done(request, "mend", Scope(agent), error)
    try:
        if not await switch.clear(js, key, entry.revision):
            await _came_to_nothing(request, agent, deed, entry, reason)
            return await _mend(request, given, "mended", 409)
    except switch.MISSED as error:
        await _came_to_nothing(request, agent, deed, entry, reason)
        return not_done(request, "mend", Scope(agent), error)
    return _done(request, agent, what)


def _one_at_a_time(request: Request) -> asyncio.Lock:
    if not hasattr(request.app.state, "mending"):
        request.app.state.mending = asyncio.Lock()
    lock: asyncio.Lock = request.app.state.mending
    return lock


def _done(request: Request, agent: str, what: str) -> Response:
    words: Any = environment().globals["t"]
    return back(request, "/stop", "stop.mend.done", name=words(f"stop.unreadable.name_{what}", agent=agent))


async def _came_to_nothing(request: Request, agent: str, deed: str, entry: Entry, reason: str) -> None:
    with suppress(Temporary):
        await fail(
            request, "switch.not_mended", agent=agent, target=entry.key, deed=deed, reason=reason, epoch=entry.revision
        )  # fmt: skip


def _of(given: Mapping[str, str]) -> tuple[str, str]:
    agent, what = given.get("agent", ""), given.get("list", "")
    if not subjects.is_agent_name(agent) or what not in _KEYS:
        raise HTTPException(404)
    return agent, what


ROUTES = [Route("/stop/mend", mend), Route("/stop/mended", mended, methods=["POST"])]
