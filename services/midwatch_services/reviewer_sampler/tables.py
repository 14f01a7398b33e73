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
MaybeReal = Annotated[float | None, Field(sa_type=sa.Float(53))]


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
    """A run that was decided, drawn or passed over. `version`: of its first event, empty of runs decided before that
    was kept; so `decided_at`, 0."""

    __tablename__ = "reviewer_sampler_runs"

    agent: KeyText
    run_id: KeyText
    track: KeyText
    day: Text
    rate: Real
    draw: Real
    drawn: Flag
    seen_at: Real
    version: Text = ""
    decided_at: Real = 0.0


class Queued(Table, table=True):
    """A run that people are to read. `key_hash`: empty while the run itself was not seen. `drawn`: by the hash, 1, or
    for another cause alone, 0. `causes`: why it is read besides, as a JSON list. `due_day`: on which there is time for
    it. `second`: 1 where the hash asks for two judges, 2 where a fail does. `state`: waiting, judged (another is to
    judge it as well), disputed (a third is), settled, or erased. `verdict`: the one that stands."""

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
    drawn: Flag = 1
    causes: Text = "[]"
    version: Text = ""
    due_day: Text = ""
    second: Flag = 0
    verdict: MaybeText = None
    settled_at: MaybeReal = None


class Claim(Table, table=True):
    """Who holds a run, until when. It ends when the run is judged, released, or the time is over."""

    __tablename__ = "reviewer_sampler_claims"

    claim: KeyText
    agent: Text
    run_id: Text
    track: Text
    by: Text
    taken_at: Real
    until: Real
    over: Flag


class Judgement(Table, table=True):
    """What one person said of a run. `counts`: 0 where the run wanted no more judges: it is kept and settles nothing.
    `reasons`: a JSON list. `seconds`: of reading."""

    __tablename__ = "reviewer_sampler_judgements"

    agent: KeyText
    run_id: KeyText
    track: KeyText
    by: KeyText
    event: Text
    claim: Text
    verdict: Text
    reasons: Text
    corrected: Text
    note: Text
    seconds: MaybeReal
    judged_at: Real
    counts: Flag


class Schedule(Table, table=True):
    """Where an agent stands in its schedule: the state of `schedule/decide.py`, as msgpack."""

    __tablename__ = "reviewer_sampler_schedules"

    agent: KeyText
    body: Annotated[bytes, Field(sa_type=sa.LargeBinary)]


class Ageing(Table, table=True):
    """The alert that stands because runs of an agent wait too long: an `ageing.Open`, as msgpack."""

    __tablename__ = "reviewer_sampler_ageing"

    agent: KeyText
    body: Annotated[bytes, Field(sa_type=sa.LargeBinary)]
