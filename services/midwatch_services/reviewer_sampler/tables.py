"""The sampler's tables, as its migrations make them. Times are Unix seconds, days are UTC's."""

from typing import Annotated, ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

KeyText = Annotated[str, Field(sa_type=sa.Text, primary_key=True)]
Text = Annotated[str, Field(sa_type=sa.Text)]
MaybeText = Annotated[str | None, Field(sa_type=sa.Text)]
Flag = Annotated[int, Field(sa_type=sa.SmallInteger)]
Real = Annotated[float, Field(sa_type=sa.Float(53))]


class Table(SQLModel, registry=registry()):
    """What this service's tables have in common: metadata that no other service sees."""

    __table__: ClassVar[sa.Table]


class Key(Table, table=True):
    """A day's key: whether its hash was published, and whether it was itself."""

    __tablename__ = "reviewer_sampler_keys"

    day: KeyText
    key: Annotated[bytes, Field(sa_type=sa.LargeBinary)]
    committed: Flag
    revealed: Flag


class Run(Table, table=True):
    """A run that was decided, drawn or passed over."""

    __tablename__ = "reviewer_sampler_runs"

    agent: KeyText
    run_id: KeyText
    track: KeyText
    day: Text
    rate: Real
    draw: Real
    drawn: Flag
    seen_at: Real


class Queued(Table, table=True):
    """A run that was drawn for review. `state`: waiting, or erased."""

    __tablename__ = "reviewer_sampler_queue"

    agent: KeyText
    run_id: KeyText
    track: KeyText
    mode: Text
    ticket: MaybeText
    rate: Real
    draw: Real
    day: Text
    key_hash: Text
    sampled_at: Real
    state: Text
