"""The events of one run, kept for its fallback."""

from collections import deque
from typing import Any

import msgspec

CONTEXT_LIMIT = 16 * 1024 * 1024  # bytes of events that are kept; the oldest go first


class Story:
    """What happened in a run so far. Only as much of it as memory can bear."""

    def __init__(self) -> None:
        self.left_out = 0  # between the first event and the next
        self._bodies: deque[bytes] = deque()
        self._size = 0

    def add(self, body: bytes) -> None:
        """Keeps one event, as it stands on the wire."""
        self._bodies.append(body)
        self._size += len(body)
        while self._size > CONTEXT_LIMIT and len(self._bodies) > 2:
            first = self._bodies.popleft()
            self._size -= len(self._bodies.popleft())
            self._bodies.appendleft(first)  # with its input, it is worth more than any
            self.left_out += 1

    @property
    def events(self) -> list[dict[str, Any]]:
        """All that is kept, oldest first."""
        return [_decoded(body) for body in self._bodies]


def _decoded(body: bytes) -> dict[str, Any]:
    envelope = msgspec.json.decode(body)
    return {"event": envelope["type"].split(".")[2], "time": envelope["time"], **envelope["data"]}
