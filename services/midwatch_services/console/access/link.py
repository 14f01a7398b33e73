"""One-time links: whoever reads this machine's terminal or state folder may enter, once each, within minutes."""

import contextlib
import os
import secrets
import socket
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from midwatch.errors import MidwatchError
from midwatch.runtime.settings import Settings

from . import key
from .policy import LINK
from .roles import Role
from .session import Brief

_WITHIN = 1.0  # seconds for a console on this machine to take a connection


class NoConsole(MidwatchError):
    """No console runs whose state is in {home}: start it with `midwatch up` or `midwatch run console`, or set
    MIDWATCH_HOME to the folder of the one that runs."""


class AnothersConsole(MidwatchError):
    """The console whose state is in {home} is another user's: type this as the user who started it."""


class NoLinks(MidwatchError):
    """People sign in to this console at {issuer}: open {url}."""


class Running(msgspec.Struct, frozen=True):
    """The console that runs on this machine. `boot`: which start of it; a link is for that one alone. `issuer`: where
    people sign in instead, if they do."""

    url: str
    boot: str
    pid: int
    issuer: str = ""


class Link(msgspec.Struct, frozen=True):
    """Who enters by it, as what."""

    nonce: str
    by: str
    role: Role


class Links:
    """Takes one-time links, each once."""

    def __init__(self, secret: str, boot: str, now: Callable[[], datetime]) -> None:
        self._brief, self._boot, self._now = _brief(secret, now), boot, now
        self._used: set[str] = set()  # of this start; an older one's links are refused by `boot`

    def rekey(self, key: str) -> None:
        """From here on another key."""
        self._brief.rekey(key)

    def look(self, token: str) -> Link | None:
        """The link, which is not spent by this; None for one that is forged, too old, used, or of another start."""
        match self._brief.opened(token):
            case [str(boot), str(nonce), str(by), str(role)] if boot == self._boot and nonce not in self._used:
                return Link(nonce, by, Role(role))
        return None

    def spend(self, link: Link) -> None:
        """Nobody enters by it again."""
        self._used.add(link.nonce)


def make(settings: Settings, now: Callable[[], datetime], *, by: str, role: Role = Role.ADMIN) -> str:
    """An address that signs `by` in, once. Raises NoConsole, AnothersConsole, NoLinks."""
    running = read(settings.home)
    if running is None:
        raise NoConsole(home=settings.home)
    if running.issuer:
        raise NoLinks(issuer=running.issuer, url=running.url)
    if not _listens(running.url):
        raise NoConsole(home=settings.home)  # it was killed, and its pid is another's since
    token = _brief(key.load(settings), now).sealed([running.boot, secrets.token_urlsafe(12), by, role])
    return f"{running.url}/enter?token={token}"


def read(home: Path) -> Running | None:
    """The console that runs here, as it wrote itself down; None where there is none. Raises AnothersConsole."""
    try:
        written = (home / "console.json").read_bytes()
    except PermissionError:
        raise AnothersConsole(home=home) from None
    except OSError:
        return None
    try:
        found = msgspec.json.decode(written, type=Running)
        os.kill(found.pid, 0)
    except (OSError, msgspec.MsgspecError):
        return None
    return found


def _listens(url: str) -> bool:
    parts = urlsplit(url)
    with contextlib.suppress(OSError), socket.create_connection((parts.hostname, parts.port), _WITHIN):
        return True
    return False


def write(home: Path, running: Running) -> None:
    """Notes where the console is. Only its owner reads it, though it holds no secret."""
    home.mkdir(parents=True, exist_ok=True)
    partial = home / "console.partial"
    partial.touch(mode=0o600)
    partial.write_bytes(msgspec.json.encode(running))
    partial.replace(home / "console.json")


def _brief(secret: str, now: Callable[[], datetime]) -> Brief:
    return Brief(secret, "link", LINK, now)
