"""Whether the logger has yet to read what happened on a day: a digest of half a log would be wrong for good."""

from datetime import datetime

import msgspec
from nats.aio.client import Client

from midwatch.contracts import subjects

_WITHIN = 3.0  # seconds for one answer


class _Floor(msgspec.Struct):
    stream_seq: int = 0


class _Info(msgspec.Struct):
    num_pending: int = 0
    num_ack_pending: int = 0
    ack_floor: _Floor = msgspec.field(default_factory=_Floor)


async def is_behind(nc: Client, end: datetime) -> bool:
    """Whether an event that the server stored before `end` waits for the logger. Raises NatsError or TimeoutError."""
    answer = await nc.request(f"$JS.API.CONSUMER.INFO.{subjects.RUNS}.{subjects.LOGGER}", timeout=_WITHIN)
    info = msgspec.json.decode(answer.data, type=_Info)
    if not info.num_pending + info.num_ack_pending:
        return False
    oldest = msgspec.json.encode({"seq": info.ack_floor.stream_seq + 1, "next_by_subj": ">"})
    message = await nc.request(f"$JS.API.DIRECT.GET.{subjects.RUNS}", oldest, timeout=_WITHIN)
    stored = (message.headers or {}).get("Nats-Time-Stamp")
    return stored is not None and msgspec.convert(stored, datetime) < end
