"""When a person is told that runs wait too long to be read. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b

from msgspec import Struct

from .policy import AGEING


class Open(Struct, frozen=True):
    """The alert that stands. `newest`: of the runs that it is about, when the last one began to wait."""

    alert_id: str
    newest: float
    repeats: int = 0


@dataclass(frozen=True, slots=True)
class Raise:
    """A person is told. `days`: for which the oldest has waited."""

    alert_id: str
    agent: str
    title: str
    days: float
    limit: float


@dataclass(frozen=True, slots=True)
class Resolve:
    """None waits too long any more."""

    alert_id: str
    agent: str
    reason: str
    repeats: int


Decision = Raise | Resolve


def follow(
    agent: str, standing: Open | None, waits: Sequence[float], age: float, now: datetime
) -> tuple[Open | None, Decision | None]:
    """`waits`: since when each run waits, Unix seconds. A run that comes of age while the alert stands is a repeat."""
    old = sorted(since for since in waits if now.timestamp() - since > age)
    if not old:
        if standing is None:
            return None, None
        reason = f"no run of {agent} has waited for longer than {_time(age)}"
        return None, Resolve(standing.alert_id, agent, reason, standing.repeats)
    if standing is not None:
        more = sum(since > standing.newest for since in old)
        after = Open(standing.alert_id, max(standing.newest, old[-1]), standing.repeats + more)
        return after, None
    alert_id = blake2b(f"{AGEING}\0{agent}\0{now.isoformat()}".encode(), digest_size=16).hexdigest()
    days = (now.timestamp() - old[0]) / 86_400
    count = f"{len(old)} runs of {agent} have" if len(old) > 1 else f"A run of {agent} has"
    title = f"{count} waited for a reviewer for longer than {_time(age)}, the oldest for {_time(days * 86_400)}"
    return Open(alert_id, old[-1]), Raise(alert_id, agent, title, days, age / 86_400)


def _time(seconds: float) -> str:
    days = seconds / 86_400
    if days < 1:
        return f"{seconds / 3600:.1f} hours"
    return f"{days:.1f} days".replace(".0 ", " ") if days != 1 else "1 day"
