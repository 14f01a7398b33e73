"""The halts that were, from kill-switch's database."""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from midwatch.contracts import subjects
from midwatch_services.console.access.roles import Role
from midwatch_services.console.others import switch
from midwatch_services.console.routes import page
from midwatch_services.console.view import console_of, query, render

_HISTORY, _HISTORY_MOST = 30, 600  # halts that are listed: so many more each time, and at most


@page(role=Role.VIEWER)
async def history(request: Request) -> Response:
    """The halts that were."""
    agent = request.query_params.get("agent") or None
    if agent is not None and not subjects.is_agent_name(agent):
        raise HTTPException(404)
    asked = request.query_params.get("shown", "")
    shown = min(max(int(asked), _HISTORY), _HISTORY_MOST) if asked.isdecimal() and len(asked) < 5 else _HISTORY
    found = await console_of(request).reading.read(
        switch.SERVICE, lambda conn: switch.past(conn, agent, shown + 1), keep=("halts", agent, shown), seconds=2
    )
    halts, older = (found.value or [])[:shown], ""
    if len(found.value or []) > shown and shown < _HISTORY_MOST:
        older = f"/stop/history?{query(agent=agent, shown=shown + _HISTORY)}"
    drilled = agent or min((card.agent for card in console_of(request).cards.all()), default="")
    return render(request, "stop_history.html", found=found, agent=agent, halts=halts, older=older, drilled=drilled)


ROUTES = [Route("/stop/history", history)]
