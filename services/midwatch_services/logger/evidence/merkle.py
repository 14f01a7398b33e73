"""The Merkle tree of RFC 6962 over leaves that are hashed already: its root, a leaf's path, and its check. Pure."""

from collections.abc import Sequence
from hashlib import sha256


def root(leaves: Sequence[bytes]) -> bytes:
    """The tree's hash; of no leaves that of nothing."""
    if not leaves:
        return sha256(b"").digest()
    level = list(leaves)
    while len(level) > 1:
        level = _above(level)
    return level[0]


def path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The audit path of the `index`th leaf: what it takes, from the bottom up, to get from it to the root."""
    level, found = list(leaves), []
    while len(level) > 1:
        if (beside := index ^ 1) < len(level):
            found.append(level[beside])
        level, index = _above(level), index >> 1
    return found


def root_by(leaf: bytes, index: int, count: int, path: Sequence[bytes]) -> bytes | None:
    """The root that the path leads to from the `index`th of `count` leaves; None where it is of another length."""
    if not 0 <= index < count:
        return None
    steps, last = iter(path), count - 1
    while last:
        if index & 1 or index < last:
            if (other := next(steps, None)) is None:
                return None
            leaf = _node(other, leaf) if index & 1 else _node(leaf, other)
        index, last = index >> 1, last >> 1
    return leaf if next(steps, None) is None else None


def _above(level: list[bytes]) -> list[bytes]:
    # A node without a neighbour goes up as it is: with it the tree is RFC 6962's, split at the largest power of two.
    above = [sha256(b"\1" + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=False)]
    return [*above, level[-1]] if len(level) & 1 else above


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()
