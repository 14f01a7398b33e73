"""A small OpenID provider that runs in a test: it checks what a provider has to check, and signs with a real key."""

import base64
import contextlib
import hashlib
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from midwatch.runtime.serving import Serving

CLIENT, SECRET = "midwatch-console", "a secret of the console"


@dataclass
class Provider:
    """`claims` are what it says of whoever signs in next; `spoil` what it then does wrong."""

    url: str = ""
    claims: dict[str, Any] = field(default_factory=dict)
    spoil: dict[str, Any] = field(default_factory=dict)
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "first", "use": "sig"}))
    signing: RSAKey | None = None  # another key than the published one
    asked: list[dict[str, str]] = field(default_factory=list)
    exchanged: list[dict[str, str]] = field(default_factory=list)  # what it was asked a token for
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    async def about(self, _: Request) -> Response:
        return JSONResponse(
            {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
            }
        )

    async def keys(self, _: Request) -> Response:
        return JSONResponse({"keys": [self.key.as_dict(private=False)]})

    async def authorize(self, request: Request) -> Response:
        asked = dict(request.query_params)
        self.asked.append(asked)
        assert asked["client_id"] == CLIENT
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(12)
        self._codes[code] = asked
        back = {"code": code, "state": asked["state"]}
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode(back)}", 303)

    async def token(self, request: Request) -> Response:
        form = await request.form()
        self.exchanged.append({name: str(value) for name, value in form.items()})
        begun = self._codes.pop(str(form.get("code")), None)
        proof = hashlib.sha256(str(form.get("code_verifier")).encode()).digest()
        basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        if request.headers.get("authorization") != f"Basic {basic}":
            return JSONResponse({"error": "invalid_client"}, 401)
        if (
            begun is None
            or form.get("redirect_uri") != begun["redirect_uri"]
            or base64.urlsafe_b64encode(proof).decode().rstrip("=") != begun["code_challenge"]
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)
        now = int(time.time())
        said = {"iss": self.url, "aud": CLIENT, "sub": "u-17", "iat": now, "exp": now + 300, "nonce": begun["nonce"]}
        key = self.signing or self.key
        text = jwt.encode({"alg": "RS256", "kid": key.kid}, {**said, **self.claims, **self.spoil}, key)
        return JSONResponse({"access_token": "unused", "token_type": "Bearer", "id_token": text, "expires_in": 300})


@contextlib.asynccontextmanager
async def provider() -> AsyncIterator[Provider]:
    """A provider on a free port."""
    one = Provider()
    app = Starlette(
        routes=[
            Route("/.well-known/openid-configuration", one.about),
            Route("/keys", one.keys),
            Route("/authorize", one.authorize),
            Route("/token", one.token, methods=["POST"]),
        ]
    )
    serving = Serving(app, host="127.0.0.1", port=0)
    await serving.start()
    one.url = serving.url
    try:
        yield one
    finally:
        await serving.close()
