"""From a request to a page: the templates, and what each of them is given."""

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from . import filters, texts
from .access.gate import ASKING, cookie_name
from .access.roles import Role
from .access.session import Session
from .addresses import run_path

if TYPE_CHECKING:
    from .server import Console

# In this order, as far as there are such pages; `stop` stands apart, on every page.
NAVIGATION = ("today", "agents", "runs", "review", "alerts", "queue", "writes", "evals", "drills", "audit")
FLASH = "flash"
ONCE_FIELD = "once"  # of a form: which one it is, so that one that is sent again is known


def console_of(request: HTTPConnection) -> "Console":
    """The console that serves this request."""
    console: Console = request.app.state.console
    return console


def asking(request: HTTPConnection) -> Session | None:
    """Who asks, if somebody is signed in."""
    session: Session | None = request.scope.get(ASKING)
    return session


def session_of(request: HTTPConnection) -> Session:
    """Who asks, on a page for which one has to be signed in."""
    session = asking(request)
    assert session is not None
    return session


def form_of(request: HTTPConnection) -> str:
    """Which form was sent; empty where none was, or one that does not say."""
    return str(getattr(request.state, "form", ""))


def query(**values: Any) -> str:
    """The part of an address behind the question mark, without what is None."""
    return urlencode({name: str(value) for name, value in values.items() if value not in (None, "")})


def number_of(request: Request, most: int) -> int:
    """Which page of a list an address asks for, from 1. Raises 404 for what is none of at most `most`."""
    text = request.query_params.get("page", "1")
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(most)) and 1 <= int(text) <= most):
        raise HTTPException(404)
    return int(text)


def render(
    request: Request, template: str, *, status: int = 200, scope: Mapping[str, str] | None = None, **values: Any
) -> HTMLResponse:
    """A page. `scope`: what its Stop button is to have chosen already: `agent`, `tool`, `run`."""
    console, session = console_of(request), asking(request)
    flash = _taken_flash(request)
    text = environment().get_template(template).render(
        request=request, path=request.url.path, session=session, role=session.role if session else None,
        csrf=console.sessions.token(session) if session else "", form_id=form_of(request) or token_urlsafe(12),
        flash=flash, scope=dict(scope or {}),
        nav=_nav(console, session), stop=_stop(console, session, scope), is_part=is_part(request),
        deaf=console.hearing.deaf if session else [], **values,
    )  # fmt: skip
    response = HTMLResponse(text, status)
    response.headers["vary"] = "HX-Request"
    if flash and not is_part(request):
        response.delete_cookie(_flash_cookie(request), path="/", secure=console.policy.is_secure, httponly=True)
    return response


def is_part(request: Request) -> bool:
    """Whether htmx asks for a part of a page rather than a person for the whole."""
    return request.headers.get("hx-request") == "true" and request.headers.get("hx-boosted") != "true"


def back(request: Request, to: str, text: str = "", **values: Any) -> Response:
    """After an action: to the page at `to`, where `text`, a name of the catalogue, is said once."""
    response: Response = RedirectResponse(to, 303)
    if request.headers.get("hx-request"):
        response = Response(status_code=204, headers={"HX-Redirect": to})
    if text:
        console = console_of(request)
        said = environment().globals["t"](text, **values)  # type: ignore[operator]
        response.set_cookie(
            _flash_cookie(request), console.flashes.sealed(said), max_age=console.flashes.seconds, path="/",
            secure=console.policy.is_secure, httponly=True, samesite="lax",
        )  # fmt: skip
    return response


def _flash_cookie(request: Request) -> str:
    return cookie_name(console_of(request).policy, request.scope, FLASH)


def _taken_flash(request: Request) -> str:
    sealed = request.cookies.get(_flash_cookie(request))
    return str(console_of(request).flashes.opened(sealed) or "") if sealed else ""


def _nav(console: "Console", session: Session | None) -> list[tuple[str, str]]:
    """Names and addresses of the pages that this person may open."""
    if session is None:
        return []
    pages = {page.name: page for page in console.pages if page.link and _may(session, page.role)}
    return [(name, pages[name].link) for name in NAVIGATION if name in pages]


def _stop(console: "Console", session: Session | None, scope: Mapping[str, str] | None) -> str:
    """Where the Stop button leads; empty where there is none."""
    found = next((page for page in console.pages if page.name == "stop"), None)
    if session is None or found is None or not _may(session, found.role):
        return ""
    return f"{found.link}?{query(**scope)}" if scope else found.link


def _may(session: Session, role: Role | None) -> bool:
    return role is None or session.role.may(role)


@cache
def environment() -> Environment:
    """The templates, which escape everything and say it where a value is missing."""
    made = Environment(
        loader=PackageLoader("midwatch_services.console"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, auto_reload=False,
    )  # fmt: skip
    made.filters.update(filters.FILTERS)
    made.globals.update(t=texts.load(), static=static, query=query, Role=Role, run_path=run_path)
    return made


@cache
def static(name: str) -> str:
    """Address of a file of ours: it changes with its content, so that a browser may keep it for ever."""
    content = (resources.files("midwatch_services.console") / "static" / name).read_bytes()
    return f"/static/{name}?v={hashlib.sha256(content).hexdigest()[:12]}"
