"""Alerts as the bus holds them, for whoever must do without the run log; and the word of who takes one on."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from nats.aio.client import Client
from nats.js import JetStreamContext

from midwatch.contracts import codec, subjects
from midwatch.contracts.codec import Refused
from midwatch.contracts.governance import AlertAcknowledged, AlertRaised, AlertResolved
from midwatch.runtime.stream_read import read_range

LOOKBACK = timedelta(days=30)
NOTE_LIMIT = 500  # characters


@dataclass(frozen=True, slots=True)
class Said:
    """One alert, and what became of it. `raised` is None while only that is known."""

    alert_id: str
    agent: str = ""
    raised: AlertRaised | None = None
    raised_at: datetime | None = None
    acknowledged_by: str = ""
    acknowledged_at: datetime | None = None
    note: str = ""
    resolved_at: datetime | None = None
    resolved_reason: str = ""
    repeats: int = 0

    @property
    def state(self) -> str:
        return "resolved" if self.resolved_at else "acknowledged" if self.acknowledged_at else "open"


async def read(nc: Client, since: datetime, beginning: str = "") -> dict[str, Said]:
    """The alerts that were spoken of since then, by id, those alone whose id begins so. Raises Temporary."""
    found: dict[str, Said] = {}
    async for batch in read_range(nc, subjects.GOVERNANCE, subjects.alert("*", "*"), since):
        for stored in batch:
            if beginning.encode() not in stored.body:
                continue
            try:
                event = codec.decode(stored.subject, stored.body)
            except Refused:
                continue
            data = event.data
            if data.alert_id.startswith(beginning):
                known = found.get(data.alert_id) or Said(data.alert_id, stored.subject.split(".")[2])
                found[data.alert_id] = _heard(known, data, event.time)
    return {name: one for name, one in found.items() if one.raised is not None}


def _heard(known: Said, data: AlertRaised | AlertAcknowledged | AlertResolved, at: datetime) -> Said:
    if isinstance(data, AlertRaised):
        return replace(known, raised=data, raised_at=at)
    if isinstance(data, AlertResolved):
        return replace(known, resolved_at=at, resolved_reason=data.reason, repeats=data.repeats)
    if known.acknowledged_at is not None:  # the first has it
        return known
    return replace(known, acknowledged_by=data.by, acknowledged_at=at, note=data.note)


async def acknowledge(
    js: JetStreamContext, agent: str, alert_id: str, *, by: str, note: str = "", source: str = "/people/command-line",
    id: str | None = None,
) -> None:  # fmt: skip
    """Says that somebody takes the alert on, once for each `id`. Raises what nats-py raises."""
    data = AlertAcknowledged(alert_id=alert_id, by=by, note=note[:NOTE_LIMIT])
    envelope = codec.envelope("alert", "acknowledged", data, source=source, id=id)
    headers = {subjects.MSG_ID: envelope.id, subjects.CONTENT_TYPE: subjects.CLOUDEVENTS_JSON}
    await js.publish(subjects.alert(agent, "acknowledged"), codec.encode(envelope), headers=headers)
