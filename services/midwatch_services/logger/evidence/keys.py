"""The key that signs checkpoints (Ed25519), made on the first start, and the public halves that check them."""

import contextlib
import os
import stat
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from secrets import token_hex

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from midwatch.errors import MidwatchError

_END = "-----END PUBLIC KEY-----"


class KeyIsOpen(MidwatchError):
    """Everybody on this machine can read the key that signs checkpoints, so that it proves nothing: run
    `chmod 600 {path}`, and make a new one if others were here."""


class BadKey(MidwatchError):
    """{path} holds no {what} of Ed25519 in PEM: restore it, or move it away, and a new one is made."""


class SigningKey:
    """Signs checkpoints. `id` names its public half."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.id = key_id(private.public_key())

    def sign(self, data: bytes) -> bytes:
        """The signature of `data`, 64 bytes."""
        return self._private.sign(data)


class PublicKeys:
    """Public keys by their ids: whoever checks a log has one for each key that ever signed its checkpoints."""

    def __init__(self, keys: Iterable[Ed25519PublicKey]) -> None:
        self._keys: Mapping[str, Ed25519PublicKey] = {key_id(key): key for key in keys}

    def __contains__(self, id: str) -> bool:
        return id in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def verify(self, id: str, signature: bytes, data: bytes) -> bool:
        """Whether the key of that id signed `data`."""
        key = self._keys.get(id)
        if key is None:
            return False
        with contextlib.suppress(InvalidSignature):
            key.verify(signature, data)
            return True
        return False


def key_id(key: Ed25519PublicKey) -> str:
    """The first 16 hex digits of the SHA-256 of the key's 32 bytes."""
    return sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


def public_path(path: Path) -> Path:
    """Where the public half of a key file stands."""
    return path.with_suffix(".pub")


def load_or_make(path: Path) -> SigningKey:
    """The key in the file, which is made, readable by its owner only, where there is none; its public half beside it.

    Of several processes that start at once, one makes it. Raises KeyIsOpen, BadKey, OSError.
    """
    if not path.exists():
        _make(path)
    key = _read(path)
    public = public_path(path)
    if not public.exists():
        pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        with contextlib.suppress(FileExistsError):
            _write_new(public, pem, 0o644)
    return SigningKey(key)


def load_public(path: Path) -> PublicKeys:
    """The public keys in a file, one or more in PEM. Raises BadKey, OSError."""
    blocks = [f"{one}{_END}\n" for one in path.read_text().split(_END)[:-1]]
    try:
        keys = [load_pem_public_key(block.encode()) for block in blocks]
    except (ValueError, UnsupportedAlgorithm):
        keys = []
    good = [key for key in keys if isinstance(key, Ed25519PublicKey)]
    if not good or len(good) != len(keys):
        raise BadKey(path=path, what="public key")
    return PublicKeys(good)


def _read(path: Path) -> Ed25519PrivateKey:
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & stat.S_IRWXO:
        raise KeyIsOpen(path=path)
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BadKey(path=path, what="private key") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise BadKey(path=path, what="private key")
    return key


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with contextlib.suppress(FileExistsError):  # of another process: that one counts
        _write_new(path, pem, 0o600)


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Makes the file whole or not at all. Raises FileExistsError."""
    partial = path.with_name(f"{path.name}.{token_hex(4)}")
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(fd)
        os.link(partial, path)
    finally:
        partial.unlink()
