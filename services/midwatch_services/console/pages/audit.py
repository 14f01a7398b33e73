"""Who did what, for admins: by person and day, and as a sheet."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from midwatch_services.console import days as stretch
from midwatch_services.console import sheet, texts, trail
from midwatch_services.console.access.roles import Role
from midwatch_services.console.days import Days
from midwatch_services.console.filters import said
from midwatch_services.console.others.switch import MISSED
from midwatch_services.console.routes import page, record
from midwatch_services.console.view import console_of, query, render

_PAGE = 200  # entries
_USUAL, _MOST = 7, 92  # days
_COLUMNS = ("at", "by", "role", "action", "agent", "target", "detail", "where")
_WITHIN = 10.0  # seconds


@page(role=Role.ADMIN)
async def listed(request: Request) -> Response:
    """The newest first."""
    person = request.query_params.get("by", "").strip()
    try:
        days = _days(request)
    except stretch.BadDay as error:
        return _shown(request, None, person, None, wrong=error.why)
    return _shown(request, days, person, await _read(request, days, person))


def _shown(request: Request, days: Days | None, person: str, found: trail.Trail | None, *, wrong: str = "") -> Response:
    asked = request.query_params
    if asked.get("part") and found is None and not wrong:
        return Response(status_code=503)  # what is shown stays, and is asked for again
    typed = {"from": days.first, "to": days.last} if days else {name: asked.get(name, "") for name in ("from", "to")}
    first = max(0, _number(asked.get("after")))
    shown = found.entries[first : first + _PAGE] if found else []
    given = {**typed, "by": person}
    more = found is not None and len(found.entries) > first + _PAGE
    return render(
        request, "audit_list.html" if asked.get("part") and not wrong else "audit.html", status=400 if wrong else 200,
        typed=typed, person=person, found=found, shown=[(one, told(one.detail)) for one in shown], wrong=wrong,
        given=query(**given), total=len(found.entries) if found else 0, most=trail.MOST, days=_MOST, first=first,
        people=sorted({one.by for one in found.entries if one.by}) if found else [],
        zone=console_of(request).settings.digest_zone,
        newer=f"/audit?{query(**given, after=max(0, first - _PAGE) or None)}" if first else "",
        older=f"/audit?{query(**given, after=first + _PAGE)}" if more else "",
    )  # fmt: skip


def told(detail: Mapping[str, str]) -> list[str]:
    """The figures and names of an entry, each in words."""
    return list(filter(None, (_in_words(name, value) for name, value in detail.items() if value)))


def _in_words(name: str, value: str) -> str:
    t = texts.load()
    for text in (f"audit.how.{name}.{value}", f"audit.how.{name}.any"):
        with suppress(texts.NoText):
            return t(text, value=said(value, 300))
    return f"{name}: {said(value, 300)}"


@page(role=Role.ADMIN)
async def as_sheet(request: Request) -> Response:
    """The same as CSV. It is recorded, for it leaves the house."""
    person = request.query_params.get("by", "").strip()
    try:
        days = _days(request)
    except stretch.BadDay as error:
        raise HTTPException(400, texts.load()(f"audit.wrong.{error.why}", days=_MOST)) from None
    await record(request, "audit.exported", target="csv", days=f"{days.first} to {days.last}")
    found = await _read(request, days, person)
    if found is None:
        raise HTTPException(503, "the bus does not answer")
    rows = ([_cell(one, name) for name in _COLUMNS] for one in found.entries)
    name = f"audit-{days.first}-{days.last}.csv"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(sheet.of(_COLUMNS, rows), media_type="text/csv; charset=utf-8", headers=headers)


def _cell(one: trail.Entry, name: str) -> str:
    if name == "detail":
        return ", ".join(f"{key}: {value}" for key, value in one.detail.items())
    return one.at.isoformat() if name == "at" else str(getattr(one, name))


async def _read(request: Request, days: Days, person: str) -> trail.Trail | None:
    nc = console_of(request).nc
    if not nc.is_connected:
        return None
    try:
        async with asyncio.timeout(_WITHIN):
            return await trail.read(nc, days.begin, days.end, person)
    except MISSED:
        return None


def _days(request: Request) -> Days:
    """Raises BadDay."""
    console, given = console_of(request), request.query_params
    return stretch.days(
        given.get("from", ""), given.get("to", ""), console.now(), console.settings.digest_zone, usual=_USUAL,
        most=_MOST,
    )  # fmt: skip


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 8 else 0


LINK = "/audit"
ROUTES = [Route("/audit", listed), Route("/audit.csv", as_sheet)]
