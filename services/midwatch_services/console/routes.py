"""The pages: one module each in `pages`, found by themselves. Every route says which role it needs."""

import pkgutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import wraps
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from nats.errors import Error as NatsError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from midwatch.contracts import subjects
from midwatch.contracts.envelope import new_id
from midwatch.errors import MidwatchError, Temporary

from . import view
from .access import origin
from .access.roles import Role
from .access.session import Session
from .live import Topic
from .view import console_of, session_of

Endpoint = Callable[[Request], Awaitable[Response]]
_NEEDS = "__midwatch_needs__"
TOKEN_FIELD, TOKEN_HEADER = "csrf", "x-csrf-token"
_ONCE_LIMIT = 64  # characters
_UNANSWERED = (NatsError, Temporary, TimeoutError, OSError)  # nobody knows whether it was done


class RoleUndeclared(MidwatchError):
    """{where} does not say who may see it: put @page(role=…) or @action(role=…) on it."""


class WrongMethod(MidwatchError):
    """{where}: a page answers GET alone, an action POST alone."""


class NothingRecorded(MidwatchError):
    """The action at {where} went through without `await record(request, …)`."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a route asks of who comes: at least `role`, or nothing where it is None."""

    role: Role | None
    is_action: bool


@dataclass(frozen=True, slots=True)
class Page:
    """A module of pages, as the console serves it. `link`: its address in the navigation, if it stands there."""

    name: str
    routes: list[Route]
    link: str
    role: Role | None
    topics: dict[str, Topic] = field(default_factory=dict)


def page(*, role: Role | None) -> Callable[[Endpoint], Endpoint]:
    """A page that people with `role` or more may look at; None lets anybody in."""

    def declare(endpoint: Endpoint) -> Endpoint:
        @wraps(endpoint)
        async def checked(request: Request) -> Response:
            if role is not None and (refused := _refused(request, role)):
                return refused
            return await endpoint(request)

        setattr(checked, _NEEDS, Needs(role, is_action=False))
        return checked

    return declare


def action(*, role: Role) -> Callable[[Endpoint], Endpoint]:
    """Something that people with `role` or more may do, by POST from a page of ours. It has to be recorded."""

    def declare(endpoint: Endpoint) -> Endpoint:
        @wraps(endpoint)
        async def checked(request: Request) -> Response:
            if refused := _refused(request, role):
                return refused
            await _must_be_ours(request)
            response = await endpoint(request)
            if response.status_code < 400 and not getattr(request.state, "recorded", False):
                raise NothingRecorded(where=request.url.path)
            return response

        setattr(checked, _NEEDS, Needs(role, is_action=True))
        return checked

    return declare


async def record(
    request: Request, action: str, *, agent: str = subjects.FLEET, target: str = "", deed: str = "", **detail: object
) -> bool:
    """Records what the person does, under the agent it is done to. Raises Temporary where nobody keeps the record:
    record before acting, unless acting cannot wait. A form that is sent again records the same `deed` no second time;
    without a `deed`, the same action with the same detail. What came to nothing since is recorded anew.
    Returns whether it was not there yet."""
    if request.method != "POST" and not origin.is_ours(request.headers, console_of(request).hosts):
        raise HTTPException(403, "cross_site")  # a link elsewhere is to do nothing in the name of who follows it
    what = (deed,) if deed else (action, *sorted(detail.items()))
    id = once(request, "record", agent, target, *what, tried_before(request, agent, target, deed))
    audit, by = console_of(request).audit, session_of(request)
    is_new = await audit.acted(by, action, agent=agent, target=target, id=id, **detail)
    request.state.recorded = True
    return is_new


@asynccontextmanager
async def attempt(
    request: Request, action: str, in_vain: str, *, agent: str, target: str, deed: str, **detail: object
) -> AsyncIterator[None]:
    """Records `action`, which is done within; where the bus does not answer then, `in_vain` as well, and the same form
    may try again. Raises what is raised within."""
    tried = tried_before(request, agent, target, deed)
    await record(request, action, agent=agent, target=target, deed=deed, **detail)
    try:
        yield
    except _UNANSWERED:
        with suppress(*_UNANSWERED):  # the bus may be away for this as well
            await fail(request, in_vain, agent=agent, target=target, deed=deed, tried=tried, why="unanswered", **detail)
        raise
    if tried_before(request, agent, target, deed) != tried:  # another press of this form failed meanwhile
        await record(request, action, agent=agent, target=target, deed=deed, **detail)


