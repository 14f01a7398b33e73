"""CloudEvents 1.0 in structured JSON, one event a message; identities and times."""

import os
import random
import time
from datetime import UTC, datetime
from typing import Annotated, Generic, Literal, TypeVar

from msgspec import Meta, Struct

T = TypeVar("T")

# Ids must differ, not be secret. Asking the system for each gives Python's lock away, and in a busy program that costs
# milliseconds to get back.
_random = random.Random()  # noqa: S311
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)

Time = Annotated[datetime, Meta(tz=True, description="RFC 3339, with offset; written in UTC")]


class Envelope(Struct, Generic[T], frozen=True, kw_only=True):
    """What every message on the bus is wrapped in. `id` is unique for ever; `subject` is the run id on run events."""

    specversion: Literal["1.0"] = "1.0"
    id: Annotated[str, Meta(min_length=1, max_length=128)]
    source: str
    type: str
    subject: str | None = None
    time: Time
    datacontenttype: str = "application/json"
    data: T


def event_type(noun: str, event: str) -> str:
    """CloudEvents type of an event, for instance `midwatch.run.started.v1`."""
    return f"midwatch.{noun}.{event}.v1"


def new_id() -> str:
    """A UUID of version 7 (RFC 9562, 5.7): sorted by millisecond, 74 random bits."""
    value = (time.time_ns() // 1_000_000 << 80) | _random.getrandbits(80)
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def new_span() -> str:
    """A span id of W3C trace context: 16 hex digits."""
    return f"{_random.getrandbits(64):016x}"


def utc_now() -> datetime:
    """The time now, with zone, as the contract writes it."""
    return datetime.now(UTC)
