"""One key of the switch as this process knows it, and the clock by which that is fresh. No I/O."""

import time
from collections.abc import Callable
from typing import NamedTuple

from .contracts import control
from .contracts.control import SwitchRecord

LEASE = "lease"  # stands as the key of a halt that no record caused: the switch could not be read
ROUTE = "route"  # stands as the key of a halt by the agent's route
BUDGET = "budget"  # stands as the key of a halt by a budget
NEVER = float("-inf")
FOREVER = float("inf")

# Called as `gettime(*CLOCK)`: a ready tuple spares a quarter of what reading the clock costs.
gettime: Callable[..., float] = time.monotonic
CLOCK: tuple[int, ...] = ()
if hasattr(time, "CLOCK_BOOTTIME"):
    gettime, CLOCK = time.clock_gettime, (time.CLOCK_BOOTTIME,)


def clock() -> float:
    """Seconds that, on Linux, also pass while the machine sleeps: a lease must not outlive a suspended laptop."""
    return gettime(*CLOCK)


class Gate:
    """Until when, by `clock`, all may pass without a closer look: the one comparison that a call pays."""

    __slots__ = ("until",)

    def __init__(self, until: float) -> None:
        self.until = until


OPEN, CLOSED = Gate(FOREVER), Gate(NEVER)


class Halt(NamedTuple):
    """Why a run may not go on. `epoch` is the revision of the key that says so."""

    key: str
    reason: str
    by: str
    epoch: int | None = None
    fallback: str | None = None


class Answer(NamedTuple):
    """What one direct get of a key said. `written` is the server's time in nanoseconds; `value` None: no such key.

    A deleted key has a revision and a time, a key that never was has neither.
    """

    revision: int
    written: int
    value: bytes | None


class Key:
    """One key of the switch as this process knows it."""

    __slots__ = ("absent_since", "asked", "everything", "floor", "is_map", "name", "revision", "some", "value")

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_map = name.startswith(("tools.", "runs."))
        self.revision = 0  # applied
        self.floor = (0, 0)  # server time and revision below which an answer is stale
        self.value: bytes | None = None
        self.everything: Halt | None = None
        self.some: dict[str, Halt] = {}
        self.asked = NEVER  # when the last good answer was asked for
        self.absent_since: float | None = None

    @property
    def halts(self) -> bool:
        """Whether anything is halted by this key."""
        return self.everything is not None or bool(self.some)

    def take(self, answer: Answer, asked: float, lease: float) -> bool:
        """Applies an answer unless it is older than what is known. Whether it was good (new or still the same)."""
        everything, some = self._judge(answer)
        stamp = (answer.written, answer.revision)
        if answer.revision == 0:
            # A replica that lags also says "no such key": it must say so for a whole lease to lift a halt of a map.
            self.absent_since = asked if self.absent_since is None else self.absent_since
            if self.is_map and self.halts and asked - self.absent_since < lease:
                return False
        else:
            self.absent_since = None
            if stamp < self.floor and not (answer.revision > self.floor[1] and (everything or some)):
                return False
            self.floor = stamp
        self.asked = max(self.asked, asked)
        self.revision, self.value = answer.revision, answer.value
        self.everything, self.some = everything, some
        return True

    def _judge(self, answer: Answer) -> tuple[Halt | None, dict[str, Halt]]:
        if answer.revision and (answer.written, answer.revision) == self.floor and answer.value == self.value:
            return self.everything, self.some  # nothing new: the common case, each second
        if self.is_map:
            return self._judge_map(answer)
        if answer.value is None:
            gone = "was deleted" if answer.revision else "was never written"
            return Halt(self.name, f"the switch key {self.name} {gone}", "", answer.revision or None), {}
        record = control.decode_record(answer.value)
        if record is None:
            return Halt(self.name, f"the switch key {self.name} cannot be read", "", answer.revision), {}
        return (self._halt(record, answer) if record.state == "halted" else None), {}

    def _judge_map(self, answer: Answer) -> tuple[Halt | None, dict[str, Halt]]:
        if answer.value is None:
            return None, {}
        records = control.decode_map(answer.value)
        if records is None:
            return Halt(self.name, f"the switch key {self.name} cannot be read", "", answer.revision), {}
        return None, {name: self._halt(r, answer) for name, r in records.items() if r.state == "halted"}

    def _halt(self, record: SwitchRecord, answer: Answer) -> Halt:
        return Halt(self.name, record.reason, record.by, answer.revision, record.fallback)
