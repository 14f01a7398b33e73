"""Setting money aside before a call is made: what the SDK asks, and what cost-watchdog answers. Core NATS, plain JSON.

A request has the id of its reservation, which is the agent's own: the same request again gets the same answer.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from .money import Money
from .runs import RunId

Scope = Literal["ticket", "hour", "day", "fleet"]

ReservationId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Unique for ever for its agent")]
ShortName = Annotated[str, Meta(max_length=256)]
Price = Annotated[Money, Meta(description="US dollars for a million tokens")]

REQUEST_LIMIT = 16 * 1024  # bytes of one request
LEASE = 60.0  # seconds for which a reservation stands; asking again renews it


class Reserve(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Asks that `ceiling`, the most that a call can cost, be set aside. Without one cost-watchdog says what it takes
    the call to cost."""

    id: ReservationId
    run_id: RunId
    ticket: str | None = None
    provider: ShortName | None = None
    model: ShortName | None = None
    ceiling: Money | None = None


class Rates(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the list says of a model, at its dearest tier."""

    input: Price
    output: Price


class Reserved(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to Reserve. Refused, it names the budget that could be passed: its limit, what is spent of it, and
    what is set aside for other calls. `error`: the request was not judged, for this reason (`malformed`, `oversized`,
    `unavailable`, `too_many`, `over`)."""

    id: str = ""
    granted: bool = False
    ceiling: Money | None = None
    seconds: float | None = None  # for which it stands
    budget: Scope | None = None
    limit: Money | None = None
    spent: Money | None = None
    reserved: Money | None = None
    reason: str = ""
    rates: Rates | None = None
    error: str | None = None


class Commit(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Says what a call cost. Its event in the run log says so as well, and has the last word."""

    id: ReservationId
    cost: Money


class Committed(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to Commit. `known`: the reservation was open."""

    id: str = ""
    known: bool = False
    reason: str = ""
    error: str | None = None


def encode(value: Any) -> bytes:
    """Any of these structs as the JSON that stands on the wire."""
    return msgspec.json.encode(value)
