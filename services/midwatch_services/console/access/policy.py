"""What the console goes by when it lets people in."""

import ipaddress
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

from midwatch.errors import Misconfigured
from midwatch.runtime.settings import Settings

from .roles import Role, parse

SESSION = timedelta(hours=12)
LINK = timedelta(minutes=15)  # for which a one-time link opens the console
SIGNING_IN = timedelta(minutes=10)  # that a person may take at the issuer


class NobodyMaySignIn(Misconfigured):
    """The console would listen on {host}, where others reach it, with no way to tell who they are: set
    MIDWATCH_OIDC_ISSUER, or leave MIDWATCH_CONSOLE_HOST at 127.0.0.1."""


class HalfAnIssuer(Misconfigured):
    """MIDWATCH_OIDC_ISSUER needs {missing} as well: see docs/console.md."""


class NotOverTls(Misconfigured):
    """People would sign in at {url} in the clear: set MIDWATCH_CONSOLE_URL to an address that begins with https://."""


class IssuerInTheClear(Misconfigured):
    """{url} would say in the clear who people are, and anybody on the way could answer for it: set MIDWATCH_OIDC_ISSUER
    to an address that begins with https://."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """The OpenID provider that says who people are."""

    url: str
    client_id: str
    client_secret: str | None
    scope: str
    name_claim: str
    role_claim: str
    roles: dict[str, Role]


@dataclass(frozen=True, slots=True)
class Policy:
    """`public`: the console's address as people type it, where it is not the one it listens on. Rates are requests a
    second, of which ten seconds' worth may come at once: of one session, of strangers at one address, of wrong attempts
    to sign in from there, of what makes us ask the issuer for them, and of one session's presses of Stop."""

    public: str | None = None
    issuer: Issuer | None = None
    per_session: float = 20.0
    per_address: float = 100.0
    sign_ins: float = 0.5
    issuer_asked: float = 2.0
    stops: float = 2.0

    @property
    def is_secure(self) -> bool:
        """Whether people reach it over TLS."""
        return self.public is not None and self.public.startswith("https:")


def policy_of(settings: Settings) -> Policy:
    """What the settings say. Raises Misconfigured where nobody could sign in."""
    public = settings.console_url.rstrip("/") if settings.console_url else None
    if not settings.oidc_issuer and not is_loopback(settings.console_host):
        raise NobodyMaySignIn(host=settings.console_host)
    rate = settings.console_requests
    return Policy(public, _issuer(settings), per_session=rate, per_address=5 * rate)


def _issuer(settings: Settings) -> Issuer | None:
    if not settings.oidc_issuer:
        return None
    missing = "MIDWATCH_OIDC_CLIENT_ID" if not settings.oidc_client_id else ""
    missing = missing or ("MIDWATCH_CONSOLE_URL" if not settings.console_url else "")
    missing = missing or ("MIDWATCH_OIDC_ROLES" if not settings.oidc_roles else "")
    if missing or not settings.oidc_client_id or not settings.console_url:
        raise HalfAnIssuer(missing=missing)
    public = urlsplit(settings.console_url)
    if public.scheme != "https" and not is_loopback(public.hostname or ""):
        raise NotOverTls(url=settings.console_url)
    issuer = urlsplit(settings.oidc_issuer)
    if issuer.scheme != "https" and not is_loopback(issuer.hostname or ""):
        raise IssuerInTheClear(url=settings.oidc_issuer)
    secret = settings.oidc_client_secret
    return Issuer(
        settings.oidc_issuer.rstrip("/"), settings.oidc_client_id, secret.get_secret_value() if secret else None,
        settings.oidc_scope, settings.oidc_name_claim, settings.oidc_role_claim, parse(settings.oidc_roles),
    )  # fmt: skip


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def hosts(policy: Policy, host: str, port: int) -> frozenset[str]:
    """What may stand in a request's Host: any other name may be a page of somebody else that points at us."""
    names = {"localhost", "127.0.0.1", "[::1]", f"[{host}]" if ":" in host else host.lower()}
    local = {f"{name}:{port}" for name in names} if is_loopback(host) else set()
    return frozenset(local | ({_as_browsers_say(policy.public)} if policy.public else set()))


def _as_browsers_say(url: str) -> str:
    """The host and port of an address in small letters, without the port that goes without saying."""
    parts = urlsplit(url.lower())
    return parts.netloc.removesuffix(":443" if parts.scheme == "https" else ":80")
