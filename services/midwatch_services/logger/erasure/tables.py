"""The tables of erasures. Times are text in UTC."""

from typing import Annotated

import sqlalchemy as sa
from sqlmodel import Field

from ..tables import KeyText, MaybeNumber, MaybeText, Table, Text


class Erasure(Table, table=True):
    """One erasure. `asked`: what to match, None once it is done; `reference`: its HMAC-SHA-256 under `salt`;
    `matched`: one of each kind, as JSON, None for what an earlier release had done. `places`: what was erased where,
    as JSON; `proof`: the whole, as it is hashed into the chains. `upto`, `governance`: how far the streams were swept.
    """

    __tablename__ = "logger_erasures"

    id: KeyText
    phase: Text
    asked: MaybeText
    by: Text
    reason: Text
    asked_at: Text
    salt: Text
    reference: Text
    upto: MaybeNumber
    governance: MaybeNumber
    places: Text
    proof: MaybeText
    done_at: MaybeText
    matched: MaybeText


class ErasedRun(Table, table=True):
    """A run that was erased: what still comes of it is erased when it comes. `late`: 1 where something has come
    that is still to be erased elsewhere. `tickets`: those that it named, as JSON, until the erasure is done."""

    __tablename__ = "logger_erased_runs"

    agent: KeyText
    run_id: KeyText
    erasure: Text
    late: Annotated[int, Field(sa_type=sa.SmallInteger)]
    tickets: Text


class Part(Table, table=True):
    """Some runs of an erasure, as the services are told of them. `runs`, `alerts`: JSON, empty once all have confirmed
    it. `upto`: see `ErasureResolved`; None until it is told. `confirmed`: counts by service, as JSON."""

    __tablename__ = "logger_erasure_parts"

    erasure: KeyText
    part: Annotated[int, Field(sa_type=sa.BigInteger, primary_key=True)]
    runs: Text
    alerts: Text
    upto: MaybeNumber
    confirmed: Text
