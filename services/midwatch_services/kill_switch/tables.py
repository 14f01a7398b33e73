"""kill-switch's tables, as its migrations make them. Times are microseconds since 1970, UTC."""

from datetime import UTC, datetime, timedelta
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


class Key(Table, table=True):
    """A key of the switch, and its last write that was taken."""

    __tablename__ = "kill_switch_keys"

    key: KeyText
    revision: Number
    written_at: Number


class Halt(Table, table=True):
    """A halt with its proof. `target` is empty where it is of everything that the key covers. `ended_by`: the record
    that took its place, at the epoch `ended_epoch`."""

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
    runs_stopped: Number
    cases: Number
    first_case_at: MaybeNumber
    ended_by: MaybeBytes
    ended_epoch: MaybeNumber


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


# Alerts and outcomes


class Alarm(Table, table=True):
    """An alert that is open. `repeats`: how often its condition was met again."""

    __tablename__ = "kill_switch_alarms"

    dedupe_key: KeyText
    alert_id: Text
    agent: Text
    rule: Text
    raised_at: Number
    repeats: Number


class Outcome(Table, table=True):
    """How a live run ended. `failed` is 1 or 0."""

    __tablename__ = "kill_switch_outcomes"

    agent: KeyText
    run_id: KeyText
    finished_at: Number
    failed: Annotated[int, Field(sa_type=sa.SmallInteger)]


# Cases

MaybeText = Annotated[str | None, Field(sa_type=sa.Text)]


class Case(Table, table=True):
    """The case of a run. `body`: it as `opened` or `offered` on the wire, None while the agent's own program has it.
    `taken_run`: the run in which another agent handles it. `asked`: the beginning of what the customer wrote."""

    __tablename__ = "kill_switch_cases"

    case_id: KeyText
    agent: Text
    run_id: Text
    state: Text
    to: Text
    taker: Text
    taken_by: Text
    taken_run: Text
    reference: Text
    opened_by: Text
    mode: Text
    ticket: MaybeText
    key: Text
    epoch: MaybeNumber
    reason: Text
    doubt: Text
    chain: Text
    asked: Text
    opened_at: Number
    updated_at: Number
    due_at: MaybeNumber
    body: MaybeBytes


class CaseStep(Table, table=True):
    """What happened to a case, in order."""

    __tablename__ = "kill_switch_case_history"

    case_id: KeyText
    position: KeyNumber
    at: Number
    who: Text
    what: Text
    note: Text


class Flight(Table, table=True):
    """A run in flight: where in the stream of runs it begins and when it came there, and whose it is."""

    __tablename__ = "kill_switch_flights"

    agent: KeyText
    run_id: KeyText
    first_seq: Number
    stored_at: Number
    instance: Text


class Position(Table, table=True):
    """How far the runs in flight follow a stream."""

    __tablename__ = "kill_switch_positions"

    stream: KeyText
    seq: Number


# Drills


class Drill(Table, table=True):
    """A drill. `result`: what was said of it last, as JSON; None while it runs."""

    __tablename__ = "kill_switch_drills"

    drill_id: KeyText
    agent: Text
    by: Text
    scheduled: Annotated[int, Field(sa_type=sa.SmallInteger)]
    started_at: Number
    result: MaybeBytes


class DrilledAgent(Table, table=True):
    """An agent that has a card. `since`: from when on the days to its first drill count."""

    __tablename__ = "kill_switch_drilled_agents"

    agent: KeyText
    since: Number


# The help desk


class WebhookCall(Table, table=True):
    """What the help desk is told of a case: `opened`, then `closed`. `sent_at`: when it had it; the row then stands
    without its body until the case is closed."""

    __tablename__ = "kill_switch_webhook_calls"

    case_id: KeyText
    event: KeyText
    agent: Text
    body: Bytes
    since: Number
    due_at: Number
    attempts: Number
    sent_at: MaybeNumber
