"""Signatures of the Standard Webhooks scheme: HMAC-SHA256 over `id.timestamp.body`, the same in both directions."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime, timedelta

from midwatch.errors import MidwatchError

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
TOLERANCE = timedelta(minutes=5)  # between two clocks, and for a message to be carried
_PREFIX = "whsec_"
_VERSION = "v1,"


class BadSecret(MidwatchError):
    """The webhook's secret cannot be used: it is whsec_ and base64, or a text without that beginning, of 16 bytes and
    more."""


def key_of(secret: str) -> bytes:
    """The key in a secret as people write it. Raises BadSecret."""
    try:
        found = base64.b64decode(secret.removeprefix(_PREFIX), validate=True) if secret.startswith(_PREFIX) else None
    except (binascii.Error, ValueError):
        raise BadSecret from None
    key = secret.encode() if found is None else found
    if len(key) < 16:
        raise BadSecret
    return key


def headers(key: bytes, id: str, body: bytes, now: datetime) -> dict[str, str]:
    """The three headers that a message carries."""
    timestamp = str(int(now.timestamp()))
    return {ID: id, TIMESTAMP: timestamp, SIGNATURE: _signature(key, id, timestamp, body)}


def is_signed(key: bytes, given: Mapping[str, str], body: bytes, now: datetime) -> bool:
    """Whether the message was signed with `key`, within five minutes of now."""
    id, timestamp = given.get(ID, ""), given.get(TIMESTAMP, "")
    if not (id and timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 12):
        return False
    if abs(now.timestamp() - int(timestamp)) > TOLERANCE.total_seconds():
        return False
    wanted = _signature(key, id, timestamp, body).encode()
    # While a secret is changed a message may carry one signature of each.
    signatures = given.get(SIGNATURE, "").encode("latin-1", "replace").split()
    return any(hmac.compare_digest(wanted, one) for one in signatures)


def _signature(key: bytes, id: str, timestamp: str, body: bytes) -> str:
    signed = f"{id}.{timestamp}.".encode("latin-1", "replace") + body
    return _VERSION + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
