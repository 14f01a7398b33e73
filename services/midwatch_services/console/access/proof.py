"""What somebody brings who signs in: a one-time link, or the issuer's answer to what this browser began."""

from starlette.requests import HTTPConnection

from .gate import cookie_name
from .link import Links
from .policy import Policy
from .session import Brief

STATE = "sign-in"  # the cookie that says what a browser began


def begun(asked: HTTPConnection, policy: Policy, signing_in: Brief) -> tuple[str, str, str, str] | None:
    """State, nonce, verifier and where to go; None where this browser began nothing to which the answer belongs."""
    match signing_in.opened(asked.cookies.get(cookie_name(policy, asked.scope, STATE), "")):
        case [str(state), str(nonce), str(verifier), str(to)] if state == asked.query_params.get("state"):
            return state, nonce, verifier, to
    return None


def known(asked: HTTPConnection, policy: Policy, links: Links, signing_in: Brief) -> str | None:
    """The name of what is brought, if it is ours and no guess."""
    if asked.url.path == "/enter":
        link = links.look(asked.query_params.get("token", ""))
        return f"link {link.nonce}" if link else None
    found = begun(asked, policy, signing_in)
    return f"begun {found[0]}" if found else None
