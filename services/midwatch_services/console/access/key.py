"""The key that signs sessions: from the settings, or in a file that only its owner reads."""

import os
import secrets
from pathlib import Path

import structlog

from midwatch.errors import Misconfigured
from midwatch.runtime.settings import Settings

log = structlog.get_logger("midwatch.console")


class KeyUnread(Misconfigured):
    """The console's key in {where} cannot be used ({why}): remove the file, and everybody signs in anew."""


class KeyFromSettings(Misconfigured):
    """MIDWATCH_CONSOLE_KEY signs the sessions: set another there and start the console anew."""


def load(settings: Settings) -> str:
    """The key, made where there is none yet. Raises KeyUnread."""
    if settings.console_key:
        return settings.console_key.get_secret_value()
    path = _path(settings)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
        except FileExistsError:
            pass
        path.chmod(0o600)
        key = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyUnread(where=path, why=str(error)) from None
    if len(key) < 32:
        raise KeyUnread(where=path, why="it is too short")
    return key


def replace(settings: Settings) -> Path:
    """Puts another key in its place, with which no session holds that was signed before. Raises KeyFromSettings,
    KeyUnread."""
    if settings.console_key:
        raise KeyFromSettings
    path = _path(settings)
    partial = path.with_name(f"console.{secrets.token_hex(4)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
        partial.replace(path)
    except OSError as error:
        raise KeyUnread(where=path, why=str(error)) from None
    return path


class Watched:
    """The key of a console that runs: it is read again once its file is another."""

    def __init__(self, settings: Settings) -> None:
        """Raises KeyUnread."""
        self._settings = settings
        self.key = load(settings)
        self._seen = self._look()

    def changed(self) -> str | None:
        """The key where it is another one since; cheap enough for every request."""
        if self._settings.console_key or (seen := self._look()) == self._seen:
            return None
        try:
            key = load(self._settings)
        except KeyUnread as error:
            log.error("console_key_unread", why=str(error))
            self._seen = seen
            return None
        self._seen = self._look()
        if key == self.key:
            return None
        self.key = key
        return key

    def _look(self) -> tuple[int, int] | None:
        try:
            found = _path(self._settings).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns


def _path(settings: Settings) -> Path:
    return settings.home / "console.key"
