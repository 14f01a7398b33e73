"""The erasure of one customer: what is asked, what it comes to, and each service's word that it has done it."""

from typing import Annotated

from msgspec import Meta, Struct

from .runs import AgentName, RunId

ErasureId = Annotated[str, Meta(pattern=r"^er-[0-9a-f]{12}$")]


class ErasureRequested(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything of a customer, of a ticket, or of one run (`run_id` with `agent`) is to be erased. The message is
    deleted once that is done."""

    erasure_id: ErasureId
    by: str
    reason: str
    customer: str | None = None
    ticket: str | None = None
    agent: AgentName | None = None
    run_id: RunId | None = None


class ErasedRun(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run that is to be erased; the tickets that it named go with it."""

    agent: AgentName
    run_id: RunId
    tickets: list[str] = []
    finished: bool = False


class ErasureResolved(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Some of the runs of an erasure, which comes in parts, and the alerts about them. `upto`: the sequence of
    MIDWATCH_RUNS up to which a service must have read before it erases. Deleted once all of it is done."""

    erasure_id: ErasureId
    part: Annotated[int, Meta(ge=1)]
    runs: list[ErasedRun]
    alerts: list[str] = []
    upto: Annotated[int, Meta(ge=0)]


class ErasureErased(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A service has erased a part from its tables, and its database's files no longer hold it. `counts`: of what."""

    erasure_id: ErasureId
    part: Annotated[int, Meta(ge=1)]
    service: str
    counts: dict[str, int] = {}


class ErasureCompleted(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Every place has confirmed, or is named in the proof as left to a person. `reference`: HMAC-SHA-256 of what was
    matched under `salt`. `proof`: SHA-256 of the proof, which the agents' chains hold too."""

    erasure_id: ErasureId
    reference: str
    salt: str
    runs: int
    events: int
    proof: str
