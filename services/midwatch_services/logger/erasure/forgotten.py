"""What an import must not bring back: runs that were erased, and alerts that name their tickets or were erased with
them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy.engine import Connection

from midwatch.contracts.governance import AlertRaised

from . import store
from .match import RunKey


@dataclass
class Forgotten:
    """What erasures have erased, as far as the log remembers it. `tickets`: with the agent whose run named them."""

    runs: set[RunKey] = field(default_factory=set)
    tickets: set[tuple[str, str]] = field(default_factory=set)
    alerts: set[str] = field(default_factory=set)

    def learn(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Takes from runs or events of an export which tickets the erased runs named."""
        for row in rows:
            if row["ticket"] and (row["agent"], row["run_id"]) in self.runs:
                self.tickets.add((row["agent"], row["ticket"]))

    def has_alert(self, row: Mapping[str, Any]) -> bool:
        """Whether an alert was erased, though it may be about another run."""
        if row["alert_id"] in self.alerts:
            return True
        return bool(self.tickets) and (row["agent"], _ticket(row["raised"])) in self.tickets


def forgotten(conn: Connection) -> Forgotten:
    """What is remembered now: tickets only of erasures that are under way, alerts of those that are over."""
    found = Forgotten()
    for run in store.every_run(conn):
        found.runs.add((run.agent, run.run_id))
        found.tickets |= {(run.agent, ticket) for ticket in run.tickets}
    for work in store.read(conn):
        found.alerts |= set((work.proof or {}).get("alerts", ()))
    return found


def _ticket(raised: str) -> str | None:
    return msgspec.json.decode(raised, type=AlertRaised).ticket
