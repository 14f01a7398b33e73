"""The pager's tables, as its migrations make them. Times are microseconds since 1970, UTC."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

KeyText = Annotated[str, Field(sa_type=sa.Text, primary_key=True)]
Text = Annotated[str, Field(sa_type=sa.Text)]
MaybeText = Annotated[str | None, Field(sa_type=sa.Text)]
Number = Annotated[int, Field(sa_type=sa.BigInteger)]
MaybeNumber = Annotated[int | None, Field(sa_type=sa.BigInteger)]
Bytes = Annotated[bytes, Field(sa_type=sa.LargeBinary)]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(at: datetime) -> int:
    """A time as a table holds it."""
    return (at - EPOCH) // timedelta(microseconds=1)


def from_micros(value: int) -> datetime:
    """A time as a table held it."""
    return EPOCH + timedelta(microseconds=value)


class Table(SQLModel, registry=registry()):
    """What this service's tables have in common: metadata that no other service sees."""

    __table__: ClassVar[sa.Table]


class Alert(Table, table=True):
    """A `state.Alert`, with what is asked for beside it."""

    __tablename__ = "pager_alerts"

    alert_id: KeyText
    phase: Text
    group_id: Text
    dedupe_key: Text
    touched_at: Number
    state: Bytes


class Group(Table, table=True):
    """A `state.Group`. `ended_at` is empty while it lives."""

    __tablename__ = "pager_groups"

    group_id: KeyText
    key: Text
    ended_at: MaybeNumber
    state: Bytes


class Delivery(Table, table=True):
    """One message to one channel; of those that are due the least `urgency` goes first. `due_at` is empty once its
    phase is other than `waiting`; while an attempt is under way, it is when another may be made."""

    __tablename__ = "pager_deliveries"

    id: KeyText
    channel: KeyText
    group_id: Text
    what: Text
    urgency: Number
    phase: Text
    created_at: Number
    due_at: MaybeNumber
    attempts: Number
    tried_at: MaybeNumber
    sent_at: MaybeNumber
    error: MaybeText
    body: Bytes


class Channel(Table, table=True):
    """How a channel of pager.yaml does. `dead_at` is empty while it works."""

    __tablename__ = "pager_channels"

    channel: KeyText
    failures: Number
    failing_since: MaybeNumber
    dead_at: MaybeNumber
    alert_id: MaybeText
    error: MaybeText
