"""Alerts: from the run log, or from the bus where that cannot be read; and whom the pager told."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from nats.aio.client import Client
from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch.contracts.governance import AlertRaised
from midwatch_services import alerts_said
from midwatch_services.logger import alert_pages
from midwatch_services.logger.alert_pages import Wanted
from midwatch_services.pager import queue, store, words

LOG, PAGER = subjects.LOGGER, subjects.PAGER
STATES = ("open", "acknowledged", "resolved", "all")
SEVERITIES = ("page", "ticket", "info")
PAGE = 50
__all__ = ["Wanted", "acknowledge"]
acknowledge = alerts_said.acknowledge


def listed(conn: Connection, wanted: Wanted) -> list[dict[str, Any]]:
    """A page of alerts from the run log, each with its `state`."""
    return [_with_state(one) for one in alert_pages.find(conn, wanted)]


def one(conn: Connection, alert_id: str) -> dict[str, Any] | None:
    """One alert from the run log."""
    found = alert_pages.one(conn, alert_id)
    return None if found is None else _with_state(found)


async def heard(nc: Client, now: datetime, wanted: Wanted, beginning: str = "") -> list[dict[str, Any]]:
    """Alerts of the last 30 days from the bus, in the same shape. Raises Temporary."""
    said = await alerts_said.read(nc, now - alerts_said.LOOKBACK, beginning)
    found = [_heard(one) for one in said.values() if one.raised is not None]
    found = [
        one for one in found
        if wanted.state in ("all", one["state"]) and wanted.agent in (None, one["agent"])
        and wanted.severity in (None, one["severity"]) and (wanted.before is None or one["raised_key"] < wanted.before)
    ]  # fmt: skip
    return sorted(found, key=lambda one: str(one["raised_key"]), reverse=True)[: wanted.limit]


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
