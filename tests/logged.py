"""Run events and alerts for the tests of the log: one call makes one."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from nats.js import JetStreamContext

from midwatch.contracts import codec, governance, runs, subjects
from midwatch.contracts.envelope import Envelope, new_id
from midwatch.runtime.delivery import Received

NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


def envelope(
    event: str, *, id: str | None = None, at: datetime = NOON, agent: str = "desk", **fields: Any
) -> Envelope[Any]:
    """A run event of run `r-1`, seq 0, mode live, unless `fields` say otherwise."""
    common = {"run_id": "r-1", "agent": agent, "version": "1", "mode": "live", "seq": 0}
    data = msgspec.convert({**common, **fields}, runs.RUN_EVENTS[event])
    return codec.envelope("run", event, data, source=f"/agents/{agent}/pod", subject=data.run_id, id=id, time=at)


def received(event: str, *, stored_at: datetime = NOON, **fields: Any) -> Received:
    """The same as the loop hands it to a service."""
    made = envelope(event, **fields)
    body, subject = codec.encode(made), subjects.run(made.data.agent, event)
    return Received(codec.decode_run(subject, body), body, subject, None, 1, 1, stored_at, "")


async def publish(js: JetStreamContext, event: str, **fields: Any) -> str:
    """Publishes a run event, acknowledged, and returns its id."""
    made = envelope(event, **fields)
    headers = {subjects.MSG_ID: made.id}
    await js.publish(subjects.run(made.data.agent, event), codec.encode(made), headers=headers)
    return made.id


def alert(
    event: str, *, alert_id: str = "a-1", at: datetime = NOON, id: str | None = None, **fields: Any
) -> Envelope[Any]:
    """An alert event, from cost-watchdog; `raised` says what it did to run `r-1`."""
    if event == "raised":
        fields = {
            "rule": "budget_run", "severity": "page", "title": "Run r-1 has cost $1.20", "agent": "desk",
            "run_id": "r-1", "dedupe_key": "budget_run:r-1", "action_taken": "halted_run", **fields,
        }  # fmt: skip
    data = governance.GOVERNANCE_EVENTS["alert", event](alert_id=alert_id, **fields)
    return codec.envelope("alert", event, data, source="/services/cost-watchdog", id=id or new_id(), time=at)
