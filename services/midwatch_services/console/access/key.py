"""The key that signs sessions: from the settings, or in a file that only its owner reads."""

import os
import secrets

from midwatch.errors import Misconfigured
from midwatch.runtime.settings import Settings


class KeyUnread(Misconfigured):
    """The console's key in {where} cannot be used ({why}): remove the file, and everybody signs in anew."""


def load(settings: Settings) -> str:
    """The key, made where there is none yet. Raises KeyUnread."""
    if settings.console_key:
        return settings.console_key.get_secret_value()
    path = settings.home / "console.key"
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
