"""The one page that there is while the console waits for NATS: what happens meanwhile, and what to do."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.responses import HTMLResponse

from midwatch.runtime.serving import Serving
from midwatch.runtime.settings import Settings

from . import view
from .access.headers import added
from .access.policy import policy_of
from .server import ConsolePortTaken

Message = MutableMapping[str, Any]
_AGAIN = "5"  # seconds


def standin(settings: Settings) -> Serving | None:
    """Says so where the console will be; None where nobody knows the port yet. Raises Misconfigured."""
    policy_of(settings)
    if settings.console_port == 0:
        return None
    return Serving(
        _answer,
        host=settings.console_host,
        port=settings.console_port,
        taken=ConsolePortTaken,
        named="MIDWATCH_CONSOLE",
    )


async def _answer(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    if scope["type"] != "http":
        return
    page = HTMLResponse(view.environment().get_template("waiting.html").render(), 503, {"retry-after": _AGAIN})
    page.raw_headers = added(page.raw_headers, secure=False)
    await page(scope, receive, send)
