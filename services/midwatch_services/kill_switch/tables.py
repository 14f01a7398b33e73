"""kill-switch's tables, as its migrations make them. Times are microseconds since 1970, UTC."""

from typing import Annotated, ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

KeyText = Annotated[str, Field(sa_type=sa.Text, primary_key=True)]
KeyNumber = Annotated[int, Field(sa_type=sa.BigInteger, primary_key=True)]
Text = Annotated[str, Field(sa_type=sa.Text)]
Number = Annotated[int, Field(sa_type=sa.BigInteger)]
MaybeNumber = Annotated[int | None, Field(sa_type=sa.BigInteger)]
Bytes = Annotated[bytes, Field(sa_type=sa.LargeBinary)]
MaybeBytes = Annotated[bytes | None, Field(sa_type=sa.LargeBinary)]


class Table(SQLModel, registry=registry()):
    """What this service's tables have in common: metadata that no other service sees."""

    __table__: ClassVar[sa.Table]


class Key(Table, table=True):
    """A key of the switch, and its last write that was taken."""

    __tablename__ = "kill_switch_keys"

    key: KeyText
    revision: Number
    written_at: Number


class Halt(Table, table=True):
    """A halt with its proof. `target` is empty where it is of everything that the key covers."""

    __tablename__ = "kill_switch_halts"

    key: KeyText
    target: KeyText
    epoch: KeyNumber
    requested_at: KeyNumber
    record: Bytes
    phase: Text
    contained_at: MaybeNumber
    report: MaybeBytes
    closed_at: MaybeNumber


class Instance(Table, table=True):
    """An instance of an agent. `known`: what its presence last said, as JSON."""

    __tablename__ = "kill_switch_instances"

    agent: KeyText
    instance: KeyText
    seen_at: Number
    known: Bytes


class Run(Table, table=True):
    """A run that has a record in a runs map. `written_at`: when that was first seen."""

    __tablename__ = "kill_switch_runs"

    agent: KeyText
    run_id: KeyText
    written_at: Number
    finished_at: MaybeNumber


class Stray(Table, table=True):
    """A run in flight of an agent without presence. `last_at`: its last event."""

    __tablename__ = "kill_switch_strays"

    agent: KeyText
    run_id: KeyText
    last_at: Number
