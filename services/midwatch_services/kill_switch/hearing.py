"""Whether silence means anything: only while presence reaches this process."""

from collections.abc import Callable
from datetime import datetime, timedelta

from nats.aio.client import Client
from nats.errors import Error as NatsError

from midwatch.runtime.broker import round_trip

from .handlers import KillSwitch

_WITHIN = 1.0  # seconds for a round trip to the server


class Hearing:
    """For one who looks again and again at who is silent."""

    def __init__(self, nc: Client, switch: KillSwitch, now: Callable[[], datetime], silent_after: timedelta) -> None:
        self._nc, self._switch, self._now, self._silent_after = nc, switch, now, silent_after
        self._looked_at = self._listening_since = now()

    @property
    def since(self) -> datetime:
        """From when on everyone was listened to without a gap."""
        return max(self._listening_since, self._switch.watching_since)

    async def hears(self) -> bool:
        """Whether presence comes through: an answer of the server comes after what it sent before. Where none came for
        a while, or this process stood still, everyone has to be heard again."""
        if not (self._nc.is_connected and self._switch.follows):
            return False
        try:
            await round_trip(self._nc, _WITHIN)
        except (NatsError, TimeoutError):
            return False
        now = self._now()
        if now - self._looked_at > self._silent_after:
            self._listening_since = now
        self._looked_at = now
        return True
