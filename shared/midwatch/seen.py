"""The file of what this machine has seen that a restart, or a replica that lags, must not lift: halts, and a route."""

import contextlib
import logging
import threading
from collections.abc import Iterable
from pathlib import Path

import msgspec

from .keys import FOREVER, NEVER, ROUTE, Answer, Key
from .routing import RouteKey

log = logging.getLogger("midwatch")


class _Kept(msgspec.Struct):
    revision: int
    written: int
    value: bytes | None


class Seen:
    """The file at `path`, or none."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def restore(self, keys: dict[str, Key], route: RouteKey) -> None:
        """Applies what the file says."""
        try:
            kept = msgspec.json.decode(self._path.read_bytes() if self._path else b"{}", type=dict[str, _Kept])
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return
        for name, it in kept.items():
            answer = Answer(it.revision, it.written, it.value)
            if name in keys:
                keys[name].take(answer, NEVER, FOREVER)
            elif name == ROUTE:
                route.take(answer, NEVER)

    def keep(self, keys: Iterable[Key], route: RouteKey) -> None:
        """Writes the file."""
        if self._path is None:
            return
        kept = {
            key.name: _Kept(key.floor[1], key.floor[0], key.value)
            for key in keys
            if key.halts and key.revision  # an absent key halts by itself
        }
        if route.worth_keeping:
            kept[ROUTE] = _Kept(route.floor[1], route.floor[0], route.value)
        # Of its own name: several processes of one agent share the folder.
        draft = self._path.with_name(f"{self._path.name}.{threading.get_ident():x}.{id(self):x}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(msgspec.json.encode(kept))
            draft.replace(self._path)
        except OSError as error:
            log.warning("halts seen cannot be kept in %s: %s", self._path, error)
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
