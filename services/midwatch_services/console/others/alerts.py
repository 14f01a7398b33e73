"""Alerts: from the run log, or from the bus where that cannot be read; and whom the pager told."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec
from nats.aio.client import Client
from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch.contracts.governance import AlertRaised
from midwatch_services import alerts_said
from midwatch_services.logger import alert_pages
from midwatch_services.logger.alert_pages import Counts, Wanted
from midwatch_services.pager import queue, store, words

LOG, PAGER = subjects.LOGGER, subjects.PAGER
STATES = ("open", "acknowledged", "resolved", "all")
SEVERITIES = (alert_pages.WANTS, "page", "ticket", "info")
PAGE = 50
__all__ = ["Wanted", "acknowledge"]
acknowledge = alerts_said.acknowledge


@dataclass(frozen=True, slots=True)
class Leaf:
    """A page of alerts, the newest first, each with its `state`; and how many there are beside it."""

    alerts: list[dict[str, Any]]
    counts: Counts

    @property
    def has_older(self) -> bool:
        return bool(self.alerts) and self.counts.newer + len(self.alerts) < self.counts.all


def listed(conn: Connection, wanted: Wanted) -> Leaf:
    """A page of alerts from the run log; the first one where there are fewer newer ones than fill a page."""
    found = alert_pages.find(conn, wanted)
    if wanted.after is not None and len(found) < wanted.limit:
        found = alert_pages.find(conn, replace(wanted, after=None))
    counts = alert_pages.count(conn, wanted, str(found[0]["raised_key"]) if found else wanted.before)
    return Leaf([_with_state(one) for one in found], counts)


def one(conn: Connection, alert_id: str) -> dict[str, Any] | None:
    """One alert from the run log."""
    found = alert_pages.one(conn, alert_id)
    return None if found is None else _with_state(found)


async def heard(nc: Client, now: datetime, wanted: Wanted, beginning: str = "") -> Leaf:
    """The same of the last 30 days, from the bus. Raises Temporary."""
    said = await alerts_said.read(nc, now - alerts_said.LOOKBACK, beginning)
    every = [_heard(one) for one in said.values() if one.raised is not None]
    every = sorted(
        (one for one in every
         if wanted.state in ("all", one["state"]) and wanted.agent in (None, one["agent"])
         and _is_of(one, wanted.severity)),
        key=lambda one: str(one["raised_key"]), reverse=True,
    )  # fmt: skip
    newer = sum(one["raised_key"] > wanted.after for one in every) if wanted.after is not None else 0
    first = max(0, newer - wanted.limit)
    if wanted.before is not None:
        first = sum(one["raised_key"] >= wanted.before for one in every)
    return Leaf(every[first : first + wanted.limit], Counts(len(every), first))


def _is_of(one: dict[str, Any], severity: str | None) -> bool:
    if severity == alert_pages.WANTS:
        return alert_pages.wants(one["severity"], one["mode"])
    return severity in (None, one["severity"])


def _heard(said: alerts_said.Said) -> dict[str, Any]:
    raised = said.raised
    assert isinstance(raised, AlertRaised) and said.raised_at is not None
    at = said.raised_at.isoformat()
    return {
        **msgspec.structs.asdict(raised), "agent": said.agent, "raised_at": at, "raised_key": f"{at} {said.alert_id}",
        "acknowledged_at": said.acknowledged_at and said.acknowledged_at.isoformat(),
        "acknowledged_by": said.acknowledged_by, "resolved_at": said.resolved_at and said.resolved_at.isoformat(),
        "resolved_reason": said.resolved_reason, "repeats": said.repeats, "state": said.state, "service": None,
    }  # fmt: skip


def _with_state(found: dict[str, Any]) -> dict[str, Any]:
    state = "resolved" if found["resolved_at"] else "acknowledged" if found["acknowledged_at"] else "open"
    return found | {"state": state}


def told(conn: Connection, alert_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By alert: the group of its cause and what was sent of it, to which channel, when and with what result."""
    group_of = {}
    for alert_id in alert_ids:
        known = store.alert(conn, words.key(alert_id))
        if known is not None and known.group_id:
            group_of[alert_id] = known.group_id
    groups = {one.group_id: one for one in store.groups(conn, list(set(group_of.values())))}
    sent = {group_id: queue.of_group(conn, group_id) for group_id in groups}
    return {
        alert_id: {"group": groups[group_id], "sent": sent[group_id]}
        for alert_id, group_id in group_of.items()
        if group_id in groups
    }
