"""The spool reaches a real server: once each, in order, with the headers of the contract."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

from flush_helpers import fill, flushing, numbers, stored
from helpers import eventually
from midwatch.contracts import subjects
from midwatch.flush import Flusher
from midwatch.spool import Spool

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool.open(tmp_path / "spool", "pod-1")


async def test_an_event_arrives_with_the_headers_of_the_contract(
    nc: Client, js: JetStreamContext, spool: Spool
) -> None:
    spool.append("midwatch.run.refund-desk.started", "id-1", TRACE.encode(), b'{"a":1}')
    async with flushing(nc, spool) as flusher:
        assert await flusher.drain(5)
    (message,) = await stored(nc)
    assert (message.subject, message.data) == ("midwatch.run.refund-desk.started", b'{"a":1}')
    assert message.headers == {
        "Nats-Msg-Id": "id-1", "Content-Type": "application/cloudevents+json", "traceparent": TRACE,
    }  # fmt: skip


async def test_several_go_in_one_atomic_batch(nc: Client, js: JetStreamContext, spool: Spool) -> None:
    fill(spool, 1, 5, agents=2)
    async with flushing(nc, spool) as flusher:
        assert await flusher.drain(5)
    messages = await stored(nc)
    assert [message.data for message in messages] == [b"1", b"2", b"3", b"4", b"5"]
    assert len({(message.headers or {}).get("Nats-Batch-Id") for message in messages}) == 1
    assert [(message.headers or {})["Nats-Batch-Sequence"] for message in messages] == ["1", "2", "3", "4", "5"]
    assert [(message.headers or {})["Nats-Msg-Id"] for message in messages] == [f"id-{n}" for n in range(1, 6)]


async def test_a_batch_ends_where_an_event_goes_to_another_stream(
    nc: Client, js: JetStreamContext, spool: Spool
) -> None:
    fill(spool, 1, 3)
    assert spool.append(subjects.case("agent-0", "accepted"), "taken", None, b"{}")
    fill(spool, 4, 6)
    async with flushing(nc, spool) as flusher:
        assert await flusher.drain(5)
    sequences = [(message.headers or {})["Nats-Batch-Sequence"] for message in await stored(nc)]
    assert sequences == ["1", "2", "3", "1", "2", "3"]
    assert (await js.get_msg(subjects.GOVERNANCE, 1)).headers == {
        "Nats-Msg-Id": "taken", "Content-Type": "application/cloudevents+json",
    }  # fmt: skip


async def test_a_backlog_of_many_batches_keeps_its_order(nc: Client, js: JetStreamContext, spool: Spool) -> None:
    fill(spool, 1, 3_500, agents=3)
    async with flushing(nc, spool) as flusher:
        assert await flusher.drain(10)
    assert await numbers(nc) == list(range(1, 3_501))


async def test_an_idle_flusher_wakes_for_an_event_of_another_thread(
    nc: Client, js: JetStreamContext, spool: Spool
) -> None:
    took = []
    async with flushing(nc, spool) as flusher:
        for number in range(1, 4):
            assert await flusher.drain(20)
            await asyncio.sleep(0.02)  # idle, well inside its interval
            began = time.monotonic()
            await asyncio.to_thread(fill, spool, number, number)
            assert await flusher.drain(20)
            took.append(time.monotonic() - began)
    assert min(took) < 0.2
    assert await numbers(nc) == [1, 2, 3]


async def test_events_recorded_while_it_sends_arrive_too(nc: Client, js: JetStreamContext, spool: Spool) -> None:
    async with flushing(nc, spool) as flusher:
        writer = threading.Thread(target=fill, args=(spool, 1, 4_000))
        writer.start()
        await asyncio.to_thread(writer.join)
        assert await flusher.drain(10)
    assert await numbers(nc) == list(range(1, 4_001))


async def test_drain_says_when_it_could_not(nc: Client, js: JetStreamContext, spool: Spool) -> None:
    fill(spool, 1, 1)
    assert not await Flusher(nc, spool).drain(0.05)


async def test_a_known_id_in_a_batch_is_stored_once_and_the_rest_in_order(
    nc: Client, js: JetStreamContext, spool: Spool
) -> None:
    for number in (300, 301, 777):
        await js.publish(subjects.run("agent-0", "said"), b"%d" % number, headers={"Nats-Msg-Id": f"id-{number}"})
    fill(spool, 1, 1_200)
    async with flushing(nc, spool) as flusher:
        assert await flusher.drain(10)
    found = await numbers(nc)
    assert found[:3] == [300, 301, 777]
    assert found[3:] == [n for n in range(1, 1_201) if n not in (300, 301, 777)]


async def test_an_id_that_is_twice_in_the_spool_is_stored_once(nc: Client, js: JetStreamContext, spool: Spool) -> None:
    fill(spool, 1, 10)
    fill(spool, 5, 5)
    fill(spool, 11, 12)
    async with flushing(nc, spool) as flusher:
        assert await flusher.drain(5)
    assert await numbers(nc) == list(range(1, 13))


async def test_what_the_server_has_already_is_confirmed_fast(nc: Client, js: JetStreamContext, spool: Spool) -> None:
    fill(spool, 1, 6_000)
    async with flushing(nc, spool) as flusher:
        assert await flusher.drain(20)
        fill(spool, 1, 6_000)
        began = time.monotonic()
        assert await flusher.drain(20)
    assert time.monotonic() - began < 5  # one after the other would be over 3,000 times a round trip
    assert (await js.stream_info(subjects.RUNS)).state.messages == 6_000


async def test_the_spool_of_a_dead_process_is_flushed_and_removed(
    nc: Client, js: JetStreamContext, spool: Spool, tmp_path: Path
) -> None:
    dead = Spool.open(tmp_path / "spool", "dead")
    fill(dead, 1, 1_500)
    dead.close()
    async with flushing(nc, spool):
        await eventually(lambda: not (tmp_path / "spool" / "dead").exists())
    assert await numbers(nc) == list(range(1, 1_501))


async def test_events_of_a_process_killed_at_once_are_published_by_another(
    nc: Client, js: JetStreamContext, spool: Spool, tmp_path: Path
) -> None:
    script = (
        "import os, sys; from pathlib import Path; from midwatch.spool import Spool\n"
        "spool = Spool.open(Path(sys.argv[1]), 'killed')\n"
        "for n in range(1, 51): spool.append('midwatch.run.agent-0.said', f'id-{n}', None, b'%d' % n)\n"
        f"os.kill(os.getpid(), {signal.SIGKILL})\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path / "spool")], check=False)
    assert killed.returncode == -signal.SIGKILL
    async with flushing(nc, spool):
        await eventually(lambda: not (tmp_path / "spool" / "killed").exists())
    assert await numbers(nc) == list(range(1, 51))


async def test_events_in_memory_are_published_while_the_disk_is_broken(
    nc: Client, js: JetStreamContext, tmp_path: Path
) -> None:
    (tmp_path / "in-the-way").write_text("")
    spool = Spool.open(tmp_path / "in-the-way", "a")
    fill(spool, 1, 30)
    async with flushing(nc, spool) as flusher:
        assert await flusher.drain(5)
        assert spool.error is not None
        (tmp_path / "in-the-way").unlink()
        await eventually(lambda: spool.error is None)
    assert await numbers(nc) == list(range(1, 31))


@pytest.mark.skipif(not hasattr(os, "fdatasync"), reason="this platform has no fdatasync")
async def test_what_waits_is_synced_within_the_interval_even_without_a_server(
    nc: Client, js: JetStreamContext, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = threading.Event()
    real = os.fdatasync

    def fdatasync(fd: int) -> None:
        real(fd)
        synced.set()

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    await js.delete_stream(subjects.RUNS)
    async with flushing(nc, spool):
        await asyncio.sleep(0.05)
        fill(spool, 1, 1)
        assert await asyncio.to_thread(synced.wait, 2)
