"""Checkpoints: what the heads of the chains were at a time, signed, each naming the one before. Pure.

The signature is over the checkpoint as JSON without `signature`, keys in order, no spaces: anyone can make these bytes
again. What is sent out is the same with it: one line.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Protocol

import msgspec

from midwatch.contracts.governance import EvidenceCheckpointed as Checkpoint

from .chain import Tail

NONE = "0" * 64  # `previous` of the first

_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(Checkpoint).decode


class Signer(Protocol):
    """Who signs: `keys.SigningKey`."""

    id: str

    def sign(self, data: bytes) -> bytes: ...


class Verifier(Protocol):
    """Who knows public keys: `keys.PublicKeys`."""

    def __contains__(self, id: str) -> bool: ...

    def verify(self, id: str, signature: bytes, data: bytes) -> bool: ...


def make(previous: Checkpoint | None, heads: Mapping[str, Tail], at: str, key: Signer) -> Checkpoint:
    """The checkpoint after `previous`, with the heads that moved."""
    bare = Checkpoint(
        number=previous.number + 1 if previous else 1,
        at=at,
        heads={agent: (number, head.hex()) for agent, (number, head) in sorted(heads.items())},
        previous=digest(previous) if previous else NONE,
        key=key.id,
        signature="",
    )
    return msgspec.structs.replace(bare, signature=key.sign(signed_bytes(bare)).hex())


def signed_bytes(checkpoint: Checkpoint) -> bytes:
    """What the signature is over."""
    fields = {name: getattr(checkpoint, name) for name in checkpoint.__struct_fields__ if name != "signature"}
    return _encode(fields)


def digest(checkpoint: Checkpoint) -> str:
    """What the next checkpoint names this one by: SHA-256 of what was signed, in hex."""
    return sha256(signed_bytes(checkpoint)).hexdigest()


def line(checkpoint: Checkpoint) -> str:
    """The checkpoint as it is kept and sent out, without the end of the line."""
    return _encode(checkpoint).decode()


def read(text: str | bytes) -> Checkpoint | None:
    """The checkpoint in a line; None for a line that is torn or no checkpoint."""
    try:
        return _decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def is_signed(checkpoint: Checkpoint, keys: Verifier) -> bool:
    """Whether the key that it names signed it."""
    try:
        signature = bytes.fromhex(checkpoint.signature)
    except ValueError:
        return False
    return keys.verify(checkpoint.key, signature, signed_bytes(checkpoint))
