"""When a channel is dead, and when it works again. Pure."""

from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from .policy import DEAD_AFTER, DEAD_FAILURES


class Health(Struct, frozen=True, kw_only=True):
    """How a channel does. `alert_id`: of the alert that says that it is dead."""

    channel: str
    failures: int = 0
    failing_since: datetime | None = None
    dead_at: datetime | None = None
    alert_id: str | None = None
    error: str | None = None


def failed(health: Health, error: str, now: datetime, *, refused: bool) -> Health:
    """The channel after an attempt that failed: dead at once where it refuses, else after several over some minutes."""
    since = health.failing_since or now
    failures = health.failures + 1
    dead_at = health.dead_at
    if dead_at is None and (refused or (failures >= DEAD_FAILURES and now - since >= DEAD_AFTER)):
        dead_at = now
    return replace(health, failures=failures, failing_since=since, dead_at=dead_at, error=error)


def worked(health: Health) -> Health:
    """The channel after a message that it took."""
    return Health(channel=health.channel)
