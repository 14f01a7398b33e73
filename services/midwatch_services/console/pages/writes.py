"""What agents changed lately: each call of a tool that writes, with what it was given and what came back."""

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from midwatch.contracts.subjects import is_agent_name
from midwatch_services.console import days as stretch
from midwatch_services.console.access.roles import Role
from midwatch_services.console.addresses import run_path
from midwatch_services.console.others import writes
from midwatch_services.console.reading import SEARCHES
from midwatch_services.console.routes import page
from midwatch_services.console.search import MODES, packed, unpacked
from midwatch_services.console.view import console_of, query, render

_USUAL, _MOST = 7, 92  # days
_NAME_LIMIT = 128
_LIVE, _ALL = "live", "all"
_KINDS = (*MODES, _ALL)
_FIELDS = ("agent", "tool", "mode", "from", "to")


@page(role=Role.VIEWER)
async def listed(request: Request) -> Response:
    """Of the newest runs, the live ones where no others are asked for; a tool or an agent alone where one is."""
    console = console_of(request)
    given = {name: request.query_params.get(name, "").strip() for name in _FIELDS}
    agent, tool, mode = given["agent"] or None, given["tool"] or None, given["mode"] or _LIVE
    before = request.query_params.get("before") or None
    after = unpacked(before) if before else None
    if before and after is None:
        raise HTTPException(404)
    wrong = _wrong(agent, tool, mode)
    try:
        days = stretch.days(
            given["from"], given["to"], console.now(), console.settings.digest_zone, usual=_USUAL, most=_MOST
        )
    except stretch.BadDay:
        wrong.append("days")
        days = stretch.days("", "", console.now(), console.settings.digest_zone, usual=_USUAL, most=_MOST)
    found: Any = None
    cards = {card.agent: card for card in console.cards.all()}
    if not wrong:
        tools = {agent: card.tools for agent, card in cards.items()}
        asked = writes.Asked(agent, tool, None if mode == _ALL else mode, days.begin, days.end)
        now = console.now()
        found = await console.reading.read(
            writes.SERVICE,
            lambda conn: writes.page(conn, asked, after, tools, now),
            keep=("writes", asked, after),
            seconds=2,
            lane=SEARCHES,
        )
    older = packed(found.value.older) if found and found.value and found.value.older else ""
    scope = {"agent": agent} | ({"tool": tool} if tool else {}) if agent and not wrong else None
    return render(
        request, "writes.html", found=found, agent=agent, tool=tool, mode=mode, modes=_KINDS, wrong=wrong, most=_MOST,
        first=given["from"] if "days" in wrong else days.first, last=given["to"] if "days" in wrong else days.last,
        older=f"/writes?{query(**given, before=older)}" if older else "", is_behind=after is not None,
        tools=sorted({name for card in cards.values() for name, rule in card.tools.items() if rule.kind == "write"}),
        agents=sorted(cards), run_link=run_path, scope=scope, zone=console.settings.digest_zone,
    )  # fmt: skip


def _wrong(agent: str | None, tool: str | None, mode: str) -> list[str]:
    """Which of these cannot be asked, as names of texts."""
    checks = {
        "agent": agent is None or is_agent_name(agent), "mode": mode in _KINDS,
        "tool": tool is None or (len(tool) <= _NAME_LIMIT and "\0" not in tool),
    }  # fmt: skip
    return [name for name, is_right in checks.items() if not is_right]


LINK = "/writes"
ROUTES = [Route("/writes", listed)]
