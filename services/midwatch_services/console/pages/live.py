"""What open pages listen to: `GET /live?on=alerts&on=switch:refund-desk`."""

from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from midwatch_services.console.access.gate import cookie_name
from midwatch_services.console.access.roles import Role
from midwatch_services.console.live import Hub, Topic
from midwatch_services.console.routes import page
from midwatch_services.console.view import console_of, session_of

_AGAIN = "10"  # seconds

# What several pages follow; a page may declare more under `TOPICS` of its own.
TOPICS = {
    "alerts": Topic(("midwatch.alert.{agent}.>",)),
    "audit": Topic(("midwatch.audit.{agent}.>",), Role.ADMIN),
    "cases": Topic(("midwatch.case.{agent}.>",)),
    "cards": Topic(("midwatch.control.card.{agent}",)),
    "presence": Topic(("midwatch.presence.{agent}.>",)),
    "reviews": Topic(("midwatch.review.{agent}.>",)),
    "runs": Topic(("midwatch.run.{agent}.>",)),
    "switch": Topic(("midwatch.switch.{agent}.>", "midwatch.control.>")),
}


@page(role=Role.VIEWER)
async def live(request: Request) -> Response:
    """Server-sent events: which of the topics has moved."""
    console, session = console_of(request), session_of(request)
    hub = console.live
    if refused := hub.refusal(session.id):
        return Response(status_code=refused, headers={"retry-after": _AGAIN})
    names = hub.known(request.query_params.getlist("on"), session.role)
    cookie = request.cookies.get(cookie_name(console.policy, request.scope), "")
    # As for a request: a session that was signed with a key before stands no longer.
    return _Stream(hub, session.id, hub.follow(names, lambda: console.sessions.opened(cookie) is not None))


class _Stream(StreamingResponse):
    """Takes its room before the next request is judged, and gives it back however it ends."""

    def __init__(self, hub: Hub, session: str, events: AsyncIterator[bytes]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"x-accel-buffering": "no"})
        self._hub, self._session = hub, session
        hub.enter(session)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._hub.leave(self._session)


ROUTES = [Route("/live", live)]
