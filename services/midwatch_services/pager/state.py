"""What is known of an alert and of the group of its cause: what the tables hold."""

from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct

from midwatch.contracts.governance import AlertRaised
from midwatch.contracts.reviews import DigestWritten, ReviewSummed

# early: its end or its acknowledgement came first; unsent: nobody is to be told; superseded: raised again under its key
AlertPhase = Literal["early", "unsent", "open", "superseded", "resolved"]


class Alert(Struct, frozen=True, kw_only=True):
    """One alert. `joined`: its place among those of its group, from 1; 0 where somebody took it on before it came."""

    alert_id: str
    phase: AlertPhase
    dedupe_key: str = ""
    group_id: str = ""
    joined: int = 0
    raised_at: datetime | None = None
    resolved_at: datetime | None = None
    acknowledged_at: datetime | None = None
    acknowledged_by: str = ""
    touched_at: datetime


class Group(Struct, frozen=True, kw_only=True):
    """The alerts of one cause, from the first to the end of the last.

    `alert_id`, `title` and what follows them are of the alert that was told. `untold`: open alerts that joined after
    `told_through`, the place of the last that people were told of. `told`: channels that were told anything. `step`:
    how far the chain was gone, -1 for not begun; `rounds`: how often its last step was repeated.
    """

    group_id: str
    key: str
    agent: str
    rule: str
    severity: Literal["page", "ticket"]
    opened_at: datetime
    alert_id: str
    title: str
    run_id: str = ""
    action_taken: str = "none"
    evidence: str = ""
    spared: str = ""  # a channel that is not used: the group is of its death
    open: int = 0
    alerts: int = 0
    repeats: int = 0
    untold: int = 0
    told_through: int = 0
    tellings: int = 0
    told: tuple[str, ...] = ()
    told_at: datetime | None = None
    step: int = -1
    rounds: int = 0
    next_at: datetime | None = None
    held_until: datetime | None = None
    calm_since: datetime | None = None
    refreshed_at: datetime | None = None
    acknowledged_at: datetime | None = None
    acknowledged_by: str = ""
    ended_at: datetime | None = None
    reason: str = ""


class Raised(Struct, frozen=True, kw_only=True):
    """An alert was raised. `waited`: how long the stream held it before it was read."""

    data: AlertRaised
    at: datetime
    waited: timedelta
    spared: str = ""


class Acknowledged(Struct, frozen=True, kw_only=True):
    """A person takes an alert on."""

    alert_id: str
    by: str
    at: datetime


class Resolved(Struct, frozen=True, kw_only=True):
    """The condition of an alert has ended."""

    alert_id: str
    reason: str
    at: datetime


class Written(Struct, frozen=True, kw_only=True):
    """A digest, or a week's note of corrections, was written. `waited`: how long the stream held it before it was
    read."""

    data: DigestWritten | ReviewSummed
    waited: timedelta = timedelta(0)


Event = Raised | Acknowledged | Resolved
