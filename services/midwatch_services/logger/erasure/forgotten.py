"""What an import must not bring back: runs that an erasure covers, and alerts that were erased with them or name one of
their tickets."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy.engine import Connection

from midwatch.contracts.erasure import ErasedRun
from midwatch.contracts.governance import AlertRaised

from . import store
from .match import RunKey
from .store import Work


@dataclass
class Covered:
    """A run of an export that an erasure would have reached, had the log still had it."""

    erasure: str
    customer: str | None
    tickets: set[str]

    def is_kept(self, run: RunKey, holds: Sequence[Mapping[str, Any]]) -> bool:
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
    """What erasures have erased, as far as the log remembers it. `runs`: those that it had; `covered`: others, which
    the export has. `tickets`: with the agent whose run named them. `handed`: tickets of erased customers, for runs to
    which a case was handed over."""

    works: list[Work] = field(default_factory=list)
    runs: set[RunKey] = field(default_factory=set)
    covered: dict[RunKey, Covered] = field(default_factory=dict)
    tickets: set[tuple[str, str]] = field(default_factory=set)
    handed: dict[str, str] = field(default_factory=dict)
    alerts: set[str] = field(default_factory=set)
    _matching: dict[str, list[Work]] = field(default_factory=dict)

    def learn(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Takes from runs or events of an export what erasures cover, and which tickets those runs named."""
        for row in rows:
            run, customer, ticket = (row["agent"], row["run_id"]), row.get("customer"), row["ticket"]
            of_customer = self._covers(customer, row)
            if of_customer and ticket:
                self.handed[ticket] = of_customer
            if erasure := of_customer or self._covers(ticket, row):
                self._cover(run, erasure, customer)
            self._name(run, ticket)

    def learn_handed(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Takes from runs of an export those that name no customer and a ticket of an erased one."""
        for row in rows:
            run, ticket = (row["agent"], row["run_id"]), row["ticket"]
            if ticket in self.handed and row["customer"] is None:
                self._cover(run, self.handed[ticket], None)
                self._name(run, ticket)

    def has_alert(self, row: Mapping[str, Any]) -> bool:
        """Whether an alert was erased, though it may be about another run."""
        if row["alert_id"] in self.alerts:
            return True
        return bool(self.tickets) and (row["agent"], _ticket(row["raised"])) in self.tickets

    def _cover(self, run: RunKey, erasure: str, customer: str | None) -> None:
        if run not in self.runs:
            self.covered.setdefault(run, Covered(erasure, customer, set()))

    def _name(self, run: RunKey, ticket: str | None) -> None:
        if ticket and run in self.covered:
            self.covered[run].tickets.add(ticket)
        elif ticket and run in self.runs:
            self.tickets.add((run[0], ticket))

    def _covers(self, name: str | None, row: Mapping[str, Any]) -> str | None:
        """The erasure that was asked for by this name, after the log had got what the row says."""
        if not name:
            return None
        if name not in self._matching:
            self._matching[name] = [work for work in self.works if store.hashed(work.salt, name) == work.reference]
        return next((work.id for work in self._matching[name] if row["stored_at"] <= work.asked_at), None)


def forgotten(conn: Connection) -> Forgotten:
    """What is remembered now: tickets only of erasures that are under way, alerts of those that are over."""
    found = Forgotten()
    for run in store.every_run(conn):
        found.runs.add((run.agent, run.run_id))
        found.tickets |= {(run.agent, ticket) for ticket in run.tickets}
    for work in store.read(conn):
        proof = work.proof or {}
        found.alerts |= set(proof.get("alerts", ()))
        by_run = work.asked.run_id is not None if work.asked else _is_by_run(work, proof)
        found.works += [] if by_run else [work]
    return found


def remember(conn: Connection, found: Forgotten, there: Iterable[RunKey], holds: Sequence[Mapping[str, Any]]) -> None:
    """From now on the covered runs are erased as those are that the log had; not those that are `there`, which the
    erasure left, nor those that a hold in force keeps."""
    for run in there:
        found.covered.pop(run, None)
    for run, one in found.covered.items():
        if not one.is_kept(run, holds):
            store.remember(conn, one.erasure, [ErasedRun(agent=run[0], run_id=run[1])])
            found.runs.add(run)
            found.tickets |= {(run[0], ticket) for ticket in one.tickets}


def _is_by_run(work: Work, proof: Mapping[str, Any]) -> bool:
    """Whether it was asked for by the id of a run, which others may have as their ticket."""
    return any(store.hashed(work.salt, run_id) == work.reference for _, run_id in proof.get("runs", ()))


def _ticket(raised: str) -> str | None:
    return msgspec.json.decode(raised, type=AlertRaised).ticket
