"""The tables of drift, as its migrations make them. Days are text, YYYY-MM-DD in UTC; times RFC 3339."""

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


class Facts(Table, table=True):
    """A `facts.Facts`, with what is asked for beside it. `events`: how many the log had of the run."""

    __tablename__ = "drift_facts"

    agent: KeyText
    run_id: KeyText
    mode: Text
    version: Text
    ended_at: Text
    events: Number
    body: Bytes


class Day(Table, table=True):
    """A day that is judged, of all agents."""

    __tablename__ = "drift_days"

    day: KeyText
    judged_at: Text


class Judgement(Table, table=True):
    """A `decide.Verdict` without its findings."""

    __tablename__ = "drift_judgements"

    agent: KeyText
    mode: KeyText
    day: KeyText
    against: KeyText
    label: Text
    phase: Text
    recent_runs: Number
    baseline_runs: Number
    least: Number
    tests: Number


class Finding(Table, table=True):
    """A `decide.Finding`; `position` is its place in the verdict."""

    __tablename__ = "drift_findings"

    agent: KeyText
    mode: KeyText
    day: KeyText
    against: KeyText
    position: Annotated[int, Field(sa_type=sa.BigInteger, primary_key=True)]
    cause: Text
    body: Bytes


class Alert(Table, table=True):
    """An alert that stands: an `alerts.Open`. `against` has commas between."""

    __tablename__ = "drift_alerts"

    agent: KeyText
    mode: KeyText
    cause: KeyText
    alert_id: Text
    against: Text
    repeats: Number
