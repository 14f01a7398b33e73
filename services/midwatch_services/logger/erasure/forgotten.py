"""What an import must not bring back: runs that an erasure covers, and alerts that were erased with them or name one of
their tickets."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy.engine import Connection

from midwatch.contracts.erasure import ErasedRun
from midwatch.contracts.governance import AlertRaised

from . import log, store
from .match import RunKey
from .named import Named
from .store import Work

Hold = Mapping[str, Any]


@dataclass
class Covered:
    """A run of an export that an erasure would have reached, had the log still had it."""

    erasure: str
    asked_at: str
    customer: str | None
    tickets: set[str]

    def is_kept(self, run: RunKey, holds: Sequence[Hold]) -> bool:
        """Whether one of these holds keeps it."""
        own: dict[str, Collection[str | None]] = {
            "agent": {run[0]},
            "run_id": {run[1]},
            "customer": {self.customer},
            "ticket": self.tickets,
        }
        return any(all(hold[name] is None or hold[name] in some for name, some in own.items()) for hold in holds)


@dataclass
class Forgotten:
    """What erasures have erased, as far as the log remembers it. `runs`: with the erasure. `tickets`: with the agent
    whose run named them, and when the last erasure of such a run was asked for. `left`: runs that an erasure covers and
    the log had, so that it is the erasure's to say what becomes of them."""

    works: list[Work] = field(default_factory=list)
    runs: dict[RunKey, str] = field(default_factory=dict)
    tickets: dict[tuple[str, str], str] = field(default_factory=dict)
    alerts: set[str] = field(default_factory=set)
    left: set[RunKey] = field(default_factory=set)

    def learn(self, named: Named) -> dict[RunKey, Covered]:
        """Takes which tickets erased runs named from an export, and gives the runs in it that an erasure covers and
        that were not erased."""
        asked = {work.id: work.asked_at for work in self.works}
        for run, erasure in self.runs.items():
            self._name(run, named.tickets_of(run), asked.get(erasure, ""))
        return covered(named, self.works, self.runs)

    def has_alert(self, row: Mapping[str, Any]) -> bool:
        """Whether an alert was erased, though it may be about another run. Raises MsgspecError."""
        if row["alert_id"] in self.alerts:
            return True
        if not self.tickets:
            return False
        ticket = msgspec.json.decode(row["raised"], type=AlertRaised).ticket
        asked_at = self.tickets.get((row["agent"], ticket or ""))
        return asked_at is not None and (row["raised_at"] or "") <= asked_at

    def remember(self, conn: Connection, some: Mapping[RunKey, Covered], there: Iterable[RunKey]) -> None:
        """From now on these runs are erased as those are that the log had; not those that are `there`."""
        self.left = set(there)
        for run, one in some.items():
            if run not in self.left:
                store.remember(conn, one.erasure, [ErasedRun(agent=run[0], run_id=run[1])])
                self.runs[run] = one.erasure
                self._name(run, one.tickets, one.asked_at)

    def _name(self, run: RunKey, tickets: Iterable[str], asked_at: str) -> None:
        for ticket in tickets:
            key = (run[0], ticket)
            self.tickets[key] = max(asked_at, self.tickets.get(key, ""))


def forgotten(conn: Connection) -> Forgotten:
    """What is remembered now: tickets only of erasures that are under way, alerts of those that are over."""
    found = Forgotten(store.read(conn))
    asked = {work.id: work.asked_at for work in found.works}
    for erasure, run in store.remembered(conn):
        found.runs[run.agent, run.run_id] = erasure
        found._name((run.agent, run.run_id), run.tickets, asked.get(erasure, ""))
    for work in found.works:
        found.alerts |= set((work.proof or {}).get("alerts", ()))
    return found


def covered(named: Named, works: Sequence[Work], erased: Collection[RunKey]) -> dict[RunKey, Covered]:
    """The runs of an export that one of these erasures covers, without those that were erased."""
    found: dict[RunKey, Covered] = {}
    names = _names(named, works)
    for work in works:
        for run in named.reached(*names[work.id], work.asked_at) - set(erased):
            one = Covered(work.id, work.asked_at, named.customer_of(run), named.tickets_of(run))
            found.setdefault(run, one)
    return found


def unsettled(before: Forgotten, now: Forgotten) -> list[Work]:
    """Erasures that were under way, or not asked for yet, at `before`."""
    over = {work.id for work in before.works if work.asked is None}
    return [work for work in now.works if work.id not in over]


def since(named: Named, before: Forgotten, now: Forgotten) -> dict[RunKey, Covered]:
    """The runs of an export that those erasures reach: those that they could not find, and those that they found
    without all their tickets."""
    works = {work.id: work for work in unsettled(before, now)}
    found = covered(named, list(works.values()), before.left | set(before.runs))
    for run, erasure in now.runs.items():
        if run not in before.runs and erasure in works:
            one = Covered(erasure, works[erasure].asked_at, named.customer_of(run), named.tickets_of(run))
            found.setdefault(run, one)
    return found


def without_held(some: Mapping[RunKey, Covered], holds: Sequence[Hold]) -> dict[RunKey, Covered]:
    """Those of the runs that none of these holds keeps."""
    return {run: one for run, one in some.items() if not one.is_kept(run, holds)}


def erase(conn: Connection, some: Mapping[RunKey, Covered], *, at: str, by: str) -> int:
    """Blanks what an import brought of runs after the erasure had looked for them, and has it go on in all other places
    where it had not found them; returns how many events."""
    known = store.erased(conn, some)
    by_erasure: dict[str, list[ErasedRun]] = {}
    for run, one in some.items():
        erased = ErasedRun(agent=run[0], run_id=run[1], tickets=sorted(one.tickets))
        by_erasure.setdefault(known.get(run, one.erasure), []).append(erased)
    count = 0
    for erasure, runs in by_erasure.items():
        store.remember(conn, erasure, [run for run in runs if (run.agent, run.run_id) not in known])
        missed = {(run.agent, run.run_id): run.tickets for run in runs if (run.agent, run.run_id) not in known}
        store.note_late(conn, missed)
        count += len(log.erase(conn, erasure, runs, at=at, by=by).leaves)
    return count


def _names(named: Named, works: Sequence[Work]) -> dict[str, tuple[set[str], set[str]]]:
    """Of each erasure the customers and the tickets in the export that it was asked for by. What one of an earlier
    release was asked for by is known by the hash of all of it: then a name counts as either."""
    found: dict[str, tuple[set[str], set[str]]] = {work.id: (set(), set()) for work in works}
    for kind, place, names in (("customer", 0, named.customers()), ("ticket", 1, named.tickets())):
        wanted = [(work, hashed) for work in works if (hashed := _wanted(work, kind)) is not None]
        for name in names if wanted else ():
            for work, hashed in wanted:
                if store.hashed(work.salt, name) == hashed:
                    found[work.id][place].add(name)
    old = [work for work in works if work.matched is None]
    for customer, ticket in named.pairs() if old else ():
        for work in old:
            if store.hashed(work.salt, customer, ticket) == work.reference:
                found[work.id][0].add(customer)
                found[work.id][1].add(ticket)
    return found


def _wanted(work: Work, kind: str) -> str | None:
    return work.reference if work.matched is None else work.matched.get(kind)
