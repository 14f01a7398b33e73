"""Ranges of a stream by batched direct gets, on a real server."""

import asyncio
from datetime import UTC, datetime

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

from midwatch.contracts import subjects
from midwatch.errors import Temporary
from midwatch.runtime import stream_read
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.stream_read import read_each, read_range

DESK = subjects.run("desk", "*")


async def fill(js: JetStreamContext, count: int) -> None:
    """Events of two agents in turn: those of `desk` have the even sequences."""
    for number in range(count):
        await js.publish(subjects.run("desk" if number % 2 else "other", "said"), str(number + 1).encode())


async def read(nc: Client, start: int | datetime, to: int | None = None) -> list[int]:
    found = []
    async for batch in read_range(nc, subjects.RUNS, DESK, start, to=to):
        found += batch
    assert all(one.body == str(one.seq).encode() and one.subject == "midwatch.run.desk.said" for one in found)
    return [one.seq for one in found]


@pytest.mark.parametrize("batch", [1, 2, 3, 1000])
async def test_a_range_is_whole_whatever_the_size_of_a_batch(
    js: JetStreamContext, nc: Client, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(stream_read, "_BATCH", batch)
    await fill(js, 12)
    assert await read(nc, 1) == [2, 4, 6, 8, 10, 12]
    assert await read(nc, 5, to=9) == [6, 8]
    assert await read(nc, 6, to=10) == [6, 8, 10]


async def test_a_range_is_whole_whatever_the_bytes_of_a_batch(
    js: JetStreamContext, nc: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_read, "_MAX_BYTES", 100)
    await fill(js, 12)
    assert await read(nc, 1) == [2, 4, 6, 8, 10, 12]


async def test_a_range_without_messages_is_empty(js: JetStreamContext, nc: Client) -> None:
    assert await read(nc, 1) == []
    await fill(js, 1)
    assert await read(nc, 1) == []
    assert await read(nc, 99) == []


async def test_a_range_may_begin_at_a_time(js: JetStreamContext, nc: Client) -> None:
    await fill(js, 4)
    await asyncio.sleep(0.01)
    began = datetime.now(UTC)
    await fill(js, 4)
    found = []
    async for batch in read_range(nc, subjects.RUNS, DESK, began):
        found += [one.seq for one in batch]
    assert found == [6, 8]


async def test_a_server_that_does_not_answer_is_temporary(
    js: JetStreamContext, nc: Client, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_read, "_SILENCE", 0.2)
    await fill(js, 2)
    nats_server.kill()
    with pytest.raises(Temporary, match="MIDWATCH_RUNS cannot be read"):
        await read(nc, 1)


async def each(nc: Client, *seqs: int) -> list[int]:
    found = []
    async for batch in read_each(nc, subjects.RUNS, seqs):
        found += batch
    assert all(one.body == str(one.seq).encode() for one in found)
    return [one.seq for one in found]


@pytest.mark.parametrize("window", [1, 2, 256])
async def test_single_messages_come_in_order_and_those_that_are_gone_do_not(
    js: JetStreamContext, nc: Client, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    monkeypatch.setattr(stream_read, "_SINGLE", window)
    await fill(js, 6)
    await js.delete_msg(subjects.RUNS, 3)
    assert await each(nc, 1, 2, 3, 6, 99) == [1, 2, 6]
    assert await each(nc) == []


async def test_where_an_answer_is_lost_there_are_no_more_single_messages(
    js: JetStreamContext, nc: Client, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_read, "_PATIENCE", 0.1)
    await fill(js, 2)
    nats_server.kill()
    assert await each(nc, 1, 2) == []
