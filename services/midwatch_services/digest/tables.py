"""The digests that were written, as the migrations make their table. Times are microseconds since 1970, UTC."""

from typing import Annotated, ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

KeyText = Annotated[str, Field(sa_type=sa.Text, primary_key=True)]
Text = Annotated[str, Field(sa_type=sa.Text)]
Number = Annotated[int, Field(sa_type=sa.BigInteger)]
Bytes = Annotated[bytes, Field(sa_type=sa.LargeBinary)]


class Table(SQLModel, registry=registry()):
    """What this service's tables have in common: metadata that no other service sees."""

    __table__: ClassVar[sa.Table]


class Written(Table, table=True):
    """A digest as it was published: `body` is the event's data."""

    __tablename__ = "digest_written"

    day: KeyText
    agent: KeyText
    title: Text
    words: Number
    written_at: Number
    body: Bytes


class Named(Table, table=True):
    """A run that a digest names or quotes."""

    __tablename__ = "digest_runs"

    run_agent: KeyText
    run_id: KeyText
    day: KeyText
    agent: KeyText


class Day(Table, table=True):
    """A day of which every digest was written."""

    __tablename__ = "digest_days"

    day: KeyText
    done_at: Number
