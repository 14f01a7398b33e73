"""The redaction key: what a reversible rule encrypts with, kept in a file outside every database."""

import base64
import hashlib
import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from midwatch.errors import MidwatchError

VERSION = "1"
_BYTES = 64  # AES-SIV with 256 bits
TOKEN = r"\[(?P<name>[a-z0-9_]{1,64}):1\.(?P<key>[0-9a-f]{8})\.(?P<sealed>[A-Za-z0-9_-]{22,})\]"  # noqa: S105
_TOKEN = re.compile(TOKEN)
_HEAD = "# Midwatch's redaction key. Whoever has it can read what reversible rules hid. The first line encrypts.\n"


class BadKey(MidwatchError):
    """the redaction key in {path} cannot be used: {why}"""


class NoKey(MidwatchError):
    """there is no redaction key in {path}: copy it there, set MIDWATCH_REDACTION_KEY_FILE, or make the first one with
    `midwatch redaction new-key`"""


class HasKey(MidwatchError):
    """{path} holds a redaction key already: --rotate puts a new one before it and keeps the old for reading"""


@dataclass(frozen=True)
class Keys:
    """Keys by id; the first seals, all open. Equal texts of an agent's rule become equal tokens."""

    _all: dict[str, AESSIV] = field(repr=False)

    def seal(self, name: str, agent: str, text: str) -> str:
        """The text, encrypted, as it stands in a stored body."""
        key_id, key = next(iter(self._all.items()))
        sealed = key.encrypt(b"\0" + text.encode("utf-8", "surrogatepass"), [_about(name, agent)])
        return f"[{name}:{VERSION}.{key_id}.{base64.urlsafe_b64encode(sealed).rstrip(b'=').decode()}]"

    def open(self, token: str, agent: str) -> str | None:
        """What was sealed, or None for what this key did not seal for this agent."""
        found = _TOKEN.fullmatch(token)
        key = self._all.get(found["key"]) if found else None
        if found is None or key is None:
            return None
        try:
            sealed = base64.urlsafe_b64decode(found["sealed"] + "=" * (-len(found["sealed"]) % 4))
            return key.decrypt(sealed, [_about(found["name"], agent)])[1:].decode("utf-8", "surrogatepass")
        except (InvalidTag, ValueError):
            return None

    def reveal(self, text: str, agent: str) -> str:
        """The text with every token that opens replaced by what it hid."""
        return _TOKEN.sub(lambda found: self.open(found[0], agent) or found[0], text)


def _about(name: str, agent: str) -> bytes:
    return f"midwatch.redaction.{VERSION}/{agent}/{name}".encode()


def read(path: Path) -> Keys | None:
    """The keys in the file, or None where there is no file. Raises BadKey."""
    try:
        lines = path.read_text("ascii").splitlines()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise BadKey(path=path, why=getattr(error, "strerror", None) or "it is no text") from None
    keys = {}
    for line in lines:
        if line.strip() and not line.startswith("#"):
            secret = _decoded(line.strip())
            if secret is None:
                raise BadKey(path=path, why="a line is not 64 bytes in base64; restore it from where you keep a copy")
            keys[hashlib.sha256(secret).hexdigest()[:8]] = AESSIV(secret)
    if not keys:
        raise BadKey(path=path, why="it is empty; restore it from where you keep a copy")
    return Keys(keys)


def _decoded(line: str) -> bytes | None:
    try:
        secret = base64.urlsafe_b64decode(line)
    except ValueError:
        return None
    return secret if len(secret) == _BYTES else None


def create(path: Path, *, rotate: bool = False) -> str:
    """Writes a new key that only its owner can read, before the old ones where `rotate`; returns its id.

    Raises HasKey where there is a file, unless `rotate`; BadKey where the file is none of ours or cannot be written.
    """
    old = ""
    if path.exists():
        if not rotate:
            raise HasKey(path=path)
        read(path)
        old = "".join(line for line in path.read_text("ascii").splitlines(keepends=True) if not line.startswith("#"))
    secret = secrets.token_bytes(_BYTES)
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{_HEAD}{base64.urlsafe_b64encode(secret).decode()}\n{old}")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise BadKey(path=path, why=f"it cannot be written ({(error.strerror or str(error)).lower()})") from None
    return hashlib.sha256(secret).hexdigest()[:8]
