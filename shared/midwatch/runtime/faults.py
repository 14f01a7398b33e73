"""Places at which a test may crash a service: between every two steps that touch the outside world."""

import os
from collections.abc import Callable

_ENVIRONMENT = os.environ.get("MIDWATCH_FAULT")  # "<point>" or "<point>:<n>": the process dies on the n-th passage
_hook: Callable[[str], None] | None = None
_passages = 0


def _die(point: str) -> None:
    global _passages
    name, _, nth = (_ENVIRONMENT or "").partition(":")
    if point == name:
        _passages += 1
        if _passages >= int(nth or 1):
            os._exit(137)


if _ENVIRONMENT:
    _hook = _die


def reach(point: str) -> None:
    """Passes `point`; a test that set a hook may raise here."""
    if _hook is not None:
        _hook(point)


def set_hook(hook: Callable[[str], None] | None) -> None:
    """Calls `hook` with the name of every point passed, until it is set to None."""
    global _hook
    _hook = hook
