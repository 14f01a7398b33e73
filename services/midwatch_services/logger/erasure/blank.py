"""What stays of an event, a run and an alert when what they say is erased. Pure."""

from typing import Any

import msgspec

from midwatch.contracts.governance import AlertRaised

from ..decide import RunRow
from ..evidence.leaf import content_hash

ERASED = "erased"
# Of a query: events that were not erased. What an agent wrote has a salt, whatever it wrote.
STANDS = """AND NOT (salt IS NULL AND body LIKE '{"erased":%')"""
PERSONAL = ("ticket", "session", "customer", "error", "handed_off_reason")  # of a run's row


class Blank(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of an event that was erased: by which erasure, and the hash of what it said, which the leaf holds. It
    has nothing else: an agent's event that calls itself erased is none."""

    erased: str
    content: str = ""


def body_of(erasure: str, salt: bytes | None, body: str) -> str:
    """What stands in place of the body. An event from before there were leaves has no hash."""
    content = content_hash(salt, body.encode("utf-8", "surrogatepass")).hex() if salt else ""
    return msgspec.json.encode(Blank(erasure, content)).decode()


def erased_by(body: str) -> str | None:
    """The erasure that blanked the event, None for one that stands."""
    if not body.startswith('{"erased":'):
        return None
    try:
        return msgspec.json.decode(body, type=Blank).erased
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def run_of(row: RunRow) -> RunRow:
    """The run without what names its customer or quotes anybody."""
    return msgspec.structs.replace(row, **dict.fromkeys(PERSONAL))


def alert_of(raised: str) -> str:
    """The alert with its rule, figures and run, and without its words."""
    alert = msgspec.json.decode(raised, type=AlertRaised)
    blank: dict[str, Any] = {"title": ERASED, "ticket": None, "evidence": None, "dedupe_key": ERASED}
    if isinstance(alert.value, str):
        blank["value"] = None
    return msgspec.json.encode(msgspec.structs.replace(alert, **blank)).decode()
