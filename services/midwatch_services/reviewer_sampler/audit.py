"""Gathers what `verify` checks: from the bus, the sampler's database and the run log, all read-only."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy as sa
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError
from sqlalchemy.engine import Connection

from midwatch.contracts import codec, subjects
from midwatch.contracts.codec import Refused
from midwatch.contracts.reviews import ReviewKeyCommitted, ReviewKeyRevealed, ReviewRated, ReviewSampled
from midwatch.errors import MidwatchError
from midwatch.runtime.database import Database
from midwatch.runtime.settings import Settings

from . import store
from .decide import Run, track_of
from .policy import KEEP_BEYOND
from .verify import Evidence, Said, days_of

T = TypeVar("T")

_BATCH = 500
_WAIT = 5.0  # seconds for one batch

# Reads of the run log when the server stored the first event of each run: (agent, run id, mode, RFC 3339).
Firsts = Callable[[Connection], Iterable[tuple[str, str, str, str]]]


async def gather(
    js: JetStreamContext, settings: Settings, day: str | None, firsts: Firsts
) -> tuple[list[str], Evidence]:
    """The days to verify, `day` or else all that were revealed, and what is known of them. `firsts` queries the run
    log, which is another service's."""
    said = await read_bus(js)
    days = [day] if day else days_of(said)
    decided, queued = _decided(settings, days)
    if decided is None:
        return days, Evidence(said)
    keep = timedelta(days=settings.runs_max_age_days) + KEEP_BEYOND
    forgotten = (datetime.now(UTC) - keep).date().isoformat()
    logged = _logged(settings, days, await _read_until(js), firsts)
    if logged is None:
        return days, Evidence(said, decided, queued, forgotten=forgotten)
    unseen = _unseen(settings, logged)
    counts = {one: len(logged.get(one, ())) for one in days}
    return days, Evidence(said, decided, queued, unseen, counts, forgotten)


async def read_bus(js: JetStreamContext) -> list[Said]:
    """Every review event that was ever published and is still kept; what breaks the contract is left out."""
    config = ConsumerConfig(
        ack_policy=AckPolicy.NONE, deliver_policy=DeliverPolicy.ALL, mem_storage=True, inactive_threshold=30
    )
    pull = await js.pull_subscribe("midwatch.review.>", stream=subjects.GOVERNANCE, config=config)
    said: list[Said] = []
    try:
        pending = (await pull.consumer_info()).num_pending or 0
        while pending > 0:
            for message in await pull.fetch(min(pending, _BATCH), timeout=_WAIT):
                pending = message.metadata.num_pending
                try:
                    envelope = codec.decode(message.subject, message.data)
                except Refused:
                    continue
                if isinstance(envelope.data, ReviewKeyCommitted | ReviewKeyRevealed | ReviewRated | ReviewSampled):
                    at = envelope.time.timestamp()
                    said.append(Said(message.metadata.sequence.stream, envelope.id, envelope.data, at))
    finally:
        await pull.unsubscribe()
    return said


async def _read_until(js: JetStreamContext) -> datetime:
    """When the server stored the first event that the sampler has not handled yet; now, if it has handled all."""
    now = datetime.now(UTC)
    info = await js.consumer_info(subjects.RUNS, subjects.REVIEWER_SAMPLER)
    after = (info.ack_floor.stream_seq if info.ack_floor else 0) + 1
    try:
        message = await js.get_msg(subjects.RUNS, seq=after, subject="midwatch.run.>", next=True)
    except NotFoundError:
        return now
    return message.time or now


def _decided(
    settings: Settings, days: Sequence[str]
) -> tuple[list[dict[str, Any]] | None, set[tuple[str, str, str]] | None]:
    found = _read(
        settings, subjects.REVIEWER_SAMPLER, lambda conn: (store.runs_of(conn, days), store.queued_of(conn, days))
    )
    return found or (None, None)


def _logged(settings: Settings, days: Sequence[str], until: datetime, firsts: Firsts) -> dict[str, list[Run]] | None:
    """Runs of the run log by the day of their first event, save those that the sampler has yet to read."""

    def work(conn: Connection) -> dict[str, list[Run]]:
        found: dict[str, list[Run]] = {day: [] for day in days}
        for agent, run_id, mode, stored_at in firsts(conn):
            first = datetime.fromisoformat(stored_at)
            day = first.astimezone(UTC).date().isoformat()
            if day in found and first < until:
                found[day].append(Run(agent, run_id, track_of(mode)))
        return found

    return _read(settings, subjects.LOGGER, work)


def _unseen(settings: Settings, logged: dict[str, list[Run]]) -> dict[str, list[Run]]:
    everyone = [run for some in logged.values() for run in some]
    known = _read(settings, subjects.REVIEWER_SAMPLER, lambda conn: store.known(conn, everyone)) or set()
    return {day: [run for run in some if run not in known] for day, some in logged.items()}


def _read(settings: Settings, service: str, work: Callable[[Connection], T]) -> T | None:
    """What `work` reads in the service's database, or None where that cannot be read from here."""
    try:
        database = Database(settings.database_for(service), name=service, must_exist=True)
    except MidwatchError:
        return None
    try:
        return database.read_now(work)
    except (MidwatchError, sa.exc.DBAPIError):
        return None
    finally:
        database.close()
