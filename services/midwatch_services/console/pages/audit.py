"""Who did what, for admins: by person and day, and as a sheet."""

import asyncio

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from midwatch_services.console import days as stretch
from midwatch_services.console import sheet, trail
from midwatch_services.console.access.roles import Role
from midwatch_services.console.days import Days
from midwatch_services.console.others.switch import MISSED
from midwatch_services.console.routes import page
from midwatch_services.console.view import console_of, query, render

_PAGE = 200  # entries
_USUAL, _MOST = 7, 92  # days
_COLUMNS = ("at", "by", "role", "action", "agent", "target", "detail", "where")
_WITHIN = 10.0  # seconds


@page(role=Role.ADMIN)
async def listed(request: Request) -> Response:
    """The newest first."""
    days, person = _asked(request)
    found = await _read(request, days, person)
    first = max(0, _number(request.query_params.get("after")))
    shown = found.entries[first : first + _PAGE] if found else []
    given = {"from": days.first, "to": days.last, "by": person}
    more = found is not None and len(found.entries) > first + _PAGE
    return render(
        request, "audit_list.html" if request.query_params.get("part") else "audit.html", days=days, person=person,
        found=found, shown=shown, given=query(**given), total=len(found.entries) if found else 0, most=trail.MOST,
        people=sorted({one.by for one in found.entries}) if found else [], first=first,
        newer=f"/audit?{query(**given, after=max(0, first - _PAGE) or None)}" if first else "",
        older=f"/audit?{query(**given, after=first + _PAGE)}" if more else "",
    )  # fmt: skip


@page(role=Role.ADMIN)
async def as_sheet(request: Request) -> Response:
    """The same as CSV."""
    days, person = _asked(request)
    found = await _read(request, days, person)
    if found is None:
        raise HTTPException(503, "the bus does not answer")
    rows = ([getattr(one, name) if name != "at" else one.at.isoformat() for name in _COLUMNS] for one in found.entries)
    name = f"audit-{days.first}-{days.last}.csv"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(sheet.of(_COLUMNS, rows), media_type="text/csv; charset=utf-8", headers=headers)


async def _read(request: Request, days: Days, person: str) -> trail.Trail | None:
    nc = console_of(request).nc
    if not nc.is_connected:
        return None
    try:
        async with asyncio.timeout(_WITHIN):
            return await trail.read(nc, days.begin, days.end, person)
    except MISSED:
        return None


def _asked(request: Request) -> tuple[Days, str]:
    console, given = console_of(request), request.query_params
    try:
        days = stretch.days(
            given.get("from", ""), given.get("to", ""), console.now(), console.settings.digest_zone, usual=_USUAL,
            most=_MOST,
        )  # fmt: skip
    except stretch.BadDay:
        raise HTTPException(404) from None
    return days, given.get("by", "").strip()


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 8 else 0


LINK = "/audit"
ROUTES = [Route("/audit", listed), Route("/audit.csv", as_sheet)]
