"""Runs in flight: where in the stream of runs each begins, so that the whole run can be read when it is stopped, and
whose it is, so that it can be found when that process vanishes. No I/O."""

from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from midwatch.contracts.runs import Resolution

from ..registry import RunKey

_KEPT = 100_000  # runs in flight, and ends remembered; the oldest are forgotten first
_STOPPED = 10_000  # runs that were stopped and of which the sequences are remembered
_A_RUN = 2048  # sequences of one run; a case carries fewer events
_IN_ALL = 2_000_000  # sequences of all runs, of 8 bytes; a run that goes on beyond keeps `_SCARCE`
_SCARCE = 64


class Flight(NamedTuple):
    """A run in flight: the sequence of its first event, when the stream had it, and the instance that spoke."""

    first: int
    at: datetime
    instance: str


class Path:
    """Where in the stream a run's events are: all from its first on, except for `skipped` after the first."""

    __slots__ = ("seqs", "skipped")

    def __init__(self, first: int) -> None:
        self.seqs = array("Q", (first,))
        self.skipped = 0

    def add(self, seq: int, limit: int) -> int:
        """Takes one more, and leaves out older ones beyond the limit. Returns how many more there are now."""
        before, seqs = len(self.seqs), self.seqs
        if seq > seqs[-1]:
            seqs.append(seq)
        elif seqs[at := bisect_left(seqs, seq)] != seq:
            seqs.insert(at, seq)
        if len(seqs) > limit:
            half = len(seqs) // 2  # not one by one: each time the rest is moved
            del seqs[1 : 1 + half]
            self.skipped += half
        return len(seqs) - before


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
        self._paths: dict[RunKey, Path] = {}  # of runs in flight that were heard from their first event on
        self._stopped: OrderedDict[RunKey, Path] = OrderedDict()  # and of those that somebody stopped
        self._remembered = 0  # sequences in all paths
        self._seq = 0
        self._begun: dict[RunKey, Flight] = {}
        self._over: set[RunKey] = set()

    def load(self, seq: int, flights: Mapping[RunKey, Flight]) -> None:
        """Takes what an earlier process had saved."""
        self._seq = seq
        for run, flight in sorted(flights.items(), key=lambda one: one[1].at):
            self._add(run, flight)

    def note(
        self, run: RunKey, seq: int, at: datetime, instance: str = "", ended: Resolution | None = None, *,
        begins: bool = False,
    ) -> None:  # fmt: skip
        """Takes one event of a run: `begins` of its first, `ended` of the one that finishes it. What comes after that
        begins nothing."""
        self._seq = max(self._seq, seq)
        if (path := self._paths.get(run) or self._stopped.get(run)) is not None:
            self._remembered += path.add(seq, _A_RUN if self._remembered < _IN_ALL else _SCARCE)
        if ended is not None:
            self._end(run, ended)
        elif (known := self._first.get(run)) is not None:
            if seq < known.first:
                self._first[run] = known._replace(first=seq)
                if run in self._begun:
                    self._begun[run] = self._first[run]
        elif run not in self._ended:
            flight = self._begun[run] = Flight(seq, at, instance)
            self._add(run, flight)
            if begins:
                self._paths[run] = Path(seq)
                self._remembered += 1
            if len(self._first) > _KEPT:
                self._drop(next(iter(self._first)))

    def _end(self, run: RunKey, ended: Resolution) -> None:
        self._ended.setdefault(run, (ended, self.first(run)))
        if len(self._ended) > _KEPT:
            self._ended.popitem(last=False)
        if ended in ("halted", "fell_back") and (path := self._paths.pop(run, None)) is not None:
            self._stopped[run] = path
            if len(self._stopped) > _STOPPED:
                self._remembered -= len(self._stopped.popitem(last=False)[1].seqs)
        self._drop(run)

    def _add(self, run: RunKey, flight: Flight) -> None:
        self._first[run] = flight
        self._of.setdefault((run[0], flight.instance), set()).add(run[1])

    def _drop(self, run: RunKey) -> None:
        if (path := self._paths.pop(run, None)) is not None:
            self._remembered -= len(path.seqs)
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

    def path(self, run: RunKey) -> Path | None:
        """Where the run's events are that were heard so far, where it was heard from its first on: while it is in
        flight, and for some time after it was stopped."""
        return self._paths.get(run) or self._stopped.get(run)

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
