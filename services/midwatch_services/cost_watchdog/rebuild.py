"""The state anew from the stream, where the database was lost.

All that had to be said of an event was said before it was acknowledged, so of those nothing is said again. What was
delivered past the first gap may have been acknowledged or not: it is judged as if it came now, and a repeat of an alert
has the same id.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from time import monotonic

import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext

from midwatch.contracts import codec, subjects
from midwatch.runtime.delivery import Received
from midwatch.runtime.garbage import spare_collections
from midwatch.runtime.stream_read import Stored, read_range

from .handlers import Watchdog

log = structlog.get_logger("midwatch.cost_watchdog")

SAY_EVERY = 10.0  # seconds


async def rebuild(watchdog: Watchdog, nc: Client, js: JetStreamContext) -> None:
    """Judges again what the consumer was ever given, if this database does not know of it. Goes on where an earlier
    attempt ended. Raises Temporary where the server or the database does not answer."""
    goes_on = await watchdog.rebuilding()
    if goes_on is None and not await watchdog.is_new():
        return
    consumer = await js.consumer_info(subjects.RUNS, subjects.COST_WATCHDOG)
    acknowledged = consumer.ack_floor.stream_seq if consumer.ack_floor else 0
    last = consumer.delivered.stream_seq if consumer.delivered else 0
    first = max(1, (await js.stream_info(subjects.RUNS)).state.first_seq)
    if last < first:
        return
    goes_on = max(goes_on or 0, first)
    log.warning("rebuild_begins", next=goes_on, last=last, why="the database does not know what was acknowledged")
    spare_collections()
    began = said = monotonic()
    async for stored in _ahead(read_range(nc, subjects.RUNS, "midwatch.run.>", goes_on, to=last)):
        batch = [received for one in stored if (received := _received(one)) is not None]
        if quiet := [received for received in batch if received.stream_seq <= acknowledged]:
            await watchdog.judge_again(quiet)
        if rest := batch[len(quiet) :]:
            await watchdog.on_events(rest)
        if monotonic() - said > SAY_EVERY:
            said = monotonic()
            log.info("rebuild_goes_on", next=stored[-1].seq + 1, last=last)
    await watchdog.rebuilt()
    log.warning("rebuild_ended", last=last, seconds=round(monotonic() - began, 1))


async def _ahead(batches: AsyncIterator[list[Stored]]) -> AsyncIterator[list[Stored]]:
    """The same batches, the next one on its way while one is judged."""
    coming = asyncio.ensure_future(anext(batches, None))
    try:
        while (batch := await coming) is not None:
            coming = asyncio.ensure_future(anext(batches, None))
            yield batch
    finally:
        coming.cancel()


def _received(stored: Stored) -> Received | None:
    """None for a message that breaks the contract: it lies among the dead letters."""
    try:
        event = codec.decode_run(stored.subject, stored.body)
    except Exception:
        return None
    at = datetime.fromisoformat(stored.stored_at)
    return Received(event, stored.body, stored.subject, None, stored.seq, 1, at, "")
