"""What the pager forgets of a run that is erased: titles, links and causes of its alerts, messages about them, and
digests and notes that name it."""

from collections.abc import Collection

import msgspec
import sqlalchemy as sa
from msgspec.structs import replace
from sqlalchemy.engine import Connection

from midwatch.contracts.erasure import ErasureResolved
from midwatch.runtime.erasure import Counts

from . import tables, words
from .messages import Message
from .state import Alert, Group

TABLES = (tables.Alert.__tablename__, tables.Group.__tablename__, tables.Delivery.__tablename__)
ERASED = "erased"
_alerts, _groups, _deliveries = tables.Alert.__table__, tables.Group.__table__, tables.Delivery.__table__


def erase(conn: Connection, part: ErasureResolved) -> Counts:
    """Blanks what the alerts say. Those that are open stay open; what waits to be sent is not sent any more."""
    alerts = {words.key(alert_id) for alert_id in part.alerts}
    named = {(run.agent, run.run_id) for run in part.runs}
    runs = {(agent, words.one_line(run_id)) for agent, run_id in named}
    counts = {"alerts": _erase_alerts(conn, alerts), "groups": 0, "messages": 0}
    for row in conn.execute(sa.select(_groups.c.group_id, _groups.c.state)).all():
        group = msgspec.msgpack.decode(row.state, type=Group)
        if group.alert_id in alerts or (group.agent, group.run_id) in runs:
            blank = replace(group, title=ERASED, evidence="", reason="")
            state = msgspec.msgpack.encode(blank)
            conn.execute(_groups.update().where(_groups.c.group_id == row.group_id).values(state=state))
            counts["groups"] += 1
    for row in conn.execute(sa.select(_deliveries).where(_deliveries.c.body != b"")).all():
        message = msgspec.msgpack.decode(row.body, type=Message)
        told = {(run.agent, run.run_id) for run in message.page.runs} if message.page else set()
        if message.alert_id in alerts or (message.agent, message.run_id) in runs or told & named:
            waits = row.phase == "waiting"
            values = {"body": b"", "error": None, "due_at": None, "phase": "withdrawn" if waits else row.phase}
            which = (_deliveries.c.id == row.id, _deliveries.c.channel == row.channel)
            conn.execute(_deliveries.update().where(*which).values(values))
            counts["messages"] += 1
    return counts


def _erase_alerts(conn: Connection, alerts: Collection[str]) -> int:
    """An alert's cause may name a ticket; open or not, it is not met again under that name."""
    count = 0
    for alert_id in alerts:
        row = conn.execute(sa.select(_alerts.c.state).where(_alerts.c.alert_id == alert_id)).first()
        if row is not None:
            key = f"{ERASED}/{alert_id}"
            state = msgspec.msgpack.encode(replace(msgspec.msgpack.decode(row.state, type=Alert), dedupe_key=key))
            values = {"dedupe_key": key, "state": state}
            conn.execute(_alerts.update().where(_alerts.c.alert_id == alert_id).values(values))
            count += 1
    return count
