"""What open pages listen to: `GET /live?on=alerts&on=switch:refund-desk`."""

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from midwatch_services.console.access.roles import Role
from midwatch_services.console.live import Topic
from midwatch_services.console.routes import page
from midwatch_services.console.view import console_of

# What several pages follow; a page may declare more under `TOPICS` of its own.
TOPICS = {
    "alerts": Topic(("midwatch.alert.{agent}.>",)),
    "audit": Topic(("midwatch.audit.{agent}.>",)),
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
    hub = console_of(request).live
    names = hub.known(request.query_params.getlist("on"))
    return StreamingResponse(hub.follow(names), media_type="text/event-stream", headers={"x-accel-buffering": "no"})


ROUTES = [Route("/live", live)]