async def fail(
    request: Request, in_vain: str, *, agent: str, target: str, deed: str, tried: int | None = None, **detail: object
) -> None:
    """Records that a recorded deed came to nothing; what its form records of it from here on is another attempt."""
    tried = tried_before(request, agent, target, deed) if tried is None else tried
    console_of(request).sessions.in_vain(_deed(request, agent, target, deed), tried)
    await record(request, in_vain, agent=agent, target=target, deed=f"{deed} in vain {tried}", **detail)


async def record_standing(
    request: Request, action: str, in_vain: str, *, agent: str, target: str, deed: str, why: str, **detail: object
) -> None:
    """Records that somebody wanted what that person has done already: as done, where this form was told otherwise."""
    if tried_before(request, agent, target, deed):
        await record(request, action, agent=agent, target=target, deed=deed, **detail)
    else:
        await record(request, in_vain, agent=agent, target=target, deed=deed, why=why, **detail)


def tried_before(request: Request, agent: str, target: str, deed: str) -> int:
    """How often a deed of this form came to nothing so far."""
    return console_of(request).sessions.tried(_deed(request, agent, target, deed)) if view.form_of(request) else 0


def _deed(request: Request, agent: str, target: str, deed: str) -> str:
    return once(request, "deed", agent, target, deed)


def once(request: Request, *what: object) -> str:
    """The id of what a form publishes: by it the bus takes once what a form that is sent twice says twice."""
    form = view.form_of(request)
    return console_of(request).sessions.once(session_of(request), form, *what) if form else new_id()


def _refused(request: Request, role: Role) -> Response | None:
    """The way to sign in for who is not; raises 403 for who may not."""
    session: Session | None = view.asking(request)
    if session is None:
        return _to_sign_in(request)
    if not session.role.may(role):
        raise HTTPException(403, role)
    return None


def _to_sign_in(request: Request) -> Response:
    if request.headers.get("hx-request"):
        return Response(status_code=401, headers={"HX-Redirect": f"/sign-in?{view.query(next=_shown(request))}"})
    if request.method != "GET" or "text/event-stream" in request.headers.get("accept", ""):
        raise HTTPException(401)
    back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(f"/sign-in?{view.query(next=back)}" if back != "/" else "/sign-in", 303)


def _shown(request: Request) -> str:
    """The page that the part is asked for by."""
    try:
        shown = urlsplit(request.headers.get("hx-current-url", ""))
    except ValueError:
        return ""
    return shown.path + (f"?{shown.query}" if shown.query else "")


async def _must_be_ours(request: Request) -> None:
    """Raises 403 for what another site has the browser send."""
    console = console_of(request)
    if not origin.is_ours(request.headers, console.hosts):
        raise HTTPException(403, "cross_site")
    form = await request.form()
    given = request.headers.get(TOKEN_HEADER) or form.get(TOKEN_FIELD)
    if not isinstance(given, str) or not console.sessions.is_token(session_of(request), given):
        raise HTTPException(403, "cross_site")
    request.state.form = str(form.get(view.ONCE_FIELD, ""))[:_ONCE_LIMIT]


def collect() -> list[Page]:
    """Every module of pages. Raises RoleUndeclared, WrongMethod."""
    package = import_module("midwatch_services.console.pages")
    names = sorted(one.name for one in pkgutil.iter_modules(package.__path__) if not one.name.startswith("_"))
    return [_page(name, import_module(f"{package.__name__}.{name}")) for name in names]


def _page(name: str, module: Any) -> Page:
    routes = list(module.ROUTES)
    for route in routes:
        check(route)
    link = getattr(module, "LINK", "")
    first = next((route for route in routes if route.path == link), None)
    role = needs(first).role if first else None
    return Page(name, routes, link, role, dict(getattr(module, "TOPICS", {})))


def needs(route: Route) -> Needs:
    """What a route asks. Raises RoleUndeclared."""
    found = getattr(route.endpoint, _NEEDS, None)
    if found is None:
        raise RoleUndeclared(where=route.path)
    assert isinstance(found, Needs)
    return found


def check(route: Route) -> None:
    """Raises RoleUndeclared, WrongMethod."""
    wanted = {"POST"} if needs(route).is_action else {"GET", "HEAD"}
    if route.methods != wanted:
        raise WrongMethod(where=route.path)


def topics(pages: list[Page]) -> Iterator[tuple[str, Topic]]:
    """Everything that pages may follow."""
    for one in pages:
        yield from one.topics.items()
