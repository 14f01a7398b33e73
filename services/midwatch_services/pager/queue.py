"""What is to be sent, in a table: put there with the decision, taken once it was sent."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from midwatch.runtime.database import insert_new, upsert

from . import tables
from .decide import Withdraw
from .messages import Message
from .tables import from_micros, micros

_table = tables.Delivery.__table__
_COLUMNS = ("id", "channel", "group_id", "what", "urgency", "phase", "created_at", "due_at", "attempts", "body")
_PRESSING = ("escalated", "again")


class Delivery(NamedTuple):
    """One message on its way to one channel. `attempts` counts the one that is under way."""

    id: str
    channel: str
    message: Message
    since: datetime
    attempts: int


def add(conn: Connection, message: Message, channels: Collection[str], now: datetime) -> None:
    """Has the channels told; what is there already stays as it is."""
    rows = [_row(message, channel, now) for channel in channels]
    insert_new(conn, _table.name, _COLUMNS, rows, ("id", "channel"))


def refresh(conn: Connection, message: Message, channels: Collection[str], now: datetime) -> None:
    """Has the channels told again under the same id."""
    if channels:
        upsert(conn, _table.name, _COLUMNS, [_row(message, one, now) for one in channels], ("id", "channel"))


def _row(message: Message, channel: str, now: datetime) -> tuple[Any, ...]:
    at = micros(now)
    urgency = 0 if message.severity == "page" else 1  # a storm of tickets, or a digest, holds up no page
    body = msgspec.msgpack.encode(message)
    return (message.id, channel, message.group_id, message.what, urgency, "waiting", at, at, 0, body)


def withdraw(conn: Connection, decision: Withdraw) -> None:
    """What waits and is stale is not sent any more."""
    stale = sa.and_(_table.c.group_id == decision.group_id, _table.c.phase == "waiting")
    if not decision.end:
        stale = sa.and_(stale, _table.c.what.in_(_PRESSING))
    conn.execute(_table.update().where(stale).values(phase="withdrawn", due_at=None))


def reached(conn: Connection, group_id: str) -> set[str]:
    """The channels that may have been told of the group: those at which an attempt was made."""
    query = sa.select(_table.c.channel).where(_table.c.group_id == group_id, _table.c.attempts > 0).distinct()
    return set(conn.execute(query).scalars())


def claim(
    conn: Connection, now: datetime, without: Collection[str], within: timedelta
) -> tuple[list[Delivery], datetime | None]:
    """Takes the next of each channel that is not busy, and says when the next of the others is due. The claim holds for
    `within`: after that, whoever took it is dead."""
    waits = sa.and_(_table.c.due_at.is_not(None), _table.c.channel.not_in(list(without)))
    at = micros(now)
    claimed = []
    for channel in (
        conn.execute(sa.select(_table.c.channel).where(waits, _table.c.due_at <= at).distinct()).scalars().all()
    ):
        first = sa.select(_table).where(_table.c.channel == channel, _table.c.due_at <= at)
        row = conn.execute(
            first.order_by(_table.c.urgency, _table.c.due_at, _table.c.created_at, _table.c.id).limit(1)
        ).one()
        taken = {"attempts": row.attempts + 1, "tried_at": at, "due_at": micros(now + within)}
        conn.execute(_table.update().where(_is(row.id, channel)).values(taken))
        message = msgspec.msgpack.decode(row.body, type=Message)
        claimed.append(Delivery(row.id, channel, message, from_micros(row.created_at), row.attempts + 1))
    taken_channels = [one.channel for one in claimed]
    later = sa.select(sa.func.min(_table.c.due_at)).where(waits, _table.c.channel.not_in(taken_channels))
    next_at = conn.execute(later).scalar()
    return claimed, None if next_at is None else from_micros(next_at)


def sent(conn: Connection, one: Delivery, now: datetime) -> None:
    """The channel took it."""
    done = {"phase": "sent", "sent_at": micros(now), "due_at": None, "error": None}
    conn.execute(_table.update().where(_is(one.id, one.channel)).values(done))


def put_back(conn: Connection, one: Delivery, error: str, due_at: datetime) -> None:
    """It is tried again then, unless it was withdrawn meanwhile."""
    waits = sa.and_(_is(one.id, one.channel), _table.c.phase == "waiting")
    conn.execute(_table.update().where(waits).values(error=error, due_at=micros(due_at)))


def give_up(conn: Connection, one: Delivery, error: str) -> None:
    """It is not tried again."""
    waits = sa.and_(_is(one.id, one.channel), _table.c.phase == "waiting")
    conn.execute(_table.update().where(waits).values(error=error, phase="given_up", due_at=None))


def hurry(conn: Connection, now: datetime, channels: Collection[str] | None = None) -> None:
    """Everything that waits is due now: whoever had it is dead, or its channel has changed."""
    waits = _table.c.due_at > micros(now)
    if channels is not None:
        waits = sa.and_(waits, _table.c.channel.in_(list(channels)))
    conn.execute(_table.update().where(waits).values(due_at=micros(now)))


def of_group(conn: Connection, group_id: str) -> list[dict[str, Any]]:
    """What was sent of a group, to which channel, when and with what result, the oldest first."""
    query = sa.select(_table).where(_table.c.group_id == group_id)
    rows = conn.execute(query.order_by(_table.c.created_at, _table.c.id, _table.c.channel)).all()
    return [
        {
            "id": row.id, "channel": row.channel, "what": row.what, "result": row.phase, "attempts": row.attempts,
            "decided_at": from_micros(row.created_at), "sent_at": row.sent_at and from_micros(row.sent_at),
            "again_at": row.due_at and from_micros(row.due_at), "error": row.error,
        }
        for row in rows
    ]  # fmt: skip


def prune(conn: Connection, before: datetime) -> None:
    """Forgets what is over since before then."""
    over = sa.and_(_table.c.due_at.is_(None), _table.c.created_at < micros(before))
    conn.execute(_table.delete().where(over))


def _is(id: str, channel: str) -> sa.ColumnElement[bool]:
    return sa.and_(_table.c.id == id, _table.c.channel == channel)
