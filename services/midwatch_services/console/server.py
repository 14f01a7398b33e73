"""The console as one application: its pages, what they share, and where it listens."""

import asyncio
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles

from midwatch.errors import Misconfigured, Temporary
from midwatch.runtime.card_book import CardBook
from midwatch.runtime.serving import Serving
from midwatch.runtime.settings import Settings

from . import routes, view
from .access import key, link, proof
from .access.audit import Audit
from .access.gate import ASKING, Gate, Scope, TooLarge
from .access.link import Links, Running
from .access.oidc import Provider
from .access.policy import SIGNING_IN, Policy, hosts, policy_of
from .access.refusals import Refusals
from .access.session import Brief, Sessions
from .alone import Alone
from .hearing import Hearing
from .live import Hub
from .reading import Reading
from .routes import Page

log = structlog.get_logger("midwatch.console")
_FLASH = timedelta(minutes=1)
_FOR_EVER = "public, max-age=31536000, immutable"


class ConsolePortTaken(Misconfigured):
    """Port {port} on {host}, for the console, is taken: stop what uses it, or choose another with MIDWATCH_CONSOLE_PORT
    (0 picks a free one)."""


@dataclass
class Console:
    """What pages are given: `view.console_of(request)`."""

    settings: Settings
    policy: Policy
    nc: Client
    js: JetStreamContext
    cards: CardBook
    now: Callable[[], datetime]
    sessions: Sessions
    links: Links
    flashes: Brief
    signing_in: Brief
    provider: Provider | None
    audit: Audit
    refusals: Refusals
    reading: Reading
    hearing: Hearing
    live: Hub
    pages: list[Page]
    hosts: frozenset[str] = field(default=frozenset())
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)  # what outlasts a request; ended with the console


class Server:
    """Builds the console and serves it."""

    def __init__(
        self, settings: Settings, nc: Client, js: JetStreamContext, cards: CardBook, now: Callable[[], datetime]
    ) -> None:
        """Raises Misconfigured."""
        policy, self._key, pages = policy_of(settings), key.Watched(settings), routes.collect()
        secret, audit, tasks = self._key.key, Audit(nc, js), set[asyncio.Task[Any]]()
        self._alone = Alone(settings.home)
        self._boot = secrets.token_urlsafe(12)
        self.console = Console(
            settings=settings, policy=policy, nc=nc, js=js, cards=cards, now=now, sessions=Sessions(secret, now),
            links=Links(secret, self._boot, now), flashes=Brief(secret, "flash", _FLASH, now),
            signing_in=Brief(secret, "sign-in", SIGNING_IN, now),
            provider=Provider(policy.issuer, f"{policy.public}/sign-in/back") if policy.issuer else None,
            audit=audit, refusals=Refusals(audit, tasks), tasks=tasks, reading=Reading(settings),
            hearing=Hearing(js, now), live=Hub(nc, dict(routes.topics(pages))), pages=pages,
        )  # fmt: skip
        self._app = application(self.console)
        self._gate = Gate(self._app, policy, self.console.sessions, self._refuse, self._proof, self._rekey)
        self._serving = Serving(
            self._gate, host=settings.console_host, port=settings.console_port, taken=ConsolePortTaken,
            named="MIDWATCH_CONSOLE", proxies=settings.console_proxies,
        )  # fmt: skip

    @property
    def url(self) -> str:
        """Where people find it."""
        return self.console.policy.public or self._serving.url

    async def start(self) -> None:
        """Listens, and notes where. Raises ConsoleRuns, ConsolePortTaken or CannotListen."""
        self._alone.take()
        try:
            await self._serving.start()
        except BaseException:
            self._alone.leave()
            raise
        self.console.hosts = hosts(self.console.policy, self._serving.host, self._serving.port)
        self._gate.hosts = self.console.hosts
        issuer = self.console.policy.issuer
        running = Running(
            self._serving.url if not issuer else self.url, self._boot, os.getpid(), issuer.url if issuer else ""
        )
        try:
            link.write(self.console.settings.home, running)
        except OSError as error:
            log.warning("console_not_noted", why=str(error), help="`midwatch console link` will not find it")
        log.info("console_listens", url=self.url)
        if self.console.policy.is_secure and not self.console.settings.console_proxies:
            log.warning(
                "console_proxies_not_named", url=self.url,
                help="all people seem to come from one address and share its limits: set MIDWATCH_CONSOLE_PROXIES",
            )  # fmt: skip

    def look(self) -> None:
        """Sees what no request tells: whether NATS is there, and whether everybody was signed out."""
        self._rekey()
        self.console.live.look()

    async def last(self) -> None:
        """Lasts until it is cancelled, and closes."""
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.shield(self.close())

    async def close(self) -> None:
        """Ends open pages, then the server, then what was read from."""
        self.console.live.close()
        await self._serving.close()
        for task in self.console.tasks:
            task.cancel()
        await asyncio.gather(*self.console.tasks, return_exceptions=True)
        await self.console.reading.close()
        with suppress(OSError):
            (self.console.settings.home / "console.json").unlink()
        self._alone.leave()

    def _refuse(self, scope: Scope, status: int, detail: str) -> Response:
        scope["app"] = self._app
        return problem(Request(scope), status, detail)

    def _proof(self, asked: HTTPConnection) -> str | None:
        return proof.known(asked, self.console.policy, self.console.links, self.console.signing_in)

    def _rekey(self) -> None:
        """Signs everybody out where the key is another since."""
        console = self.console
        if changed := self._key.changed():
            for one in (console.sessions, console.links, console.flashes, console.signing_in):
                one.rekey(changed)
            console.live.recheck()
            log.warning("console_key_changed", help="everybody is signed out")


