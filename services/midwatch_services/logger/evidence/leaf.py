"""What one event of the log hashes to. Pure.

A leaf commits to what the event is (agent, id, run, kind, times, place) and to what it says. What it says is hashed
with a salt of its own, which is kept beside the text and goes with it: of an erased text the hash tells nothing.
"""

from hashlib import sha256

import msgspec

SALT = 16  # bytes
VERSION = 1  # of what a leaf is made of

_encode = msgspec.json.Encoder().encode


# For more bytes at a time hashlib gives up Python's global lock. While the service is busy, getting it back takes
# longer than hashing an event of the usual size.
_AT_ONCE = 2047
_LARGE = 16 * 1024  # bytes; such a one is hashed while others work


def content_hash(salt: bytes, body: bytes) -> bytes:
    """SHA-256 of the salt and of the event as it is stored, 32 bytes."""
    if len(body) > _LARGE:
        return sha256(salt + body).digest()
    found = sha256(salt)
    for start in range(0, len(body), _AT_ONCE):
        found.update(body[start : start + _AT_ONCE])
    return found.digest()


def leaf_hash(
    agent: str, id: str, run_id: str, event: str, seq: int, time: str, stored_at: str, place: int, mode: str,
    version: str, content: bytes,
) -> bytes:  # fmt: skip
    """SHA-256 of a zero byte, as RFC 6962 marks leaves, and of the columns as a JSON array, 32 bytes."""
    columns = (VERSION, agent, id, run_id, event, seq, time, stored_at, place, mode, version, content.hex())
    return sha256(b"\0" + _encode(columns)).digest()
