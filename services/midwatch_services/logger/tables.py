"""The run log's tables, as its migrations make them. Times are text in UTC, durations microseconds."""

from typing import Annotated, ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

KeyText = Annotated[str, Field(sa_type=sa.Text, primary_key=True)]
Text = Annotated[str, Field(sa_type=sa.Text)]
MaybeText = Annotated[str | None, Field(sa_type=sa.Text)]
Number = Annotated[int, Field(sa_type=sa.BigInteger)]
KeyNumber = Annotated[int, Field(sa_type=sa.BigInteger, primary_key=True)]
Bytes = Annotated[bytes, Field(sa_type=sa.LargeBinary)]
MaybeBytes = Annotated[bytes | None, Field(sa_type=sa.LargeBinary)]
MaybeNumber = Annotated[int | None, Field(sa_type=sa.BigInteger)]


class Table(SQLModel, registry=registry()):
    """What this service's tables have in common: metadata that no other service sees."""

    __table__: ClassVar[sa.Table]


class Event(Table, table=True):
    """An event as it was published, redacted, with what queries ask for beside it.

    `place`: see `places.py`. `month`: that in which the first event of its run was stored, so that a run stands in one
    partition. `salt`, `leaf`: see `evidence/leaf.py`; None for what was stored before there were any, `salt` also for
    what was erased.
    """

    __tablename__ = "logger_events"

    agent: KeyText
    id: KeyText
    run_id: Text
    event: Text
    seq: Number
    time: Text
    stored_at: Text
    mode: Text
    version: Text
    ticket: MaybeText
    note: MaybeText
    body: Text
    place: Number
    month: KeyText
    salt: MaybeBytes
    leaf: MaybeBytes


class Stream(Table, table=True):
    """A stream that the log has read: its number, from 1, and when the server made it."""

    __tablename__ = "logger_streams"

    number: KeyNumber
    created: Text


class Run(Table, table=True):
    """A `decide.RunRow`: its fields in their order."""

    __tablename__ = "logger_runs"

    agent: KeyText
    run_id: KeyText
    month: Text
    stored_at: Text
    head_key: Text
    version: Text
    mode: Text
    ticket_key: Text
    ticket: MaybeText
    session_key: Text
    session: MaybeText
    started_key: Text
    started_id: MaybeText
    started_at: MaybeText
    channel: MaybeText
    customer: MaybeText
    finished_key: Text
    finished_id: MaybeText
    ended_at: MaybeText
    resolution: MaybeText
    error: MaybeText
    halted_by: MaybeText
    epoch: MaybeNumber
    handed_off_key: Text
    handed_off_to: MaybeText
    handed_off_reason: MaybeText
    first_at: Text
    last_at: Text
    cost_usd: MaybeText
    cost_basis: MaybeText
    input_tokens: Number
    output_tokens: Number
    model_calls: Number
    model_errors: Number
    tool_calls: Number
    tool_errors: Number
    messages: Number
    events: Number
    model_us: Number
    tool_us: Number
    unpriced_calls: Number
    differing_calls: Number
    differing_reported_usd: MaybeText
    differing_computed_usd: MaybeText


class Alert(Table, table=True):
    """A `decide.AlertRow`: its fields in their order."""

    __tablename__ = "logger_alerts"

    alert_id: KeyText
    raised_key: Text
    raised_at: MaybeText
    service: MaybeText
    agent: MaybeText
    run_id: MaybeText
    rule: MaybeText
    action_taken: MaybeText
    raised: MaybeText
    acknowledged_key: Text
    acknowledged_at: MaybeText
    acknowledged_by: MaybeText
    resolved_key: Text
    resolved_at: MaybeText
    resolved_reason: MaybeText
    repeats: Number


class Hold(Table, table=True):
    """A `keeping.decide.HoldRow`: its fields in their order. No row of it is ever removed."""

    __tablename__ = "logger_holds"

    hold_id: KeyText
    placed_key: Text
    placed_at: MaybeText
    placed_by: MaybeText
    reason: MaybeText
    agent: MaybeText
    run_id: MaybeText
    ticket: MaybeText
    customer: MaybeText
    until: MaybeText
    lifted_key: Text
    lifted_at: MaybeText
    lifted_by: MaybeText
    lifted_reason: MaybeText


class Export(Table, table=True):
    """An export that was made of the log: where it lies, and by which filter. Times are text in UTC."""

    __tablename__ = "logger_exports"

    id: KeyText
    made_at: Text
    made_by: Text
    host: Text
    path: Text
    format: Text
    agent: MaybeText
    run_id: MaybeText
    since: MaybeText
    until: MaybeText
    runs: Number
    events: Number
    alerts: Number


class Pass(Table, table=True):
    """Up to which time retention has counted. One row, of the name `retention`."""

    __tablename__ = "logger_passes"

    name: KeyText
    counted_to: Text


class Block(Table, table=True):
    """An `evidence.chain.Block`: its fields in their order."""

    __tablename__ = "logger_blocks"

    agent: KeyText
    number: KeyNumber
    kind: Text
    first_place: Number
    last_place: Number
    count: Number
    leaves: Bytes
    note: Text
    root: Bytes
    previous: Bytes
    head: Bytes
    made_at: Text


class Cursor(Table, table=True):
    """How far each follower of the log has come."""

    __tablename__ = "logger_cursors"

    name: KeyText
    place: Number


class Late(Table, table=True):
    """An event that was stored at a place which the sequencer had passed, until it is chained."""

    __tablename__ = "logger_late"

    place: KeyNumber
    agent: KeyText
    leaf: Bytes


class Checkpoint(Table, table=True):
    """A signed checkpoint: `line` is all of it, as it is sent out."""

    __tablename__ = "logger_checkpoints"

    number: KeyNumber
    at: Text
    line: Text


class CheckpointHead(Table, table=True):
    """Which checkpoint names a block of an agent's chain."""

    __tablename__ = "logger_checkpoint_heads"

    agent: KeyText
    block: KeyNumber
    checkpoint: Number


class Unread(Table, table=True):
    """A run of which something is not read into the index yet; see `search/index_store.py`."""

    __tablename__ = "logger_unread"

    agent: KeyText
    run_id: KeyText
    since: Text
    touched: Text
    done: Number
    times: Number


class Reading(Table, table=True):
    """One run as it was read: `tools` is {name: calls} as JSON. `number` grows with the time at which the run began.

    `text`: SQLite's, the words of the run, packed, without which they cannot be taken out of the index. PostgreSQL has
    them in a column `words`.
    """

    __tablename__ = "logger_readings"

    number: Annotated[
        int, Field(sa_column=sa.Column(sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True))
    ]
    agent: Text
    run_id: Text
    events: Number
    tools: Text
    text: MaybeBytes


class Review(Table, table=True):
    """A `reviews.ReviewRow`: its fields in their order."""

    __tablename__ = "logger_reviews"

    agent: KeyText
    run_id: KeyText
    sampled_key: Text
    sampled_at: MaybeText
    judged_key: Text
    judged_at: MaybeText
    judged_by: MaybeText
    verdict: MaybeText
    note: MaybeText
