"""What agents changed lately: each call of a tool that writes, with what it was given and what came back."""

from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from midwatch.contracts.subjects import is_agent_name
from midwatch_services.console import days as stretch
from midwatch_services.console.access.roles import Role
from midwatch_services.console.others import writes
from midwatch_services.console.reading import SEARCHES
from midwatch_services.console.routes import page
from midwatch_services.console.view import console_of, query, render

_USUAL, _MOST = 7, 92  # days
_NAME_LIMIT = 128


@page(role=Role.VIEWER)
async def listed(request: Request) -> Response:
    """Of the newest runs; a tool or an agent alone where it is asked for."""
    console, asked = console_of(request), request.query_params
    agent, tool = asked.get("agent", "").strip() or None, asked.get("tool", "").strip() or None
    before = asked.get("before") or None
    bad = (agent is not None and not is_agent_name(agent)) or len(tool or "") > _NAME_LIMIT or len(before or "") > 40
    try:
        days = stretch.days(
            asked.get("from", ""), asked.get("to", ""), console.now(), console.settings.digest_zone, usual=_USUAL,
            most=_MOST,
        )  # fmt: skip
    except stretch.BadDay:
        bad = True
    if bad:
        raise HTTPException(404)
    found = await console.reading.read(
        writes.SERVICE, lambda conn: writes.page(conn, agent, tool, days.begin, before or days.end),
        keep=("writes", agent, tool, days, before), seconds=2, lane=SEARCHES,
    )  # fmt: skip
    given = {"agent": agent, "tool": tool, "from": asked.get("from"), "to": asked.get("to")}
    older = f"/writes?{query(**given, before=found.value.older)}" if found.value and found.value.older else ""
    scope = {"agent": agent} | ({"tool": tool} if tool else {}) if agent else None
    cards = {card.agent: card for card in console.cards.all()}
    return render(
        request, "writes.html", found=found, agent=agent, tool=tool, days=days, older=older,
        tools=sorted({name for card in cards.values() for name, rule in card.tools.items() if rule.kind == "write"}),
        agents=sorted(cards), run_link=_run_link, scope=scope,
    )  # fmt: skip


def _run_link(agent: str, run_id: str) -> str:
    return f"/runs/{quote(agent, safe='')}/{quote(run_id, safe='')}"


LINK = "/writes"
ROUTES = [Route("/writes", listed)]
