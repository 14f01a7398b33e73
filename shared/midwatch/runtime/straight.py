"""The short way from the socket to a reader and back: past what nats-py does for each message, which costs a reader as
much as all the rest. It goes through methods that nats-py does not promise; where they are not as known here, all goes
the usual way."""

import contextlib
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

from nats.aio.client import Client
from nats.aio.subscription import Subscription

Take = Callable[[bytes, bytes, bytes, bytes], bool]  # subject, reply, body and headers as they came

log = logging.getLogger("midwatch.delivery")

_LINE = b"NATS/1.0\r\n"
_KNOWN = ["self", "sid", "subject", "reply", "data", "headers"]
_IS_KNOWN = list(inspect.signature(getattr(Client, "_process_msg", lambda: None)).parameters) == _KNOWN and list(
    inspect.signature(getattr(Client, "_send_command", lambda: None)).parameters
)[:2] == ["self", "cmd"]


class Headers(Mapping[str, str]):
    """The headers of a message, read when somebody asks: hardly anybody does."""

    __slots__ = ("_raw", "_read")

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._read: dict[str, str] | None = None

    def _all(self) -> dict[str, str]:
        if self._read is None:
            lines = (line.partition(b":") for line in self._raw.split(b"\r\n")[1:])
            self._read = {
                name.strip().decode("ascii"): value.strip().decode("utf-8", "replace")
                for name, colon, value in lines
                if colon and name.isascii() and len(name.split()) == 1
            }
        return self._read

    def __getitem__(self, name: str) -> str:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


class _Lane:
    """Stands in place of a client's own handling of messages."""

    def __init__(self, nc: Client) -> None:
        self._stats, self._usual = nc.stats, nc._process_msg
        self.takers: dict[int, Take] = {}

    async def __call__(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        take = self.takers.get(sid)
        try:
            if take is not None and take(subject, reply, data, headers or b""):
                self._stats["in_msgs"] += 1
                self._stats["in_bytes"] += len(data)
                return
        except Exception:
            log.debug("%s: left to the usual way", subject, exc_info=True)  # raised here it would end the connection
        await self._usual(sid, subject, reply, data, headers)


def is_plain(headers: bytes) -> bool:
    """Whether they are what a sender wrote, and no word of the server's own."""
    return not headers or headers.startswith(_LINE)


@contextlib.contextmanager
def taken_by(nc: Client, subscription: Subscription, take: Take) -> Iterator[None]:
    """Hands what comes for the subscription to `take` first, which returns whether it took it."""
    if not _IS_KNOWN:
        yield
        return
    if not isinstance(nc._process_msg, _Lane):
        nc._process_msg = _Lane(nc)  # type: ignore[method-assign]
    takers = nc._process_msg.takers
    takers[subscription._id] = take
    try:
        yield
    finally:
        del takers[subscription._id]


async def publish_each(nc: Client, subjects: Sequence[str], body: bytes) -> None:
    """Publishes the body, which is small, to each of the subjects, which the server made: in one piece. Raises
    NatsError."""
    *first, last = subjects or [""]
    if _IS_KNOWN and first and nc.is_connected and not nc.is_draining_pubs:
        tail = b" %d\r\n%b\r\n" % (len(body), body)
        nc.stats["out_msgs"] += len(first)
        nc.stats["out_bytes"] += len(first) * len(body)
        await nc._send_command(b"".join([b"PUB %b%b" % (subject.encode(), tail) for subject in first]))
        subjects = [last]
    for subject in subjects:
        await nc.publish(subject, body)  # which also has the client write what waits
