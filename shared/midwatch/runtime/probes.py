"""Health and metrics over HTTP, for Kubernetes, Prometheus and `midwatch doctor`.

One server a process. `/livez`, `/readyz` and `/metrics` speak for every service in it, `/<service>/livez`,
`/<service>/readyz` and `/<service>/metrics` for one. 200 is yes, 503 is no; the body is JSON and names what is wrong.
What is posted elsewhere below `/<service>/` goes to the service, if it answers requests of its own.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
from nats.errors import Error as NatsError
from prometheus_client import CONTENT_TYPE_LATEST

from midwatch.errors import MidwatchError

from . import telemetry
from .serving import PortTaken, Serving

QUESTIONS = ("livez", "readyz", "metrics")
PROBE_WITHIN = 3.0  # seconds for one round trip
BODY_LIMIT = 64 * 1024  # bytes of a request to a service
BODY_WITHIN = 10.0  # seconds

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


class HttpPortTaken(PortTaken):
    """Port {port} on {host}, for health and metrics, is taken: stop what uses it, or choose another with
    MIDWATCH_HTTP_PORT (0 picks a free one)."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a service is asked. `path` is what follows its name, names of headers are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


Answer = tuple[int, dict[str, Any]]  # status, and what is said as JSON
Route = Callable[[Request], Awaitable[Answer | None]]  # None where there is nothing at that path


class Probed(Protocol):
    """What is asked. Both answers have `ok`, and in words whatever is not."""

    @property
    def name(self) -> str: ...

    def alive(self) -> dict[str, Any]: ...

    async def ready(self) -> dict[str, Any]: ...


class Probes:
    """The HTTP server of one process."""

    def __init__(
        self, probed: Sequence[Probed], *, host: str, port: int, routes: Mapping[str, Route] | None = None
    ) -> None:
        """`routes`: what answers what is posted below a service's name."""
        self._probed = {one.name: one for one in probed}
        self._routes = dict(routes or {})
        self._serving = Serving(self._answer, host=host, port=port, taken=HttpPortTaken)

    @property
    def urls(self) -> dict[str, str]:
        """Address of each service's probes, without the last part; known once started."""
        return {name: f"{self._serving.url}/{name}" for name in self._probed}

    async def start(self) -> None:
        """Answers from here on. Raises HttpPortTaken."""
        await self._serving.start()

    async def close(self) -> None:
        """Answers what is asked already, then stops."""
        await self._serving.close()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        answer = await self._routed(scope, receive)
        status, kind, body = answer or await self._respond(str(scope["path"]))
        headers = [(b"content-type", kind.encode()), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _routed(self, scope: Scope, receive: Receive) -> tuple[int, str, bytes] | None:
        name, _, path = str(scope["path"]).lstrip("/").partition("/")
        if name not in self._routes or path in QUESTIONS or scope["method"] in ("GET", "HEAD"):
            return None
        try:
            async with asyncio.timeout(BODY_WITHIN):
                body = await _body(receive)
        except TimeoutError:
            return _json(408, {"ok": False, "error": f"the body did not come within {BODY_WITHIN:g} s"})
        if body is None:
            return _json(413, {"ok": False, "error": f"a body may have {BODY_LIMIT} bytes"})
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        answer = await self._routes[name](Request(str(scope["method"]), path, headers, body))
        return None if answer is None else _json(*answer)

    async def _respond(self, path: str) -> tuple[int, str, bytes]:
        name, _, question = path.strip("/").rpartition("/")
        asked = list(self._probed.values()) if not name else [self._probed[name]] if name in self._probed else []
        if not asked or question not in QUESTIONS:
            return _json(404, {"ok": False, "error": "ask for /livez, /readyz or /metrics", "services": self.urls})
        if question == "metrics":
            return 200, CONTENT_TYPE_LATEST, telemetry.metrics(name or None)
        if question == "livez":
            answers = [one.alive() for one in asked]
        else:
            answers = await asyncio.gather(*(one.ready() for one in asked))
        ok = all(answer["ok"] for answer in answers)
        if name:
            return _json(200 if ok else 503, answers[0])
        return _json(200 if ok else 503, {"ok": ok, "services": answers})


async def problem(attempt: Coroutine[Any, Any, None], *, connected: bool = True) -> str | None:
    """Why `attempt`, one round trip, does not succeed; None where it does."""
    if not connected:
        attempt.close()
        return "not connected"
    try:
        async with asyncio.timeout(PROBE_WITHIN):
            await attempt
    except TimeoutError:
        return f"no answer within {PROBE_WITHIN:g} s"
    except (MidwatchError, NatsError) as error:
        return str(error) or type(error).__name__
    return None


def _json(status: int, body: dict[str, Any]) -> tuple[int, str, bytes]:
    return status, "application/json", msgspec.json.encode(body)


async def _body(receive: Receive) -> bytes | None:
    """The body of a request; None where it is over the limit."""
    body = bytearray()
    while len(body) <= BODY_LIMIT:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body) if len(body) <= BODY_LIMIT else None
    return None
