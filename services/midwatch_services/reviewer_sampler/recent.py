"""What was met lately, so that most events need no look into the database."""

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Recent(Generic[K]):
    """The keys met last: at least `limit` of them, at most twice as many."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._young: set[K] = set()
        self._old: set[K] = set()

    def __contains__(self, key: K) -> bool:
        if key in self._young:
            return True
        if key in self._old:
            self.add(key)
            return True
        return False

    def add(self, key: K) -> None:
        """Remembers `key`; the older half is forgotten when the younger one is full."""
        if len(self._young) >= self._limit:
            self._young, self._old = set(), self._young
        self._young.add(key)
