"""Runs in flight, and where in the stream of runs each begins: so that the whole run can be read when it is stopped.
No I/O."""

from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from midwatch.contracts.runs import Resolution

from .registry import RunKey

_KEPT = 100_000  # runs in flight, and ends remembered; the oldest are forgotten first


class Changes(NamedTuple):
    """What is to be saved: how far the stream was followed, the runs that began, and those that are over."""

    seq: int
    begun: dict[RunKey, int]
    over: set[RunKey]


class Flights:
    """A run that is not here began before anything was followed, or is over."""

    def __init__(self) -> None:
        self._first: OrderedDict[RunKey, tuple[int, datetime]] = OrderedDict()
        self._ended: OrderedDict[RunKey, tuple[Resolution, int | None]] = OrderedDict()
        self._seq = 0
        self._begun: dict[RunKey, int] = {}
        self._over: set[RunKey] = set()

    def load(self, seq: int, first: Mapping[RunKey, int], now: datetime) -> None:
        """Takes what an earlier process had saved."""
        self._seq = seq
        self._first.update((run, (at, now)) for run, at in first.items())

    def note(self, run: RunKey, seq: int, at: datetime, ended: Resolution | None = None) -> None:
        """Takes one event of a run; `ended` of the one that finishes it. What comes later begins nothing."""
        self._seq = max(self._seq, seq)
        if ended is not None:
            self._ended.setdefault(run, (ended, self.first(run)))
            if len(self._ended) > _KEPT:
                self._ended.popitem(last=False)
            self._drop(run)
        elif (known := self._first.get(run)) is not None:
            if seq < known[0]:
                self._first[run] = (seq, known[1])
                if run in self._begun:
                    self._begun[run] = seq
        elif run not in self._ended:
            self._first[run] = (seq, at)
            self._begun[run] = seq
            if len(self._first) > _KEPT:
                self._drop(next(iter(self._first)))

    def _drop(self, run: RunKey) -> None:
        if self._first.pop(run, None) is not None and self._begun.pop(run, None) is None:
            self._over.add(run)

    def first(self, run: RunKey) -> int | None:
        """Sequence of the run's first event, where it is known."""
        known = self._first.get(run)
        return known[0] if known else self._ended.get(run, (None, None))[1]

    def ended(self, run: RunKey) -> Resolution | None:
        """How the run is remembered to have ended."""
        return self._ended.get(run, (None, None))[0]

    def forget(self, before: datetime) -> None:
        """Drops the runs that began before `before`."""
        for run in [run for run, (_, at) in self._first.items() if at < before]:
            self._drop(run)

    def changes(self) -> Changes:
        """What is new since the last time; to be given back by `unsaved` where it could not be saved."""
        changes = Changes(self._seq, self._begun, self._over)
        self._begun, self._over = {}, set()
        return changes

    def unsaved(self, changes: Changes) -> None:
        self._begun = {run: seq for run, seq in changes.begun.items() if run in self._first} | self._begun
        self._over = {run for run in changes.over | changes.begun.keys() if run not in self._first} | self._over
