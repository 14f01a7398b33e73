"""Prometheus Alertmanager's API: one of its alerts is one of our groups."""

from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any

import msgspec

from midwatch.runtime.http_post import post

from .. import messages, words
from ..messages import Message
from ..policy import FIRING_FOR, Channel
from .errors import of_http

_PATH = "/api/v2/alerts"


async def send(channel: Channel, message: Message, now: datetime, within: float) -> None:
    """Posts the group as it stands; a repeat is the same alert to Alertmanager, which knows it by its labels."""
    address = channel.url.rstrip("/")
    address = address if address.endswith(_PATH) else address + _PATH
    try:
        await post(address, msgspec.json.encode([payload(message, now)]), {}, within)
    except TimeoutError:
        raise
    except (OSError, HTTPException, ValueError) as error:
        raise of_http(error) from None


def payload(message: Message, now: datetime) -> dict[str, Any]:
    """One alert of the API. A firing one is believed for five minutes, and posted again each minute."""
    over = message.what == "ended"
    ends = (message.ended_at or now) if over else now + FIRING_FOR
    found: dict[str, Any] = {
        "labels": {
            "alertname": message.rule, "agent": message.agent, "severity": message.severity, "source": "midwatch",
        },
        "annotations": {"summary": words.plain(message.title), "description": messages.body(message)},
        "startsAt": _time(min(message.started_at, ends)),
        "endsAt": _time(ends),
    }  # fmt: skip
    if message.rule == "channel_dead":
        found["labels"]["cause"] = message.group_id
    if words.evidence(message.evidence).startswith(("http://", "https://")):
        found["generatorURL"] = message.evidence
    return found


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
