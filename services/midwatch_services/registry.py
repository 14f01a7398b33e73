"""Every service by its deployed name. Loaded one at a time, so that a container imports only its own."""

from importlib import import_module
from typing import TYPE_CHECKING

from midwatch.contracts import subjects
from midwatch.errors import MidwatchError

if TYPE_CHECKING:
    from midwatch.runtime.service import Service

_MODULES = {
    subjects.LOGGER: "midwatch_services.logger.app",
    subjects.COST_WATCHDOG: "midwatch_services.cost_watchdog.app",
    subjects.REVIEWER_SAMPLER: "midwatch_services.reviewer_sampler.app",
    subjects.KILL_SWITCH: "midwatch_services.kill_switch.app",
    subjects.PAGER: "midwatch_services.pager.app",
    subjects.DRIFT: "midwatch_services.drift.app",
    subjects.DIGEST: "midwatch_services.digest.app",
    subjects.CONSOLE: "midwatch_services.console.app",
}
NAMES = tuple(_MODULES)


class NoSuchService(MidwatchError):
    """There is no service {name!r}: choose one of {names}."""


def load(name: str) -> "Service":
    """The service of that name. Raises NoSuchService."""
    if name not in _MODULES:
        raise NoSuchService(name=name, names=", ".join(NAMES))
    service: Service = import_module(_MODULES[name]).SERVICE
    return service
