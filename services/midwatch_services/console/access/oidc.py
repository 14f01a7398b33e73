"""Signing in at an OpenID provider: authorization code with PKCE, and a token whose signature and words are checked."""

import time
from dataclasses import dataclass
from typing import Any

import httpx
from authlib.common.errors import AuthlibBaseError
from authlib.common.security import generate_token
from authlib.integrations.httpx_client import AsyncOAuth2Client
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from midwatch.errors import MidwatchError, Temporary

from .policy import Issuer
from .roles import Role, given

WITHIN = 10.0  # seconds for one answer of the issuer
KEEP = 3600.0  # seconds for which its addresses and keys are believed
LEEWAY = 60  # seconds by which its clock may be off
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


class NotSignedIn(MidwatchError):
    """The issuer's answer does not hold: {why}."""


class NoRole(MidwatchError):
    """{by} has no role here: {why}."""


@dataclass(frozen=True, slots=True)
class Begun:
    """How far signing in is: what the browser keeps until it comes back, and where it goes first."""

    url: str
    state: str
    nonce: str
    verifier: str


class Provider:
    """One issuer. `back`: the address of ours to which it sends people back."""

    def __init__(self, issuer: Issuer, back: str) -> None:
        self._issuer, self._back = issuer, back
        self._about: tuple[float, dict[str, Any], KeySet] | None = None

    async def begin(self) -> Begun:
        """Where a person signs in. Raises Temporary."""
        about, _ = await self._read()
        nonce, verifier = generate_token(32), generate_token(64)
        async with self._client() as client:
            url, state = client.create_authorization_url(
                about["authorization_endpoint"], nonce=nonce, code_verifier=verifier, state=generate_token(32)
            )
        return Begun(url, state, nonce, verifier)

    async def end(self, begun: Begun, code: str) -> tuple[str, Role]:
        """Who came back with `code`, and what they may do. Raises NotSignedIn, NoRole, Temporary."""
        about, keys = await self._read()
        try:
            async with self._client() as client:
                # Named, or the library may ask in our own name where the answer holds no code.
                token = await client.fetch_token(
                    about["token_endpoint"], grant_type="authorization_code", code=code, code_verifier=begun.verifier
                )
        except AuthlibBaseError as error:
            raise NotSignedIn(why=refusal(error.error, error.description)) from None
        except httpx.HTTPError as error:
            raise self._silent(error) from error
        except ValueError:
            raise NotSignedIn(why="what it gives for a code is no JSON object") from None
        return self._person(await self._claims(token, keys, begun.nonce))

    async def _claims(self, token: dict[str, Any], keys: KeySet, nonce: str) -> dict[str, Any]:
        text = token.get("id_token")
        if not isinstance(text, str):
            raise NotSignedIn(why="it holds no id_token")
        try:
            claims = _decoded(text, keys)
        except (JoseError, ValueError):
            _, keys = await self._read(fresh=True)  # it may have changed its keys since
            try:
                claims = _decoded(text, keys)
            except (JoseError, ValueError) as error:
                raise NotSignedIn(why=f"its signature is not the issuer's ({type(error).__name__})") from None
        self._check(claims, nonce)
        return claims

    def _check(self, claims: dict[str, Any], nonce: str) -> None:
        client = self._issuer.client_id
        audience = claims.get("aud")
        several = isinstance(audience, list) and len(audience) > 1
        registry = jwt.JWTClaimsRegistry(
            leeway=LEEWAY, iss={"essential": True, "value": self._issuer.url}, aud={"essential": True, "value": client},
            exp={"essential": True}, iat={"essential": True}, sub={"essential": True},
            nonce={"essential": True, "value": nonce}, azp={"essential": several, "value": client},
        )  # fmt: skip
        try:
            registry.validate({**claims, "iss": str(claims.get("iss", "")).rstrip("/")})
        except JoseError as error:
            raise NotSignedIn(why=str(error)) from None

    def _person(self, claims: dict[str, Any]) -> tuple[str, Role]:
        issuer = self._issuer
        name = claims.get(issuer.name_claim)
        # An address that the issuer has not checked may be anybody's, and a blank name is nobody's.
        if (
            not isinstance(name, str)
            or not name.strip()
            or (issuer.name_claim == "email" and claims.get("email_verified") is not True)
        ):
            name = str(claims["sub"])
        role = given(claims.get(issuer.role_claim), issuer.roles)
        if role is None:
            raise NoRole(by=name, why=self._why_none(claims))
        return name, role

    def _why_none(self, claims: dict[str, Any]) -> str:
        name = self._issuer.role_claim
        if name not in claims:
            return f"the issuer's answer has no claim {name!r}"
        return f"of {claims[name]!r}, its claim {name!r}, MIDWATCH_OIDC_ROLES names none"

    async def _read(self, *, fresh: bool = False) -> tuple[dict[str, Any], KeySet]:
        if self._about and not fresh and time.monotonic() - self._about[0] < KEEP:
            return self._about[1:]
        try:
            async with httpx.AsyncClient(timeout=WITHIN) as client:
                about = await _json(client, f"{self._issuer.url}/.well-known/openid-configuration")
                if str(about.get("issuer", "")).rstrip("/") != self._issuer.url:
                    raise ValueError(f"it calls itself {about.get('issuer')!r}")
                keys = KeySet.import_key_set(await _json(client, about["jwks_uri"]))  # type: ignore[arg-type]
        except (httpx.HTTPError, ValueError, KeyError, JoseError) as error:
            raise self._silent(error) from error
        self._about = (time.monotonic(), about, keys)
        return about, keys

    def _client(self) -> AsyncOAuth2Client:
        issuer = self._issuer
        return AsyncOAuth2Client(
            issuer.client_id, issuer.client_secret, scope=issuer.scope, redirect_uri=self._back,
            code_challenge_method="S256", timeout=WITHIN,
            token_endpoint_auth_method="client_secret_basic" if issuer.client_secret else "none",
        )  # fmt: skip

    def _silent(self, error: Exception) -> Temporary:
        return Temporary(f"{self._issuer.url} does not sign anybody in just now ({error or type(error).__name__})")


def refusal(error: object, description: object) -> str:
    """Why an issuer refused, by what it says of it."""
    return ": ".join(str(part) for part in (error, description) if part) or "it refused"


async def _json(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    answer = await client.get(url)
    answer.raise_for_status()
    found = answer.json()
    if not isinstance(found, dict):
        raise ValueError(f"{url} answers no JSON object")
    return found


def _decoded(text: str, keys: KeySet) -> dict[str, Any]:
    return dict(jwt.decode(text, keys, algorithms=ALGORITHMS).claims)
