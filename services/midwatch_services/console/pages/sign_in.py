"""Signing in, by a one-time link or at the issuer, and out."""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from midwatch_services.console.access.gate import cookie_name
from midwatch_services.console.access.oidc import Begun, NoRole, NotSignedIn, Provider, refusal
from midwatch_services.console.access.policy import SESSION
from midwatch_services.console.access.proof import STATE, begun
from midwatch_services.console.access.roles import Role
from midwatch_services.console.routes import action, page
from midwatch_services.console.view import asking, back, console_of, render, session_of

NOTHING_BEGUN = "its state is not that of a sign-in which this browser began here within 10 minutes"


@page(role=None)
async def sign_in(request: Request) -> Response:
    """Says how to sign in here."""
    if asking(request):
        return RedirectResponse("/", 303)
    issuer = console_of(request).policy.issuer
    return render(request, "sign_in.html", issuer=issuer.url if issuer else "", next=_local(request))


@page(role=None)
async def enter(request: Request) -> Response:
    """Takes a one-time link."""
    console = console_of(request)
    if console.provider:
        raise HTTPException(404)
    if request.method == "HEAD":
        raise HTTPException(405)  # it asks what there is, as a preview does, and enters nowhere
    link = console.links.look(request.query_params.get("token", ""))
    if link is None:
        raise HTTPException(403, "link")
    console.links.spend(link)  # before anything is waited for, or two could enter; what follows lets one in always
    return await _signed_in(request, link.by, link.role, "/", how="link")


@page(role=None)
async def begin(request: Request) -> Response:
    """Sends the person to the issuer, and has the browser remember what for."""
    console, provider = console_of(request), _provider(request)
    started = await provider.begin()
    response = RedirectResponse(started.url, 303)
    kept = [started.state, started.nonce, started.verifier, _local(request)]
    response.set_cookie(
        cookie_name(console.policy, request.scope, STATE), console.signing_in.sealed(kept),
        max_age=console.signing_in.seconds, path="/", secure=console.policy.is_secure, httponly=True, samesite="lax",
    )  # fmt: skip
    return response


@page(role=None)
async def come_back(request: Request) -> Response:
    """Takes the issuer's answer, in the browser that began with it."""
    console, provider = console_of(request), _provider(request)
    asked = request.query_params
    kept, code, error = begun(request, console.policy, console.signing_in), asked.get("code"), asked.get("error")
    if kept is None:
        console.refusals.explain(NOTHING_BEGUN)
        raise HTTPException(403, "sign_in")
    if not code:
        console.refusals.explain(refusal(error, asked.get("error_description")) if error else "it holds no code")
        raise HTTPException(403, "cancelled" if error == "access_denied" else "not_held")
    state, nonce, verifier, to = kept
    try:
        person = await provider.end(Begun("", state, nonce, verifier), code)
    except NotSignedIn as problem:
        console.refusals.explain(problem.fields["why"], state, nonce, verifier, code)
        raise HTTPException(403, "not_held") from None
    except NoRole as problem:
        console.refusals.explain(problem.fields["why"])
        raise HTTPException(403, f"no_role:{problem.fields['by']}") from None
    response = await _signed_in(request, *person, to, how="issuer")
    name = cookie_name(console.policy, request.scope, STATE)
    response.delete_cookie(name, path="/", secure=console.policy.is_secure, httponly=True)
    return response


@action(role=Role.VIEWER)
async def sign_out(request: Request) -> Response:
    """Ends the session, in every copy of its cookie."""
    console, session = console_of(request), session_of(request)
    console.sessions.end(session)
    console.live.recheck()
    is_kept = await console.audit.noted(session, "session.ended")
    request.state.recorded = True  # on the bus or in the log: nobody is kept signed in for want of a record
    response = back(request, "/sign-in", "" if is_kept else "sign_in.end_unrecorded")
    response.delete_cookie(
        cookie_name(console.policy, request.scope), path="/", secure=console.policy.is_secure, httponly=True
    )
    return response


async def _signed_in(request: Request, by: str, role: Role, to: str, *, how: str) -> Response:
    console = console_of(request)
    session = console.sessions.begin(by, role)
    is_kept = await console.audit.noted(session, "session.began", how=how)
    response = back(request, to, "" if is_kept else "sign_in.unrecorded")
    response.set_cookie(
        cookie_name(console.policy, request.scope), console.sessions.sealed(session),
        max_age=int(SESSION.total_seconds()), path="/", secure=console.policy.is_secure, httponly=True, samesite="lax",
    )  # fmt: skip
    return response


def _provider(request: Request) -> Provider:
    provider = console_of(request).provider
    if provider is None:
        raise HTTPException(404)
    return provider


def _local(request: Request) -> str:
    """Where the person wanted to go, if that is a page of ours."""
    to = request.query_params.get("next", "/")
    return to if to.startswith("/") and not to.startswith(("//", "/\\")) and to.isprintable() else "/"


ROUTES = [
    Route("/sign-in", sign_in),
    Route("/enter", enter),
    Route("/sign-in/begin", begin),
    Route("/sign-in/back", come_back),
    Route("/sign-out", sign_out, methods=["POST"]),
]
