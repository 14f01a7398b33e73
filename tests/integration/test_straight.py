"""The short way past nats-py: the same messages, headers and answers as the usual way."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import ConnectionClosedError
from nats.js import JetStreamContext

from helpers import all_read, eventually
from logged import publish
from midwatch.contracts import subjects
from midwatch.runtime import straight
from midwatch.runtime.delivery import Received, RunReader
from midwatch.runtime.straight import Headers


@pytest.fixture
async def inbox(nc: Client) -> AsyncIterator[str]:
    yield nc.new_inbox()


def test_this_release_of_nats_py_has_what_the_short_way_goes_through() -> None:
    assert straight._IS_KNOWN


@pytest.mark.parametrize(
    ("raw", "read"),
    [
        (b"NATS/1.0\r\nNats-Msg-Id: 7\r\n\r\n", {"Nats-Msg-Id": "7"}),
        (b"NATS/1.0\r\na:1\r\nb:\t2 \r\n\r\n", {"a": "1", "b": "2"}),
        (b"NATS/1.0\r\na: x:y\r\na: z\r\n\r\n", {"a": "z"}),
        (b"NATS/1.0\r\na: \xc3\xa9\xff\r\n\r\n", {"a": "é\ufffd"}),
        (b"NATS/1.0\r\nno colon\r\nno key: 1\r\n\xc3\xa9: 1\r\n: 1\r\na: 1\r\n\r\n", {"a": "1"}),
        (b"NATS/1.0\r\n\r\n", {}),
    ],
)
def test_headers_are_read_when_they_are_asked_for(raw: bytes, read: dict[str, str]) -> None:
    assert dict(Headers(raw)) == read


async def test_what_is_not_taken_or_breaks_who_takes_it_goes_the_usual_way(nc: Client, inbox: str) -> None:
    usual: list[bytes] = []
    taken: list[tuple[bytes, bytes, bytes, bytes]] = []

    async def keep(message: Msg) -> None:
        usual.append(message.data)

    def take(subject: bytes, reply: bytes, body: bytes, headers: bytes) -> bool:
        if body == b"broken":
            raise ValueError(body)
        if body == b"other":
            return False
        taken.append((subject, reply, body, headers))
        return True

    subscription = await nc.subscribe(inbox, cb=keep)
    with straight.taken_by(nc, subscription, take):
        await nc.publish(inbox, b"mine", reply="back", headers={"a": "1"})
        await nc.publish(inbox, b"other")
        await nc.publish(inbox, b"broken")
        await eventually(lambda: len(taken) == 1 and len(usual) == 2)
    await nc.publish(inbox, b"after")
    await eventually(lambda: usual == [b"other", b"broken", b"after"])
    assert taken == [(inbox.encode(), b"back", b"mine", b"NATS/1.0\r\na: 1\r\n\r\n")]


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_each_subject_gets_the_body(nc: Client, inbox: str, count: int) -> None:
    found: list[tuple[str, bytes]] = []

    async def keep(message: Msg) -> None:
        found.append((message.subject, message.data))

    await nc.subscribe(f"{inbox}.*", cb=keep)
    await straight.publish_each(nc, [f"{inbox}.{n}" for n in range(count)], b"-NAK")
    await nc.publish(f"{inbox}.end")
    await eventually(lambda: bool(found) and found[-1] == (f"{inbox}.end", b""))
    assert found[:-1] == [(f"{inbox}.{n}", b"-NAK") for n in range(count)]


async def test_a_closed_connection_says_so(nc: Client, inbox: str) -> None:
    await nc.close()
    with pytest.raises(ConnectionClosedError):
        await straight.publish_each(nc, [inbox, inbox], b"")


async def test_with_another_nats_py_all_goes_the_usual_way(
    nc: Client, js: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(straight, "_IS_KNOWN", False)
    kept: list[Received] = []

    async def keep(batch: list[Received]) -> None:
        kept.extend(batch)

    reader: RunReader = RunReader(nc, js, stream=subjects.RUNS, consumer=subjects.LOGGER, service="t", handle=keep)
    ids = [await publish(js, "said", seq=n, by="agent", text="x") for n in range(3)]
    task = asyncio.create_task(reader.run())
    await eventually(lambda: [one.event.id for one in kept] == ids)

    await eventually(lambda: all_read(js, subjects.RUNS, subjects.LOGGER))
    assert (kept[0].headers or {})[subjects.MSG_ID] == ids[0]
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
