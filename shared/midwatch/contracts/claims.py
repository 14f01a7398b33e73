"""Holding a run to judge it: what a reviewer asks, and what reviewer-sampler answers. Core NATS, plain JSON."""

from typing import Annotated

from msgspec import Meta, Struct

from .envelope import Time
from .runs import AgentName, Mode, RunId

ClaimId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="The reviewer's own, unique for ever")]
Reviewer = Annotated[str, Meta(min_length=1, max_length=128)]

REQUEST_LIMIT = 16 * 1024  # bytes of one request


class Take(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Asks for the next run that this person may judge, or for `run_id`. The same `claim` again gets the same answer.
    `skip`: runs that the person does not want now."""

    claim: ClaimId
    by: Reviewer
    agent: AgentName | None = None
    run_id: RunId | None = None
    skip: list[str] = []


class Hold(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Asks to extend a claim, or to release it."""

    claim: ClaimId
    by: Reviewer


class Taken(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer. Without `run_id` there is none: `reason` says why, in words for people. `until`: when the claim
    ends; `seconds_left`: until then as this was answered, for whoever has another clock. `left`: how many more wait
    for this person. `minutes_left`: of today's time for this agent; None without limit. `error`: the request was not
    judged (`malformed`, `oversized`, `unavailable`)."""

    claim: str = ""
    agent: str = ""
    run_id: str = ""
    mode: Mode = "live"
    ticket: str | None = None
    until: Time | None = None
    seconds_left: float | None = None
    reasons: list[str] = []  # what a fail may be called
    left: int = 0
    minutes_left: float | None = None
    reason: str = ""
    error: str | None = None
