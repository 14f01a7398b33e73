"""How a service takes part in an erasure: it hears which runs, erases them from its tables, and confirms it.

A service joins with `join(...)` in its `app.py`, its name in `topology.ERASERS`, and a migration that calls
`create_outbox_tables(op.get_bind(), erasure_prefix(PREFIX))`.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError
from sqlalchemy.engine import Connection

from midwatch.contracts import codec, subjects
from midwatch.contracts.envelope import Envelope
from midwatch.contracts.erasure import ErasureErased, ErasureResolved
from midwatch.errors import Temporary

from . import faults
from .outbox import Outbox, Outgoing
from .service import Context

CONFIRM = "confirm"  # kind of the outbox rows whose sink scrubs the database first
AGAIN = 1.0  # seconds between two attempts at what could not be confirmed

Counts = dict[str, int]
Erase = Callable[[Connection, ErasureResolved], Counts]
Step = Callable[[ErasureResolved], Awaitable[None]]
Write = Callable[[Callable[[Connection], None]], Awaitable[None]]


def erasure_prefix(prefix: str) -> str:
    """Prefix of the tables that hold a service's confirmations, apart from what must not wait for them."""
    return f"{prefix}_erasure"


def join(
    context: Context,
    prefix: str,
    erase: Erase,
    *,
    tables: Sequence[str],
    reads: Sequence[tuple[str, str]] = (),
    write: Write | None = None,
    before: Step | None = None,
    after: Step | None = None,
) -> "Eraser":
    """Has the service erase what it is told to. `erase` does it, in one transaction with the confirmation; `tables` are
    those that it changes. `reads`: (stream, consumer) by which the service could still hear of the runs: it erases once
    they are past. `write` runs a transaction where the service has a way of its own. `before`: what is to be done
    elsewhere than in tables, again without harm; `after`: what the service holds in memory."""
    eraser = Eraser(context, prefix, erase, tables, reads, write, before, after)
    context.read(
        subjects.GOVERNANCE, subjects.erasure_consumer(context.name), eraser.on_resolved, decode=codec.decode,
        outbox=eraser.outbox, batch=1,
    )  # fmt: skip
    context.every(AGAIN, eraser.drain)
    return eraser


class Eraser:
    """Erases, saves that it did, has the files forget it, and confirms it."""

    def __init__(
        self, context: Context, prefix: str, erase: Erase, tables: Sequence[str], reads: Sequence[tuple[str, str]],
        write: Write | None, before: Step | None, after: Step | None,
    ) -> None:  # fmt: skip
        self._name, self._now, self._js, self._database = context.name, context.now, context.js, context.database
        self._erase, self._reads, self._before, self._after = erase, reads, before, after
        self._write = write or self._plainly
        own = erasure_prefix(prefix)
        self._tables = (*tables, f"{own}_outbox")
        self.outbox = Outbox(context.database, own, context.js, sinks={CONFIRM: self._confirm})

    async def on_resolved(self, batch: Sequence[Any]) -> None:
        """Parts of erasures, each erased once."""
        for received in batch:
            event: Envelope[ErasureResolved] = received.event
            await self._wait(event.data.upto, received.stream_seq)
            if self._before is not None:
                await self._before(event.data)

            def work(conn: Connection, event: Envelope[ErasureResolved] = event) -> None:
                if self.outbox.fresh(conn, [(subjects.FLEET, event.id)]):
                    self.outbox.add(conn, self._word(event.data, self._erase(conn, event.data)))

            await self._write(work)
            if self._after is not None:
                await self._after(event.data)
            faults.reach("erasure.erased")

    async def drain(self) -> None:
        """Confirms what could not be confirmed yet."""
        await self.outbox.drain()

    async def _plainly(self, work: Callable[[Connection], None]) -> None:
        await self._database.write(work)

    async def _wait(self, runs: int, governance: int) -> None:
        """Raises Temporary while the service may still hear of the runs what was stored before."""
        for stream, consumer in self._reads:
            upto = runs if stream == subjects.RUNS else governance
            if not await is_past(self._js, stream, consumer, upto):
                raise Temporary(f"{consumer} has not read {stream} up to {upto} yet", delay=AGAIN)

    def _word(self, part: ErasureResolved, counts: Counts) -> Outgoing:
        return confirmation(part, self._name, counts)

    async def _confirm(self, row: Outgoing) -> None:
        await self._database.scrub(self._tables)
        faults.reach("erasure.scrubbed")
        await publish(self._js, row)


def confirmation(part: ErasureResolved, service: str, counts: Counts) -> Outgoing:
    """A service's word that a part is erased."""
    id = f"{part.erasure_id}-{part.part}-{service}"
    data = ErasureErased(
        erasure_id=part.erasure_id, part=part.part, service=service,
        counts={name: count for name, count in counts.items() if count},
    )  # fmt: skip
    body = codec.encode(codec.envelope("erasure", "erased", data, source=f"/services/{service}", id=id))
    return Outgoing(id, subjects.erasure("erased"), body, CONFIRM)


async def publish(js: JetStreamContext, row: Outgoing) -> None:
    """Says it, once however often. Raises NatsError or TimeoutError without an acknowledgement."""
    headers = {subjects.MSG_ID: row.msg_id, subjects.CONTENT_TYPE: subjects.CLOUDEVENTS_JSON}
    await js.publish(row.subject, row.body, timeout=5.0, headers=headers)


async def is_past(js: JetStreamContext, stream: str, consumer: str, upto: int) -> bool:
    """Whether the consumer has done with all of the stream up to that sequence. Raises Temporary where the server does
    not say."""
    try:
        info = await js.consumer_info(stream, consumer)
        floor = info.ack_floor.stream_seq if info.ack_floor else 0
        if floor >= upto:
            return True
        # What the server counts as pending lags behind what it has acknowledged, so the stream is asked.
        wanted = info.config.filter_subjects or [info.config.filter_subject or ">"]
        return not [True for subject in wanted if await _is_between(js, stream, subject, floor, upto)]
    except (NatsError, TimeoutError) as error:
        raise Temporary(f"the server does not say how far {consumer} is: {error or type(error).__name__}") from error


async def _is_between(js: JetStreamContext, stream: str, subject: str, after: int, upto: int) -> bool:
    """Whether the stream holds a message of the subject with a sequence in that range."""
    try:
        return ((await js.get_msg(stream, seq=after + 1, subject=subject, next=True)).seq or 0) <= upto
    except NotFoundError:
        return False
