"""Which services read what happens. What pages show of one that does not is old news, though its database answers."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo

from midwatch.contracts import subjects
from midwatch.runtime import topology

EVERY = 3.0  # seconds between two looks
_WITHIN = 3.0  # seconds for all the answers of a look
GRACE = 10.0  # seconds for a service that starts again; a reader asks the bus again within 7
STUCK = 90.0  # seconds without an event settled while some wait; one that fails again and again is given up within 64
_SERVICES = (
    subjects.LOGGER,
    subjects.KILL_SWITCH,
    subjects.REVIEWER_SAMPLER,
    subjects.PAGER,
)  # pages show what they keep

log = structlog.get_logger("midwatch.console")


@dataclass(frozen=True, slots=True)
class Deaf:
    """A service that has not read what happened since then."""

    service: str
    since: datetime


@dataclass(slots=True)
class _Seen:
    """A consumer: when it was last seen asked, and when it last got on; by the process's own clock."""

    asked: float
    got_on: float
    place: tuple[int, int] = (-1, -1)  # deliveries so far, and up to where all is settled
    before: datetime | None = None  # when it was last used, where nobody has asked since the first look


class Hearing:
    """Looks at the consumers of the services every few seconds; `deaf` is what was last seen."""

    def __init__(self, js: JetStreamContext, now: Callable[[], datetime]) -> None:
        self._js, self._now = js, now
        self._seen: dict[str, _Seen] = {}
        self.deaf: list[Deaf] = []

    def since(self, service: str) -> datetime | None:
        """Since when that service does not read; None where it does."""
        return next((one.since for one in self.deaf if one.service == service), None)

    async def look(self) -> None:
        """While NATS does not answer nothing is known, and nobody is blamed."""
        consumers = [(service, one) for service in _SERVICES for one in _consumers(service)]
        try:
            async with asyncio.timeout(_WITHIN):
                found = await asyncio.gather(*(self._js.consumer_info(one.stream, one.name) for _, one in consumers))
        except (NatsError, TimeoutError):
            self._seen, self.deaf = {}, []
            return
        deaf: dict[str, datetime] = {}
        for (service, _), info in zip(consumers, found, strict=True):
            since = self._judged(info, time.monotonic())
            if since is not None:
                deaf[service] = min(since, deaf.get(service, since))
        for service in deaf.keys() - {one.service for one in self.deaf}:
            log.warning("service_does_not_read", of=service, since=deaf[service].isoformat())
        self.deaf = [Deaf(service, deaf[service]) for service in _SERVICES if service in deaf]

    def _judged(self, info: ConsumerInfo, clock: float) -> datetime | None:
        delivered, settled = info.delivered, info.ack_floor
        if delivered is None or settled is None:
            return None
        place = (delivered.consumer_seq, settled.stream_seq)
        seen = self._seen.get(info.name)
        if seen is None:
            if not (info.num_waiting or delivered.consumer_seq):
                return None  # nobody has ever read it: the service was never started, which its database tells
            seen = self._seen[info.name] = _Seen(clock, clock, place, None if info.num_waiting else settled.last_active)
        if info.num_waiting or place != seen.place:
            seen.asked, seen.before = clock, None
        if settled.stream_seq != seen.place[1] or not (info.num_pending or info.num_ack_pending):
            seen.got_on = clock
        seen.place = place
        if clock - seen.asked > GRACE:
            return seen.before or self._now() - timedelta(seconds=clock - seen.asked)
        if clock - seen.got_on > STUCK:
            return self._now() - timedelta(seconds=clock - seen.got_on)
        return None


def _consumers(service: str) -> list[topology.Consumer]:
    """Those by which the service hears of what its pages show."""
    return [
        one for one in topology.CONSUMERS
        if (one.name == service or one.name.startswith(f"{service}-"))
        and one.name != subjects.erasure_consumer(service)
    ]  # fmt: skip