def application(console: Console) -> Starlette:
    """Every page behind its own check of the role."""
    folder = Path(__file__).parent / "static"
    found: list[BaseRoute] = [Mount("/static", _Static(directory=folder))]
    found += [route for page in console.pages for route in page.routes]
    app = Starlette(
        routes=found,
        exception_handlers={
            HTTPException: _on_http, Temporary: _on_temporary, TooLarge: _on_large, Exception: _on_error,
        },
    )  # fmt: skip
    app.state.console = console
    return app


def problem(request: Request, status: int, detail: str = "") -> Response:
    """A page that says in plain words what went wrong and what to do."""
    kind = detail if detail in _OWN else str(status) if status in _SAID else "other"
    if status in _REFUSED:
        view.console_of(request).refusals.note(view.asking(request), request.url.path, status, detail)
    return view.render(
        request, "problem.html", status=status, kind=kind, detail=detail if detail != kind else "", number=status
    )


_OWN = ("cross_site", "cancelled", "link", "sign_in", "not_held")  # details with words of their own
_REFUSED = (401, 403, 413, 421, 429)
_SAID = (401, 403, 404, 405, 413, 421, 429, 500, 503)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    usual = error.detail in ("Not Found", "Method Not Allowed", "Forbidden", "Unauthorized")
    return problem(request, error.status_code, "" if usual else error.detail)


async def _on_temporary(request: Request, error: Exception) -> Response:
    log.warning("page_without_answer", path=request.url.path, why=str(error))
    return problem(request, 503, str(error))


async def _on_large(request: Request, _: Exception) -> Response:
    return problem(request, 413)


async def _on_error(request: Request, error: Exception) -> Response:
    log.error("page_failed", path=request.url.path, error=repr(error))
    request.scope.setdefault(ASKING, None)
    return problem(request, 500)


class _Static(StaticFiles):
    """Files whose addresses change with their content."""

    async def get_response(self, path: str, scope: Any) -> Response:
        response = await super().get_response(path, scope)
        if b"v=" in scope.get("query_string", b"") and response.status_code == 200:
            response.headers["cache-control"] = _FOR_EVER
        return response
