"""The operations layer for AI agents: publish run events, obey the switch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import blocking as blocking
    from . import testing as testing
    from .agent import Agent as Agent
    from .client import Midwatch as Midwatch
    from .client import connect as connect
    from .errors import Halted as Halted
    from .errors import MidwatchError as MidwatchError
    from .errors import NoCard as NoCard
    from .order import Case as Case
    from .order import Handoff as Handoff
    from .run import Run as Run

# Imported when first asked for: `midwatch.contracts` and the server side do not pay for the SDK.
_HOMES = {
    "Agent": "agent", "Midwatch": "client", "connect": "client", "Halted": "errors", "MidwatchError": "errors",
    "NoCard": "errors", "Case": "order", "Handoff": "order", "Run": "run",
}  # fmt: skip
_MODULES = ("blocking", "testing")

__all__ = [
    "Agent", "Case", "Halted", "Handoff", "Midwatch", "MidwatchError", "NoCard", "Run", "blocking", "connect",
    "testing",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
