"""cost-watchdog's tables, as its migrations make them. Times are Unix seconds."""

from typing import Annotated, ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

KeyText = Annotated[str, Field(sa_type=sa.Text, primary_key=True)]
Seconds = Annotated[int, Field(sa_type=sa.BigInteger)]
Bytes = Annotated[bytes, Field(sa_type=sa.LargeBinary)]


class Table(SQLModel, registry=registry()):
    """What this service's tables have in common: metadata that no other service sees."""

    __table__: ClassVar[sa.Table]


class Run(Table, table=True):
    """A run's state. `waiting_since`: when the oldest event that waits for an earlier one arrived. `stalls_at`: when
    its silence is to be reported."""

    __tablename__ = "cost_watchdog_runs"

    key: KeyText
    agent: Annotated[str, Field(sa_type=sa.Text)]
    finished: Annotated[int, Field(sa_type=sa.SmallInteger)]
    waiting_since: Annotated[float | None, Field(sa_type=sa.Float)]
    touched_at: Seconds
    state: Bytes
    stalls_at: Annotated[float | None, Field(sa_type=sa.Float)]


class Ticket(Table, table=True):
    """A ticket's state."""

    __tablename__ = "cost_watchdog_tickets"

    key: KeyText
    touched_at: Seconds
    state: Bytes


class Reservation(Table, table=True):
    """Money set aside for a call; `open` is 1 while it is charged."""

    __tablename__ = "cost_watchdog_reservations"

    agent: KeyText
    id: KeyText
    open: Annotated[int, Field(sa_type=sa.SmallInteger)]
    ends_at: Annotated[float, Field(sa_type=sa.Float)]
    state: Bytes


class Model(Table, table=True):
    """The state of a model of an agent, of which a call was reported at another cost than its price's."""

    __tablename__ = "cost_watchdog_models"

    key: KeyText
    touched_at: Seconds
    state: Bytes


class Usual(Table, table=True):
    """What is usual for an agent."""

    __tablename__ = "cost_watchdog_usual"

    key: KeyText
    touched_at: Seconds
    state: Bytes


class Writer(Table, table=True):
    """One row: the process that wrote last. `rebuild_next`: the sequence of the stream at which a rebuild
    goes on; NULL where none is under way."""

    __tablename__ = "cost_watchdog_writer"

    id: Annotated[int, Field(sa_type=sa.Integer, primary_key=True)]
    name: Annotated[str | None, Field(sa_type=sa.Text)]
    rebuild_next: Annotated[int | None, Field(sa_type=sa.BigInteger)]
