"""The pager's memory of alerts, groups and channels: load and save."""

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from midwatch.runtime.database import upsert

from . import tables
from .decide import Known, Outcome, key_of
from .health import Health
from .state import Alert, Event, Group, Raised
from .tables import from_micros, micros

PREFIX = "pager"
_CHUNK = 400  # values of one IN
_alerts, _groups, _channels = tables.Alert.__table__, tables.Group.__table__, tables.Channel.__table__


class Book:
    """What one transaction knows, and what it changed."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self._alerts: dict[str, Alert] = {}
        self._open: dict[tuple[str, str], str] = {}  # of a group and a dedupe key: the alert that is open
        self._groups: dict[str, Group] = {}
        self._keys: dict[str, str] = {}
        self._changed_alerts: set[str] = set()
        self._changed: dict[str, None] = {}  # groups, in the order in which they were touched

    def load(self, events: Collection[Event]) -> None:
        """Reads what the events are about, with a few queries whatever their number."""
        ids = [_alert_id(event) for event in events]
        raised = [event for event in events if isinstance(event, Raised)]
        self._take_alerts(_select(self._conn, _alerts, _alerts.c.alert_id, ids))
        alive = _groups.c.ended_at.is_(None)
        rows = [
            *_select(self._conn, _groups, _groups.c.group_id, {one.group_id for one in self._alerts.values()}),
            *_select(self._conn, _groups, _groups.c.key, {key_of(event) for event in raised}, alive),
        ]
        for row in rows:
            self.put_group(_group(row), changed=False)
        known = _alerts.c.group_id.in_(list(self._keys.values()))
        keys = {event.data.dedupe_key for event in raised}
        self._take_alerts(_select(self._conn, _alerts, _alerts.c.dedupe_key, keys, _alerts.c.phase == "open", known))

    def known(self, event: Event) -> Known:
        """What is known of the event's alert."""
        alert = self._alerts.get(_alert_id(event))
        if not isinstance(event, Raised):
            return Known(alert, None, self._groups.get(alert.group_id) if alert else None)
        group_id = self._keys.get(key_of(event))
        if group_id is None:
            return Known(alert)
        same = self._open.get((group_id, event.data.dedupe_key))
        return Known(alert, self._alerts[same] if same else None, self._groups[group_id])

    def put(self, outcome: Outcome) -> None:
        """Takes what was decided."""
        for alert in outcome.alerts:
            self._put_alert(alert)
            self._changed_alerts.add(alert.alert_id)
        if outcome.group is not None:
            self.put_group(outcome.group)

    def put_group(self, group: Group, *, changed: bool = True) -> None:
        self._groups[group.group_id] = group
        if group.ended_at is None:
            self._keys[group.key] = group.group_id
        elif self._keys.get(group.key) == group.group_id:
            del self._keys[group.key]
        if changed:
            self._changed[group.group_id] = None

    def changed(self) -> list[Group]:
        """The groups that were touched."""
        return [self._groups[name] for name in self._changed]

    def save(self) -> None:
        """Writes what changed."""
        rows = [
            (one.alert_id, one.phase, one.group_id, one.dedupe_key, micros(one.touched_at), msgspec.msgpack.encode(one))
            for one in (self._alerts[name] for name in self._changed_alerts)
        ]
        columns = ("alert_id", "phase", "group_id", "dedupe_key", "touched_at", "state")
        if rows:
            upsert(self._conn, _alerts.name, columns, rows, ("alert_id",))
        groups = [
            (one.group_id, one.key, one.ended_at and micros(one.ended_at), msgspec.msgpack.encode(one))
            for one in self.changed()
        ]
        if groups:
            upsert(self._conn, _groups.name, ("group_id", "key", "ended_at", "state"), groups, ("group_id",))

    def _take_alerts(self, rows: Iterable[Any]) -> None:
        for row in rows:
            self._put_alert(msgspec.msgpack.decode(row.state, type=Alert))

    def _put_alert(self, alert: Alert) -> None:
        self._alerts[alert.alert_id] = alert
        key = (alert.group_id, alert.dedupe_key)
        if alert.phase == "open":
            self._open[key] = alert.alert_id
        elif self._open.get(key) == alert.alert_id:
            del self._open[key]


def _alert_id(event: Event) -> str:
    return event.data.alert_id if isinstance(event, Raised) else event.alert_id


def _group(row: Any) -> Group:
    return msgspec.msgpack.decode(row.state, type=Group)


def _select(
    conn: Connection, table: sa.Table, column: sa.Column[Any], values: Collection[str], *more: sa.ColumnElement[bool]
) -> list[Any]:
    found: list[Any] = []
    some = list(dict.fromkeys(values))
    for start in range(0, len(some), _CHUNK):
        found += conn.execute(sa.select(table).where(column.in_(some[start : start + _CHUNK]), *more)).all()
    return found


def alive(conn: Connection) -> list[Group]:
    """The groups that are not over."""
    return [_group(row) for row in conn.execute(sa.select(_groups.c.state).where(_groups.c.ended_at.is_(None)))]


def groups(conn: Connection, ids: Collection[str]) -> list[Group]:
    """These groups as they stand now."""
    return [_group(row) for row in _select(conn, _groups, _groups.c.group_id, ids)]


def alert(conn: Connection, alert_id: str) -> Alert | None:
    """The alert of that id."""
    row = conn.execute(sa.select(_alerts.c.state).where(_alerts.c.alert_id == alert_id)).first()
    return msgspec.msgpack.decode(row.state, type=Alert) if row else None


def open_under(conn: Connection, dedupe_key: str) -> str | None:
    """The alert that is open under a key, whatever its group."""
    query = sa.select(_alerts.c.alert_id).where(_alerts.c.dedupe_key == dedupe_key, _alerts.c.phase == "open")
    row = conn.execute(query).first()
    return row.alert_id if row else None


# Channels


def health(conn: Connection, channel: str) -> Health:
    """How the channel does."""
    row = conn.execute(sa.select(_channels).where(_channels.c.channel == channel)).first()
    return _health(row) if row else Health(channel=channel)


def dead(conn: Connection) -> list[Health]:
    """The channels that are dead."""
    return [_health(row) for row in conn.execute(sa.select(_channels).where(_channels.c.dead_at.is_not(None)))]


def save_health(conn: Connection, one: Health) -> None:
    since, dead_at = one.failing_since and micros(one.failing_since), one.dead_at and micros(one.dead_at)
    row = (one.channel, one.failures, since, dead_at, one.alert_id, one.error)
    columns = ("channel", "failures", "failing_since", "dead_at", "alert_id", "error")
    upsert(conn, _channels.name, columns, [row], ("channel",))


def _health(row: Any) -> Health:
    return Health(
        channel=row.channel, failures=row.failures,
        failing_since=None if row.failing_since is None else from_micros(row.failing_since),
        dead_at=None if row.dead_at is None else from_micros(row.dead_at), alert_id=row.alert_id, error=row.error,
    )  # fmt: skip


def prune(conn: Connection, before: datetime) -> None:
    """Forgets alerts and groups that are over since before then."""
    at = micros(before)
    conn.execute(_alerts.delete().where(_alerts.c.phase != "open", _alerts.c.touched_at < at))
    conn.execute(_groups.delete().where(_groups.c.ended_at < at))
