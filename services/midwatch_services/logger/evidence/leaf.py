"""What one event of the log hashes to. Pure.

A leaf commits to what the event is (agent, id, run, kind, times, place) and to what it says. What it says is hashed
with a salt of its own, which is kept beside the text and goes with it: of an erased text the hash tells nothing.
"""

from hashlib import sha256

import msgspec

SALT = 16  # bytes
VERSION = 1  # of what a leaf is made of

_encode = msgspec.json.Encoder().encode


def content_hash(salt: bytes, body: bytes) -> bytes:
    """SHA-256 of the salt and of the event as it is stored, 32 bytes."""
    return sha256(salt + body).digest()


def leaf_hash(
    agent: str, id: str, run_id: str, event: str, seq: int, time: str, stored_at: str, place: int, mode: str,
    version: str, content: bytes,
) -> bytes:  # fmt: skip
    """SHA-256 of a zero byte, as RFC 6962 marks leaves, and of the columns as a JSON array, 32 bytes."""
    columns = (VERSION, agent, id, run_id, event, seq, time, stored_at, place, mode, version, content.hex())
    return sha256(b"\0" + _encode(columns)).digest()
