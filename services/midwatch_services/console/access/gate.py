"""What every request passes before a page sees it: the host, the limits, who asks; and the headers of every answer."""

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import Response

from . import headers, origin
from .limits import Limits
from .policy import Policy
from .session import Session, Sessions

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Refuse = Callable[[Scope, int, str], Response]  # the page that says why, in plain words
Proof = Callable[
    [HTTPConnection], str | None
]  # what is known of a link or an answer of the issuer: its name, if it is ours

BODY_LIMIT = 512 * 1024  # bytes of what is posted, encoded as forms are: a letter of Chinese is nine
PROVING = ("/enter", "/sign-in/back")  # where a guess could let somebody in
ASKS_ISSUER = ("/sign-in/begin", "/sign-in/back")  # where a stranger could have us ask it in our own name
ASKING = "midwatch.session"  # in the scope: who asks, or None


class Gate:
    """Wraps the pages. `hosts` is set once it is known where they listen; `before` is called before each request."""

    def __init__(
        self,
        app: App,
        policy: Policy,
        sessions: Sessions,
        refuse: Refuse,
        proof: Proof,
        before: Callable[[], None],
    ) -> None:
        self.hosts: frozenset[str] = frozenset()
        self._app, self._policy, self._sessions, self._refuse, self._proof = app, policy, sessions, refuse, proof
        self._before = before
        self._by_session = Limits(policy.per_session)
        self._by_address = Limits(policy.per_address)
        self._sign_ins = Limits(policy.sign_ins)
        self._issuer_asked = Limits(policy.issuer_asked)
        self._stops = Limits(policy.stops)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def answer(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                kept = list(message.get("headers", ()))
                message = {**message, "headers": headers.added(kept, secure=self._policy.is_secure)}
            await send(message)

        self._before()
        scope[ASKING] = session = self._session(scope)
        if refused := self._judge(scope, session):
            await refused(scope, receive, answer)
        else:
            await self._app(scope, _limited(receive), answer)

    def _session(self, scope: Scope) -> Session | None:
        cookie = HTTPConnection(scope).cookies.get(cookie_name(self._policy, scope))
        return self._sessions.opened(cookie) if cookie else None

    def _judge(self, scope: Scope, session: Session | None) -> Response | None:
        """The answer to what goes no further."""
        asked = Headers(scope=scope)
        if asked.get("host", "").lower() not in self.hosts:
            scope[ASKING] = None
            return self._refuse(scope, 421, "")
        if origin.is_smuggled(asked, scope["method"]):
            return self._refuse(scope, 403, "cross_site")
        length = asked.get("content-length", "0")
        if not length.isdecimal() or int(length) > BODY_LIMIT:
            return self._refuse(scope, 413, "")
        if wait := self._wait(scope, session):
            refused = self._refuse(scope, 429, "")
            refused.headers["retry-after"] = str(int(wait) + 1)
            return refused
        return None

    def _wait(self, scope: Scope, session: Session | None) -> float:
        """The seconds until this may be asked. Who is known has a bucket of their own, that no stranger empties."""
        path, now = scope["path"], time.monotonic()
        if path.startswith("/static/"):
            return 0.0
        if session:
            is_stop = scope["method"] == "POST" and path.startswith("/stop")
            return (self._stops if is_stop else self._by_session).wait(session.id, now)
        address = str((scope.get("client") or ("unknown",))[0])
        if path in PROVING:
            known = self._proof(HTTPConnection(scope))
            if wait := self._sign_ins.wait(known or address, now):
                return wait
            if known:
                return self._issuer_asked.wait(address, now) if path in ASKS_ISSUER else 0.0
        elif path in ASKS_ISSUER and (wait := self._issuer_asked.wait(address, now)):
            return wait
        return self._by_address.wait(address, now)


def cookie_name(policy: Policy, scope: Scope, purpose: str = "session") -> str:
    """The name of our cookie. Cookies know no ports: beside another console on this machine each needs its own name."""
    return (
        f"__Host-midwatch-{purpose}"
        if policy.is_secure
        else f"midwatch-{purpose}-{(scope.get('server') or ('', 0))[1]}"
    )


class TooLarge(Exception):
    """More was posted than a form holds."""


def _limited(receive: Receive) -> Receive:
    got = 0

    async def counted() -> MutableMapping[str, Any]:
        nonlocal got
        message = await receive()
        got += len(message.get("body", b""))
        if got > BODY_LIMIT:
            raise TooLarge
        return message

    return counted
