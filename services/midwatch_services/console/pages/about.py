"""What is up: the bus, and what each service keeps."""

import asyncio
from collections.abc import Callable

from sqlalchemy.engine import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from midwatch.contracts import subjects
from midwatch.runtime.broker import round_trip
from midwatch_services.console.access.roles import Role
from midwatch_services.console.others import contacts
from midwatch_services.console.routes import page
from midwatch_services.console.view import console_of, render

_WITHIN = 2.0  # seconds
_KEEP = (
    subjects.LOGGER, subjects.COST_WATCHDOG, subjects.KILL_SWITCH, subjects.REVIEWER_SAMPLER, subjects.PAGER,
    subjects.DRIFT, subjects.DIGEST,
)  # fmt: skip


@page(role=Role.VIEWER)
async def about(request: Request) -> Response:
    """A line each, and what one can still do without it."""
    console = console_of(request)
    reading = console.reading
    found = await asyncio.gather(*(reading.read(one, _answers(one), keep=("ping",), seconds=2) for one in _KEEP))
    return render(
        request, "about.html", bus=await _bus(request), found=found, hearing=console.hearing,
        nobody=await contacts.mend(console.settings),
    )  # fmt: skip


def _answers(service: str) -> Callable[[Connection], bool]:
    """Reads a row: an SQLite file is opened without a look at what it holds."""
    query = f"SELECT version_num FROM alembic_version_{service.replace('-', '_')}"  # noqa: S608
    return lambda conn: conn.exec_driver_sql(query).first() is not None


async def _bus(request: Request) -> bool:
    nc = console_of(request).nc
    if not nc.is_connected:
        return False
    try:
        await round_trip(nc, _WITHIN)
    except Exception:  # whatever it is, the bus does not answer
        return False
    return True


ROUTES = [Route("/about", about)]
