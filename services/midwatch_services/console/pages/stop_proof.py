"""The page that tells how far a halt has got: from the bus alone, but for how much it stopped before anybody looked."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from midwatch.runtime.switchboard import Scope
from midwatch_services.console import stopping
from midwatch_services.console.access.roles import Role
from midwatch_services.console.others import switch
from midwatch_services.console.others.containment import Told
from midwatch_services.console.routes import page
from midwatch_services.console.view import console_of, render, session_of

from .stop import Wrong, scope_of, state_of, watches_of

_COUNTED = ("waiting", "contained", "revoked")  # phases of a halt
_COUNTS_WITHIN = 1.0  # seconds; who has confirmed waits no longer for a database


@page(role=Role.VIEWER)
async def proof(request: Request) -> Response:
    """Who has confirmed a halt, as it fills."""
    try:
        scope = scope_of(dict(request.query_params))
    except Wrong:
        raise HTTPException(404) from None
    told = await watches_of(request).told(scope)
    needs = told.missing or told.moving or told.phase == "contained"
    some = (await state_of(request)).instances if needs else ()
    if told.record and told.phase in _COUNTED and not (told.counted and told.goes_on):
        told = await _with_counts(request, scope, told)
    where = {(one.agent, one.instance): (one.pid, one.host) for one in some}
    since = _since(scope, told, some)
    shown = stopping.seen(told, sorted(where.items()), since)
    if request.query_params.get("part") and request.query_params.get("seen") == shown:
        return Response(status_code=204)
    fields = stopping.fields_of(scope)
    return render(
        request, "stop_proof_part.html" if request.query_params.get("part") else "stop_proof.html", told=told,
        at=scope, kind=stopping.kind_of(scope), where=where, since=since, seen=shown, scope=fields, given=fields,
        may=session_of(request).role.may(Role.OPERATOR), write_off=switch.write_off,
    )  # fmt: skip


async def _with_counts(request: Request, scope: Scope, told: Told) -> Told:
    """What was heard from the press on, or else what kill-switch has counted, which may be no more than at first."""
    reading, name = console_of(request).reading, (scope.key, scope.target, told.epoch)
    try:
        async with asyncio.timeout(_COUNTS_WITHIN):
            found = await reading.read(
                switch.SERVICE, lambda conn: switch.counts(conn, scope.key, scope.target, told.record),
                keep=("counts", *name), seconds=1,
            )  # fmt: skip
    except TimeoutError:
        return told
    if found.value is None:
        return told
    runs, cases = found.value
    return replace(told, runs_stopped=max(runs, told.runs_stopped), cases=max(cases, told.cases), counted=True)


def _since(scope: Scope, told: Told, instances: Sequence[stopping.Instance]) -> list[tuple[str, str, str, bool]]:
    """Who came up after the halt was contained: agent, instance, why it may not obey, if it may not, and whether
    another process had confirmed under its name."""
    confirmed = {(one.agent, one.instance) for one in told.instances}
    return [
        (one.agent, one.instance, one.why_not, (one.agent, one.instance) in confirmed)
        for one in instances
        if told.phase == "contained" and scope.agent in (None, one.agent)
        and not told.had((one.agent, one.instance), one.process)
    ]  # fmt: skip


ROUTES = [Route("/stop/proof", proof)]
