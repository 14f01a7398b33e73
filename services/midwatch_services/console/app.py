"""Wires the console: its server lives as long as the service does."""

from midwatch.contracts import subjects
from midwatch.runtime import price_book
from midwatch.runtime.service import Context, Service

from .server import Server

_TICK = 0.5  # seconds between two looks at the connection


def build(context: Context) -> None:
    """Listens from the start, before anything else is known. Raises Misconfigured."""
    server = Server(context.settings, context.nc, context.js, context.cards, context.now)
    reconnects = context.nc.stats["reconnects"]

    async def look() -> None:
        nonlocal reconnects
        if context.nc.stats["reconnects"] != reconnects:
            reconnects = context.nc.stats["reconnects"]
            server.console.live.all_moved()

    context.on_start(server.start)
    price_book.follow(context)
    context.background(server.last)
    context.every(_TICK, look)


SERVICE = Service(subjects.CONSOLE, build, tables=False)
