"""The first page: what the shop's agents did on a day, in ten minutes."""

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from midwatch.contracts.subjects import FLEET, is_agent_name
from midwatch_services.console import digest_text
from midwatch_services.console.access.roles import Role
from midwatch_services.console.others import digest
from midwatch_services.console.routes import action, page, record
from midwatch_services.console.view import back, console_of, query, render


@page(role=Role.VIEWER)
async def today(request: Request) -> Response:
    """The digest of a day: yesterday's, unless another is asked for."""
    console = console_of(request)
    day, agent = _day(request, request.query_params.get("day")), _agent(request.query_params.get("agent"))
    found = await console.reading.read(digest.SERVICE, lambda conn: digest.of_day(conn, day, agent))
    days = await console.reading.read(
        digest.SERVICE, lambda conn: digest.days(conn, agent), keep=("days", agent), seconds=10
    )
    told = digest_text.parse(found.value) if found.value else None
    return render(
        request, "today.html", day=day, agent=agent, found=found, told=told, days=days | [], fleet=FLEET,
        newest=_newest(request), at=console.settings.digest_at, zone=console.settings.digest_zone,
    )  # fmt: skip


@action(role=Role.VIEWER)
async def read(request: Request) -> Response:
    """Somebody says that they have read it."""
    form = await request.form()
    day, agent = _day(request, str(form.get("day", ""))), _agent(str(form.get("agent", "")))
    await record(request, "digest.read", agent=agent, target=day.isoformat())
    shown = query(day=day if day != _newest(request) else None, agent=agent if agent != FLEET else None)
    return back(request, f"/?{shown}" if shown else "/", "today.recorded", day=f"{day:%A, %-d %B}")


def _newest(request: Request) -> date:
    console = console_of(request)
    now: datetime = console.now().astimezone(ZoneInfo(console.settings.digest_zone))
    return now.date() - timedelta(days=1)


def _day(request: Request, text: str | None) -> date:
    if not text:
        return _newest(request)
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise HTTPException(404) from None
    if not 1971 <= day.year <= 9998:
        raise HTTPException(404)
    return day


def _agent(text: str | None) -> str:
    if not text or text == FLEET:
        return FLEET
    if not is_agent_name(text):
        raise HTTPException(404)
    return text


LINK = "/"
ROUTES = [Route("/", today), Route("/today/read", read, methods=["POST"])]
