"""The chain of an agent: blocks of leaves, each naming the head of the one before. Pure.

A block of events has the leaves of what was stored, in order of place. Blocks of the other kinds have a note: what was
erased, removed or imported since. Nothing is ever taken from a chain.
"""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import msgspec

from . import merkle

Kind = Literal["events", "erasure", "removal", "imported"]

VERSION = 1  # of what a head is made of
LARGEST = 4096  # leaves of one block
NOTHING = bytes(32)  # the head before the first block
ENTRY = 40  # bytes of a leaf with its place before it

_encode = msgspec.json.Encoder(order="deterministic").encode


class Block(msgspec.Struct, frozen=True):
    """One row of `logger_blocks`. Its fields stand in the order of the columns."""

    agent: str
    number: int  # from 1
    kind: str
    first_place: int
    last_place: int
    count: int
    leaves: bytes  # of kind `events`: `ENTRY` bytes each
    note: str  # of the other kinds: JSON
    root: bytes
    previous: bytes
    head: bytes
    made_at: str


class Tail(NamedTuple):
    """Where a chain ends."""

    number: int = 0
    head: bytes = NOTHING


class Part(NamedTuple):
    """What one block of events will hold."""

    agent: str
    leaves: bytes
    root: bytes


class Broken(NamedTuple):
    """A block that is not what it says, in words."""

    agent: str
    number: int
    what: str


def pack(rows: Iterable[tuple[int, bytes]]) -> bytes:
    """The (place, leaf) pairs as a block keeps them."""
    return b"".join(place.to_bytes(8) + leaf for place, leaf in rows)


def entries(leaves: bytes) -> Iterator[tuple[int, bytes]]:
    """The (place, leaf) pairs of a block."""
    for at in range(0, len(leaves) - ENTRY + 1, ENTRY):
        yield int.from_bytes(leaves[at : at + 8]), leaves[at + 8 : at + ENTRY]


def hashes(leaves: bytes) -> list[bytes]:
    """The leaves of a block without their places."""
    return [leaves[at + 8 : at + ENTRY] for at in range(0, len(leaves) - ENTRY + 1, ENTRY)]


def cut(agent: str, leaves: bytes) -> list[Part]:
    """What follows one another in the agent's chain, `LARGEST` leaves to a block."""
    size = LARGEST * ENTRY
    parts = [leaves[at : at + size] for at in range(0, len(leaves), size)]
    return [Part(agent, part, merkle.root(hashes(part))) for part in parts]


def append_part(tail: Tail, part: Part, made_at: str) -> Block:
    """The block of events that comes after `tail`."""
    leaves = part.leaves
    first, last = int.from_bytes(leaves[:8]), int.from_bytes(leaves[-ENTRY : 8 - ENTRY])
    return _block(tail, part.agent, "events", first, last, len(leaves) // ENTRY, leaves, "", part.root, made_at)


def append_note(tail: Tail, agent: str, kind: str, note: str, made_at: str) -> Block:
    """The block with a note that comes after `tail`."""
    return _block(tail, agent, kind, 0, 0, 0, b"", note, note_root(note), made_at)


def note_root(note: str) -> bytes:
    """What a note hashes to: a tree of this one leaf."""
    return sha256(b"\0" + note.encode("utf-8", "surrogatepass")).digest()


def encode_note(note: Any) -> str:
    """A note as a block keeps it: JSON, keys in order."""
    return _encode(note).decode()


def erasure_note(erasure: str, at: str, by: str, places: Sequence[int]) -> dict[str, Any]:
    """What is said of an erasure: its id, when, by whom, and the places of the events that were blanked."""
    return {"erasure": erasure, "at": at, "by": by, "places": sorted(places)}


def removal_note(reason: str, at: str, ranges: Sequence[Sequence[int]]) -> dict[str, Any]:
    """What is said of a removal: why, when, and how many events of the agent went in each [from, to, count]."""
    return {"reason": reason, "at": at, "ranges": [list(one) for one in ranges]}


def head_of(block: Block) -> bytes:
    """SHA-256 of a byte 2 and of the block's header as a JSON array, 32 bytes."""
    header = (
        VERSION, block.agent, block.number, block.kind, block.first_place, block.last_place, block.count,
        block.root.hex(), block.previous.hex(),
    )  # fmt: skip
    return sha256(b"\2" + _encode(header)).digest()


def check(blocks: Iterable[Block], tail: Tail = Tail()) -> Iterator[Broken]:  # noqa: B008, a tuple never changes
    """What is wrong with the chain of one agent from `tail` on, its blocks in order of number."""
    for block in blocks:
        if block.number != tail.number + 1:
            yield Broken(block.agent, block.number, f"it follows block {tail.number}: those between are missing")
        elif block.previous != tail.head:
            yield Broken(block.agent, block.number, "it names another head for the block before it")
        if what := wrong(block):
            yield Broken(block.agent, block.number, what)
        tail = Tail(block.number, block.head)


def wrong(block: Block) -> str:
    """What is wrong with a block by itself, in words."""
    if head_of(block) != block.head:
        return "its head is not the hash of its header"
    if block.kind != "events":
        return "" if note_root(block.note) == block.root else "its note was altered"
    if len(block.leaves) != block.count * ENTRY or not block.count:
        return f"it holds {len(block.leaves) // ENTRY} leaves and says {block.count}"
    if merkle.root(hashes(block.leaves)) != block.root:
        return "its leaves were altered"
    places = [place for place, _ in entries(block.leaves)]
    if places[0] != block.first_place or places[-1] != block.last_place:
        return "the places of its first and last leaf are not those that it says"
    if any(after <= before for before, after in pairwise(places)):
        return "its leaves are not in order of place"
    return ""


def _block(
    tail: Tail, agent: str, kind: str, first: int, last: int, count: int, leaves: bytes, note: str, root: bytes, at: str
) -> Block:
    block = Block(agent, tail.number + 1, kind, first, last, count, leaves, note, root, tail.head, b"", at)
    return msgspec.structs.replace(block, head=head_of(block))
