"""Sessions: who is signed in, in a signed cookie that ends by itself."""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from itsdangerous import BadSignature, URLSafeSerializer

from .policy import SESSION
from .roles import Role

_TRIED = 1_000  # deeds that came to nothing and are remembered
_FORGET = 10_000  # ended sessions that are remembered before those that have run out are dropped


class Session(msgspec.Struct, frozen=True):
    """A person who is signed in until `ends`."""

    id: str
    by: str
    role: Role
    ends: datetime


class Sessions:
    """Makes, reads and ends sessions. A session is valid wherever the same key is."""

    def __init__(self, key: str, now: Callable[[], datetime]) -> None:
        self._now = now
        self.rekey(key)
        self._ended: dict[str, datetime] = {}
        self._tried: dict[str, int] = {}

    def rekey(self, key: str) -> None:
        """From here on another key: everybody is signed out."""
        self._key, self._signer = key, signer(key, "session")

    def begin(self, by: str, role: Role) -> Session:
        """A session of 12 hours."""
        ends = self._now().replace(microsecond=0) + SESSION
        return Session(secrets.token_urlsafe(16), by, role, ends)

    def sealed(self, session: Session) -> str:
        """The session as its cookie holds it."""
        return self._signer.dumps(msgspec.to_builtins(session))

    def opened(self, cookie: str) -> Session | None:
        """The session in a cookie; None for one that is forged, over, or was ended."""
        try:
            session = msgspec.convert(self._signer.loads(cookie), Session)
        except (BadSignature, msgspec.ValidationError):
            return None
        return session if self.stands(session) else None

    def stands(self, session: Session) -> bool:
        """Whether it is neither over nor was ended."""
        return session.ends > self._now() and session.id not in self._ended

    def watch(self, session: Session) -> Callable[[], bool]:
        """What tells from here on whether it stands, which it does not under another key."""
        key = self._key
        return lambda: self._key == key and self.stands(session)

    def end(self, session: Session) -> None:
        """Whoever kept a copy of the cookie is signed out as well."""
        if len(self._ended) >= _FORGET:
            self._ended = {id: ends for id, ends in self._ended.items() if ends > self._now()}
        self._ended[session.id] = session.ends

    def token(self, session: Session) -> str:
        """What a form of this session carries, and one of another site cannot know."""
        return hmac.new(self._key.encode(), f"form:{session.id}".encode(), hashlib.sha256).hexdigest()

    def once(self, session: Session, form: str, *what: object) -> str:
        """The id of what a form of this session does, the same where the form is sent again; no other session's."""
        said = repr(("once", session.id, form, *what))
        return hmac.new(self._key.encode(), said.encode("utf-8", "replace"), hashlib.sha256).hexdigest()

    def tried(self, deed: str) -> int:
        """How often a deed, by its id, came to nothing so far."""
        return self._tried.get(deed, 0)

    def in_vain(self, deed: str, tried: int) -> None:
        """Notes that a deed came to nothing, which had done so `tried` times when it was begun."""
        count = max(self._tried.pop(deed, 0), tried + 1)
        self._tried[deed] = count
        if len(self._tried) > _TRIED:
            del self._tried[next(iter(self._tried))]

    def is_token(self, session: Session, given: str) -> bool:
        """Whether a form came from a page of this session."""
        return hmac.compare_digest(self.token(session).encode(), given.encode("utf-8", "replace"))


class Brief:
    """Something small that the browser keeps for us for a while, signed: a message, or how far signing in is."""

    def __init__(self, key: str, purpose: str, keep: timedelta, now: Callable[[], datetime]) -> None:
        self._purpose, self._keep, self._now = purpose, keep, now
        self.rekey(key)

    def rekey(self, key: str) -> None:
        """From here on another key."""
        self._signer = signer(key, self._purpose)

    @property
    def seconds(self) -> int:
        return int(self._keep.total_seconds())

    def sealed(self, value: Any) -> str:
        return self._signer.dumps([self._now().timestamp(), value])

    def opened(self, text: str) -> Any:
        """The value; None where it is forged or too old."""
        try:
            at, value = self._signer.loads(text)
        except (BadSignature, ValueError, TypeError):
            return None
        return value if datetime.fromtimestamp(at, UTC) + self._keep > self._now() else None


def signer(key: str, purpose: str) -> URLSafeSerializer:
    """Signs for one purpose: what was signed for another does not pass."""
    options = {"digest_method": hashlib.sha256, "key_derivation": "hmac"}
    return URLSafeSerializer(key, salt=f"midwatch.console.{purpose}", signer_kwargs=options)
