"""Who has read a digest: from the record on the bus, whatever becomes of any database."""

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import date, datetime

from nats.aio.client import Client

from midwatch.contracts import codec, subjects
from midwatch.runtime.stream_read import read_range

READ = "digest.read"


@dataclass(frozen=True, slots=True)
class Reader:
    """Somebody, and when they first said that they had read it."""

    by: str
    at: str


async def of_digest(nc: Client, agent: str, day: date, since: datetime) -> Sequence[Reader]:
    """Those who have read the digest of a day, the first of them first. Raises Temporary."""
    found: dict[str, Reader] = {}
    target = day.isoformat()
    async with aclosing(read_range(nc, subjects.GOVERNANCE, subjects.audit(agent, "acted"), since)) as batches:
        async for batch in batches:
            for stored in batch:
                if READ.encode() not in stored.body or target.encode() not in stored.body:
                    continue
                try:
                    data = codec.decode(stored.subject, stored.body).data
                except codec.Refused:
                    continue
                if (data.action, data.target) == (READ, target):
                    found.setdefault(data.by, Reader(data.by, stored.stored_at))
    return list(found.values())
