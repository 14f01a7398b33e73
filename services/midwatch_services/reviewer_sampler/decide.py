"""Whether a run is drawn: by a keyed hash of its name alone, so that nothing it does later can change it."""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from midwatch.contracts.runs import Mode

from .policy import Policy

Track = Literal["live", "replay"]


class Run(NamedTuple):
    """A run as it is drawn. A replay of it is a run of its own, on the track `replay`."""

    agent: str
    run_id: str
    track: Track


@dataclass(frozen=True, slots=True)
class FirstSeen:
    """The first event that was seen of a run, whichever it is. `day`: UTC day on which the server stored it."""

    run: Run
    mode: Mode
    ticket: str | None
    day: str
    stored_at: float  # Unix seconds
    traceparent: str | None = None
    version: str = ""


@dataclass(frozen=True, slots=True)
class DayKey:
    """The key that draws on `day` (YYYY-MM-DD, UTC)."""

    day: str
    key: bytes

    @property
    def hash(self) -> str:
        """SHA-256 of the key, in hex: what is published before the first draw."""
        return hashlib.sha256(self.key).hexdigest()


@dataclass(frozen=True, slots=True)
class Drawn:
    """The run is read by people: `draw` < `rate`."""

    first: FirstSeen
    rate: float
    draw: float
    key_hash: str


@dataclass(frozen=True, slots=True)
class PassedOver:
    """The run is not read: `draw` >= `rate`."""

    first: FirstSeen
    rate: float
    draw: float
    key_hash: str


Decision = Drawn | PassedOver


def track_of(mode: str) -> Track:
    """Replays are counted apart from everything else."""
    return "replay" if mode == "replay" else "live"


def name_of(agent: str, run_id: str, mode: str) -> Run:
    """The run that an event belongs to. PostgreSQL stores no NUL, so an id with one is known as the log knows it."""
    return Run(agent, run_id.replace("\0", "\ufffd") if "\0" in run_id else run_id, track_of(mode))


def draw(key: bytes, run: Run) -> float:
    """HMAC-SHA256 of `agent NUL run_id` under the day's key: its first 53 bits as a number from 0 up to 1.

    Of a replay `replay NUL` stands before that: replaying a run does not tell how the run itself would be drawn.
    """
    name = f"{run.agent}\0{run.run_id}"
    text = name if run.track == "live" else f"{run.track}\0{name}"
    digest = hmac.digest(key, text.encode(), "sha256")
    return (int.from_bytes(digest[:8], "big") >> 11) / (1 << 53)


def decide(first: FirstSeen, policy: Policy, key: DayKey) -> Decision:
    """Draws one run. It depends on the key, the run's name and the rate, and on nothing else."""
    value = draw(key.key, first.run)
    kind = Drawn if value < policy.rate else PassedOver
    return kind(first, policy.rate, value, key.hash)


def decide_all(firsts: Sequence[FirstSeen], rates: Sequence[float], keys: Mapping[str, DayKey]) -> list[Decision]:
    """Draws each run at the rate in its place, `keys` by day."""
    return [decide(first, Policy(rate), keys[first.day]) for first, rate in zip(firsts, rates, strict=True)]
