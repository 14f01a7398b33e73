"""Runs in flight: where in the stream of runs each begins, so that the whole run can be read when it is stopped, and
whose it is, so that it can be found when that process vanishes. No I/O."""

from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from midwatch.contracts.runs import Resolution

from ..registry import RunKey

_KEPT = 100_000  # runs in flight, and ends remembered; the oldest are forgotten first


class Flight(NamedTuple):
    """A run in flight: the sequence of its first event, when the stream had it, and the instance that spoke."""

    first: int
    at: datetime
    instance: str


class Changes(NamedTuple):
    """What is to be saved: how far the stream was followed, the runs that began, and those that are over."""

    seq: int
    begun: dict[RunKey, Flight]
    over: set[RunKey]


class Flights:
    """A run that is not here began before anything was followed, or is over."""

    def __init__(self) -> None:
        self._first: OrderedDict[RunKey, Flight] = OrderedDict()
        self._of: dict[tuple[str, str], set[str]] = {}  # by agent and instance
        self._ended: OrderedDict[RunKey, tuple[Resolution, int | None]] = OrderedDict()
        self._seq = 0
        self._begun: dict[RunKey, Flight] = {}
        self._over: set[RunKey] = set()

    def load(self, seq: int, flights: Mapping[RunKey, Flight]) -> None:
        """Takes what an earlier process had saved."""
        self._seq = seq
        for run, flight in sorted(flights.items(), key=lambda one: one[1].at):
            self._add(run, flight)

    def note(self, run: RunKey, seq: int, at: datetime, instance: str = "", ended: Resolution | None = None) -> None:
        """Takes one event of a run; `ended` of the one that finishes it. What comes later begins nothing."""
        self._seq = max(self._seq, seq)
        if ended is not None:
            self._ended.setdefault(run, (ended, self.first(run)))
            if len(self._ended) > _KEPT:
                self._ended.popitem(last=False)
            self._drop(run)
        elif (known := self._first.get(run)) is not None:
            if seq < known.first:
                self._first[run] = known._replace(first=seq)
                if run in self._begun:
                    self._begun[run] = self._first[run]
        elif run not in self._ended:
            flight = self._begun[run] = Flight(seq, at, instance)
            self._add(run, flight)
            if len(self._first) > _KEPT:
                self._drop(next(iter(self._first)))

    def _add(self, run: RunKey, flight: Flight) -> None:
        self._first[run] = flight
        self._of.setdefault((run[0], flight.instance), set()).add(run[1])

    def _drop(self, run: RunKey) -> None:
        flight = self._first.pop(run, None)
        if flight is None:
            return
        who = (run[0], flight.instance)
        self._of[who].discard(run[1])
        if not self._of[who]:
            del self._of[who]
        if self._begun.pop(run, None) is None:
            self._over.add(run)

    def of(self, agent: str, instance: str, before: datetime) -> list[str]:
        """The runs in flight of an instance that began before `before`."""
        return [run for run in self._of.get((agent, instance), ()) if self._first[agent, run].at < before]

    def get(self, run: RunKey) -> Flight | None:
        """The run, while it is in flight."""
        return self._first.get(run)

    def first(self, run: RunKey) -> int | None:
        """Sequence of the run's first event, where it is known."""
        known = self._first.get(run)
        return known.first if known else self._ended.get(run, (None, None))[1]

    def ended(self, run: RunKey) -> Resolution | None:
        """How the run is remembered to have ended."""
        return self._ended.get(run, (None, None))[0]

    def forget(self, before: datetime) -> None:
        """Drops the runs that began before `before`."""
        for run in [run for run, flight in self._first.items() if flight.at < before]:
            self._drop(run)

    def changes(self) -> Changes:
        """What is new since the last time; to be given back by `unsaved` where it could not be saved."""
        changes = Changes(self._seq, self._begun, self._over)
        self._begun, self._over = {}, set()
        return changes

    def unsaved(self, changes: Changes) -> None:
        self._begun = {run: one for run, one in changes.begun.items() if run in self._first} | self._begun
        self._over = {run for run in changes.over | changes.begun.keys() if run not in self._first} | self._over
