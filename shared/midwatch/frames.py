"""How an event stands in a file of the spool: framed, so that a torn tail and damage are recognised and skipped.

A frame is magic, length of the rest, CRC-32 of the rest; the rest is three lengths, subject, id, traceparent, body.
"""

import struct
from typing import NamedTuple
from zlib import crc32

# No UTF-8 text holds these bytes, so a body of JSON cannot: reading finds its feet on them after damage.
MAGIC = b"\xff\xf5MW"
_HEAD = struct.Struct("<4sII")
_LENGTHS = struct.Struct("<HHH")


class Record(NamedTuple):
    """One event as it was appended. `traceparent` is the W3C trace context of the call that recorded it."""

    subject: str
    id: str
    traceparent: str | None
    body: bytes


class Found(NamedTuple):
    """What stands in a piece of a segment: records with the offset of their end, and the offsets of damage."""

    records: list[tuple[Record, int]]
    damaged: list[int]


def frame(subject: str, event_id: str, traceparent: bytes | None, body: bytes) -> bytes:
    """A record as it stands in a segment. Raises struct.error for a subject or id of more than 65,535 bytes."""
    where, identity, trace = subject.encode(), event_id.encode(), traceparent or b""
    rest = b"".join((_LENGTHS.pack(len(where), len(identity), len(trace)), where, identity, trace, body))
    return _HEAD.pack(MAGIC, len(rest), crc32(rest)) + rest


def unframe(piece: bytes, *, whole: bool, limit: int, max_bytes: int) -> Found:
    """The records in `piece`, up to `limit` and the first that reaches `max_bytes`. Damage is skipped to the next
    sound record.

    `whole` says that the piece reaches the end of its segment: what is incomplete there is a torn tail or damage, else
    it only goes on in the next piece.
    """
    found = Found([], [])
    at = taken = 0
    while len(found.records) < limit and taken < max_bytes:
        end = _end(piece, at)
        if 0 < end <= len(piece):
            found.records.append((_record(piece, at + _HEAD.size, end), end))
            taken += end - at
            at = end
            continue
        if end and not whole:
            break
        following = piece.find(MAGIC, at + 1)
        if following < 0:
            break
        found.damaged.append(at)
        at = following
    return found


def _end(piece: bytes, at: int) -> int:
    """Where the frame at `at` ends, which may be past the piece; 0 where no sound frame begins."""
    start = at + _HEAD.size
    if start > len(piece):
        return start
    magic, length, crc = _HEAD.unpack_from(piece, at)
    if magic != MAGIC or length < _LENGTHS.size:
        return 0
    end: int = start + length
    if end <= len(piece) and crc32(memoryview(piece)[start:end]) != crc:
        return 0
    return end


def _record(piece: bytes, start: int, end: int) -> Record:
    where, identity, trace = _LENGTHS.unpack_from(piece, start)
    a = start + _LENGTHS.size
    b, c, d = a + where, a + where + identity, a + where + identity + trace
    return Record(piece[a:b].decode(), piece[b:c].decode(), piece[c:d].decode() if trace else None, piece[d:end])
