"""Wires the console: its server lives as long as the service does."""

import asyncio

from midwatch.contracts import subjects
from midwatch.runtime import price_book
from midwatch.runtime.service import Context, Service

from . import hearing
from .others import days
from .server import Server
from .waiting import standin

_TICK = 0.5  # seconds between two looks at the connection and the key
_SUMMED = 28  # days, the most that a page tells of


def build(context: Context) -> None:
    """Listens as soon as NATS is there, before anything is read; until then `standin` does. Raises Misconfigured."""
    server = Server(context.settings, context.nc, context.js, context.cards, context.now)

    async def look() -> None:
        server.look()

    async def sum_days() -> None:
        # Beside the rest: the first page then waits for no more than is left of it.
        console = server.console
        for count in (days.sums, days.alerts, days.backlogs):
            work = count(console.reading, context.now(), console.settings.digest_zone, _SUMMED)
            console.tasks.add(asyncio.create_task(work))

    context.on_start(server.start)
    context.on_start(sum_days)
    price_book.follow(context)
    context.background(server.last)
    context.every(_TICK, look)
    context.every(hearing.EVERY, server.console.hearing.look)


SERVICE = Service(subjects.CONSOLE, build, tables=False, standin=standin)
