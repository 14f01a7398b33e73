"""What a service has decided and not yet said: rows saved with its state, each leaving once the server has it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby

import sqlalchemy as sa
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch.contracts.envelope import utc_now
from midwatch.errors import Permanent, Temporary

from . import faults
from .database import Database, insert_new
from .dead_letters import bury

PUBLISH = "publish"
WINDOW = 100  # rows under way at once
TIME_LIMIT = 5.0  # seconds for one acknowledgement


@dataclass(frozen=True)
class Outgoing:
    """One thing to say. `msg_id` is derived from what caused it, so that saying it twice is saying it once."""

    msg_id: str
    subject: str
    body: bytes
    kind: str = PUBLISH
    traceparent: str | None = None


Sink = Callable[[Outgoing], Awaitable[None]]


def outbox_tables(metadata: sa.MetaData, prefix: str) -> tuple[sa.Table, sa.Table]:
    """`<prefix>_outbox` and `<prefix>_applied`; a migration creates the same two by `create_outbox_tables`."""
    outbox = sa.Table(
        f"{prefix}_outbox",
        metadata,
        sa.Column("position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
        sa.Column("msg_id", sa.Text, nullable=False, unique=True),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("traceparent", sa.Text),
    )
    applied = sa.Table(
        f"{prefix}_applied",
        metadata,
        sa.Column("agent", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("applied_at", sa.BigInteger, nullable=False, index=True),
    )
    return outbox, applied


def create_outbox_tables(conn: Connection, prefix: str) -> None:
    """For a migration: `create_outbox_tables(op.get_bind(), "<prefix>")`."""
    metadata = sa.MetaData()
    outbox_tables(metadata, prefix)
    metadata.create_all(conn, checkfirst=False)


class Outbox:
    """Reads and writes one service's outbox. `sinks` take the rows of kinds other than `publish`, one at a time."""

    def __init__(
        self, database: Database, prefix: str, js: JetStreamContext, sinks: Mapping[str, Sink] | None = None
    ) -> None:
        self._database = database
        self._prefix = prefix
        self._js = js
        self._sinks = dict(sinks or {})
        self._outbox, self._applied = outbox_tables(sa.MetaData(), prefix)
        self._insert = sa.text(
            f"INSERT INTO {self._outbox.name} (msg_id, subject, body, kind, traceparent) "  # noqa: S608
            "VALUES (:msg_id, :subject, :body, :kind, :traceparent) ON CONFLICT DO NOTHING"
        )
        self._lock = asyncio.Lock()
        self._filled = True  # rows of an earlier process may wait

    def fresh(self, conn: Connection, identities: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        """Records the identities (agent, event id) as applied and returns those that were not applied before."""
        if not identities:
            return set()
        now = int(utc_now().timestamp())
        rows = [(agent, id, now) for agent, id in identities]
        columns = ("agent", "id", "applied_at")
        return {identities[place] for place in insert_new(conn, self._applied.name, columns, rows, ("agent", "id"))}

    def add(self, conn: Connection, message: Outgoing) -> None:
        """Puts `message` into the outbox, unless one with its `msg_id` waits there already."""
        if message.kind != PUBLISH and message.kind not in self._sinks:
            raise ValueError(f"no sink takes {message.kind!r}: give Outbox(sinks={{{message.kind!r}: …}})")
        conn.execute(self._insert, asdict(message))
        self._filled = True

    def drop(self, conn: Connection, msg_id: str) -> None:
        """Takes a message back, where it has not left."""
        conn.execute(self._outbox.delete().where(self._outbox.c.msg_id == msg_id))

    def forget(self, conn: Connection, before: int) -> int:
        """Drops identities applied before `before` (Unix seconds), which no stream can deliver again."""
        return conn.execute(self._applied.delete().where(self._applied.c.applied_at < before)).rowcount

    async def drain(self) -> int:
        """Says everything that waits, in order, and returns how many rows left.

        Raises Temporary where one was not acknowledged in time: it stays, and with it all that came after its window.
        """
        if not self._filled:
            return 0
        async with self._lock:
            try:
                return await self._drain()
            except BaseException:
                self._filled = True
                raise

    async def _drain(self) -> int:
        left = 0
        done: list[int] = []
        while rows := await self._advance(done):
            faults.reach("outbox.read")
            done, failure = await self._say(rows)
            faults.reach("outbox.published")
            left += len(done)
            if failure is not None:
                await self._advance(done)
                raise failure
        return left

    async def _advance(self, done: Sequence[int]) -> list[tuple[int, Outgoing]]:
        """Drops the rows that left and returns those next in line."""
        table, columns = self._outbox, self._outbox.c

        def work(conn: Connection) -> list[tuple[int, Outgoing]]:
            # On the writer's thread no other transaction is half done: a row added later sets the flag again.
            self._filled = False
            if done:
                conn.execute(table.delete().where(columns.position.in_(done)))
            query = sa.select(
                columns.position, columns.msg_id, columns.subject, columns.body, columns.kind, columns.traceparent
            )
            rows = conn.execute(query.order_by(columns.position).limit(WINDOW)).all()
            return [(row[0], Outgoing(*row[1:])) for row in rows]

        rows = await self._database.write(work)
        if done:
            faults.reach("outbox.deleted")
        return rows

    async def _say(self, rows: Sequence[tuple[int, Outgoing]]) -> tuple[list[int], BaseException | None]:
        """Positions that were acknowledged, and the first failure; nothing of a later kind is said after one."""
        done: list[int] = []
        for publishes, group in groupby(rows, key=lambda row: row[1].kind == PUBLISH):
            some = list(group)
            for window in [some] if publishes else [[row] for row in some]:
                say = self._publish if publishes else self._hand_over
                outcomes = await asyncio.gather(*(say(row) for _, row in window), return_exceptions=True)
                done += [position for (position, _), outcome in zip(window, outcomes, strict=True) if outcome is None]
                if failure := next((outcome for outcome in outcomes if outcome is not None), None):
                    return done, failure
        return done, None

    async def _publish(self, row: Outgoing) -> None:
        headers = {subjects.MSG_ID: row.msg_id, subjects.CONTENT_TYPE: subjects.CLOUDEVENTS_JSON}
        if row.traceparent:
            headers[subjects.TRACEPARENT] = row.traceparent
        try:
            async with asyncio.timeout(TIME_LIMIT + 1):
                await self._js.publish(row.subject, row.body, timeout=TIME_LIMIT, headers=headers)
        except (NatsError, TimeoutError) as error:
            raise Temporary(f"{row.subject} was not acknowledged: {error or type(error).__name__}") from error

    async def _hand_over(self, row: Outgoing) -> None:
        try:
            await self._sinks[row.kind](row)
        except Permanent as error:
            # It must not block those behind it; the dead letter keeps it findable.
            await bury(
                self._js, self._prefix.replace("_", "-"), id=row.msg_id, reason=error.reason, error=str(error),
                subject=row.subject, body=row.body,
            )  # fmt: skip
        except (NatsError, TimeoutError) as error:
            raise Temporary(f"{row.kind} of {row.msg_id} was not acknowledged: {error}") from error
