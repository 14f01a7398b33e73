"""Servers that die, refuse, are full or misconfigured: events wait, none is lost, none stops the others."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import StreamConfig

from flush_helpers import fill, flushing, numbers
from helpers import eventually
from midwatch.contracts import subjects
from midwatch.runtime.nats_server import NatsServer, start_nats
from midwatch.spool import Record, Spool

SAID = subjects.run("agent-0", "said")


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool.open(tmp_path / "spool", "pod-1")


async def test_a_server_that_was_away_gets_everything(
    nats_server: NatsServer, nc: Client, js: JetStreamContext, spool: Spool
) -> None:
    async with flushing(nc, spool) as flusher:
        fill(spool, 1, 10)
        assert await flusher.drain(5)
        nats_server.kill()
        await nats_server.wait()
        fill(spool, 11, 900)
        await eventually(lambda: flusher.error)
        assert spool.pending == 890
        await nats_server.restart()
        assert await flusher.drain(10)
        assert flusher.error is None
    assert await numbers(nc) == list(range(1, 901))


async def test_a_server_killed_between_batches_holds_each_event_once_in_the_end(
    nats_server: NatsServer, nc: Client, js: JetStreamContext, spool: Spool
) -> None:
    def down_to(left: int) -> Callable[[], bool]:
        return lambda: spool.pending <= left

    fill(spool, 1, 12_000)
    async with flushing(nc, spool) as flusher:
        for left in (11_000, 6_000):
            await eventually(down_to(left))
            nats_server.kill()
            await nats_server.wait()
            await nats_server.restart()
        assert await flusher.drain(20)
    assert await numbers(nc) == list(range(1, 12_001))


async def test_a_server_killed_inside_a_batch_stores_it_whole_later(
    nats_server: NatsServer, nc: Client, js: JetStreamContext, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = 0
    publish = nc.publish

    async def publish_and_kill(*args: Any, **kwargs: Any) -> None:
        nonlocal published
        published += 1
        await publish(*args, **kwargs)
        if published == 300:
            await nc.flush()  # the server has opened the batch
            nats_server.kill()
            await nats_server.wait()

    monkeypatch.setattr(nc, "publish", publish_and_kill)
    fill(spool, 1, 800)
    async with flushing(nc, spool) as flusher:
        await eventually(lambda: flusher.error)
        await nats_server.restart()
        assert (await js.stream_info(subjects.RUNS)).state.messages == 0
        assert await flusher.drain(10)
    assert await numbers(nc) == list(range(1, 801))


async def test_an_answer_that_is_lost_doubles_nothing(
    nc: Client, js: JetStreamContext, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = nc.request
    losses = iter([True, False, True])

    async def request_and_lose(*args: Any, **kwargs: Any) -> Msg:
        answer = await request(*args, **kwargs)
        if next(losses, False):
            raise nats.errors.TimeoutError
        return answer

    monkeypatch.setattr(nc, "request", request_and_lose)
    fill(spool, 1, 900)
    async with flushing(nc, spool) as flusher:
        assert await flusher.drain(10)
    assert await numbers(nc) == list(range(1, 901))


async def test_a_server_that_hangs_is_given_up_and_tried_again(
    nats_server: NatsServer, nc: Client, js: JetStreamContext, spool: Spool
) -> None:
    async with flushing(nc, spool, timeout=0.3) as flusher:
        os.kill(nats_server.pid, signal.SIGSTOP)
        try:
            fill(spool, 1, 40)
            await eventually(lambda: "did not answer" in (flusher.error or ""))
        finally:
            os.kill(nats_server.pid, signal.SIGCONT)
        assert await flusher.drain(10)
    assert await numbers(nc) == list(range(1, 41))


async def test_more_open_batches_than_the_server_takes_do_not_hold_it_up(
    nc: Client, js: JetStreamContext, spool: Spool
) -> None:
    for batch in range(50):  # what fifty processes leave that die inside a batch
        opening = {"Nats-Batch-Id": f"left-{batch}", "Nats-Batch-Sequence": "1"}
        answer = await nc.request(SAID, b"0", headers=opening, timeout=2)
        assert answer.data == b""
    fill(spool, 1, 700)
    async with flushing(nc, spool) as flusher:
        assert await flusher.drain(8)  # the server forgets an open batch after ten seconds
    assert await numbers(nc) == list(range(1, 701))


async def test_a_stream_without_atomic_batches_is_fed_one_by_one(nc: Client, spool: Spool) -> None:
    await nc.jetstream().add_stream(StreamConfig(name=subjects.RUNS, subjects=["midwatch.run.>"]))
    fill(spool, 1, 300)
    async with flushing(nc, spool) as flusher:
        assert await flusher.drain(5)
    assert await numbers(nc) == list(range(1, 301))


async def test_a_missing_stream_is_named_and_events_wait_for_it(nc: Client, spool: Spool) -> None:
    fill(spool, 1, 3)
    async with flushing(nc, spool) as flusher:
        await eventually(lambda: "midwatch topology apply" in (flusher.error or ""))
        fill(spool, 4, 4)
        await nc.jetstream().add_stream(
            StreamConfig(name=subjects.RUNS, subjects=["midwatch.run.>"], allow_atomic=True)
        )
        assert await flusher.drain(8)
        assert flusher.error is None
    assert await numbers(nc) == [1, 2, 3, 4]


async def test_a_full_stream_is_named_and_events_wait_for_room(nc: Client, spool: Spool) -> None:
    config = StreamConfig(name=subjects.RUNS, subjects=["midwatch.run.>"], allow_atomic=True, max_msgs=2, discard="new")  # type: ignore[arg-type]
    await nc.jetstream().add_stream(config)
    fill(spool, 1, 5)
    async with flushing(nc, spool) as flusher:
        await eventually(lambda: "maximum messages exceeded" in (flusher.error or ""))
        config.max_msgs = 100
        await nc.jetstream().update_stream(config)
        assert await flusher.drain(8)
    assert await numbers(nc) == [1, 2, 3, 4, 5]


async def test_what_answers_without_being_a_stream_does_not_count_as_the_server(nc: Client, spool: Spool) -> None:
    async def reply(message: Msg) -> None:
        await message.respond(b"thanks")

    await nc.subscribe("midwatch.run.>", cb=reply)
    fill(spool, 1, 1)
    async with flushing(nc, spool) as flusher:
        await eventually(lambda: "is no stream" in (flusher.error or ""))
    assert spool.pending == 1


async def test_a_message_over_the_servers_limit_is_put_aside_and_holds_up_nobody(tmp_path: Path) -> None:
    refused: list[tuple[Record, str]] = []
    spool = Spool.open(tmp_path / "spool", "pod-1")
    async with await start_nats(tmp_path / "nats", max_payload=65_536) as server:
        nc = await nats.connect(server.url)
        await nc.jetstream().add_stream(
            StreamConfig(name=subjects.RUNS, subjects=["midwatch.run.>"], allow_atomic=True)
        )
        fill(spool, 1, 3)
        # The first of these fits without its headers: a server closes the connection of a client that sends it.
        for name, size in (("just-over", 65_500), ("far-over", 300_000)):
            spool.append(SAID, name, None, b"x" * size)
        fill(spool, 4, 6)
        async with flushing(nc, spool, on_refused=lambda record, reason: refused.append((record, reason))) as flusher:
            assert await flusher.drain(5)
        assert await numbers(nc) == [1, 2, 3, 4, 5, 6]
        assert nc.stats["reconnects"] == 0
        await nc.close()
    assert [record.id for record, _ in refused] == ["just-over", "far-over"]
    assert "65536 bytes" in refused[0][1]
    assert (flusher.refused, spool.lost) == (2, 0)
    kept = [json.loads(line) for line in (tmp_path / "spool" / "refused" / "pod-1.jsonl").read_text().splitlines()]
    assert [(line["id"], len(line["body"])) for line in kept] == [("just-over", 65_500), ("far-over", 300_000)]


async def test_a_message_over_the_streams_limit_is_put_aside_too(nc: Client, spool: Spool) -> None:
    config = StreamConfig(name=subjects.RUNS, subjects=["midwatch.run.>"], allow_atomic=True, max_msg_size=10_000)
    await nc.jetstream().add_stream(config)
    fill(spool, 1, 40)
    spool.append(SAID, "large", None, b"x" * 20_000)
    fill(spool, 41, 80)
    async with flushing(nc, spool) as flusher:
        assert await flusher.drain(5)
        assert flusher.refused == 1
    assert await numbers(nc) == list(range(1, 81))


async def test_an_event_on_a_subject_that_is_none_is_put_aside_too(
    nc: Client, js: JetStreamContext, spool: Spool
) -> None:
    fill(spool, 1, 2)
    spool.append("midwatch.run.no agent.said", "bad", None, b"3")
    fill(spool, 4, 5)
    async with flushing(nc, spool) as flusher:
        assert await flusher.drain(5)
        assert flusher.refused == 1
    assert await numbers(nc) == [1, 2, 4, 5]


async def test_a_callback_that_raises_changes_nothing(
    nc: Client, js: JetStreamContext, spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    def on_refused(record: Record, reason: str) -> None:
        raise ValueError(reason)

    spool.append("midwatch.run.no agent.said", "bad", None, b"1")
    fill(spool, 2, 2)
    async with flushing(nc, spool, on_refused=on_refused) as flusher:
        assert await flusher.drain(5)
    assert (await numbers(nc), flusher.refused) == ([2], 1)


USERS = """authorization { users = [
  {user: owner, password: o}
  {user: desk, password: d, permissions: {publish: ["midwatch.run.agent-1.>", "$JS.API.>"], subscribe: ["_INBOX.>"]}}
] }"""


async def test_a_right_that_is_missing_is_named_and_events_wait_for_it(tmp_path: Path, spool: Spool) -> None:
    async def quiet(_: Exception) -> None:
        """The refusal is what this test is about."""

    async with await start_nats(tmp_path / "nats", config=USERS) as server:
        owner = await nats.connect(server.url, user="owner", password="o")
        await owner.jetstream().add_stream(
            StreamConfig(name=subjects.RUNS, subjects=["midwatch.run.>"], allow_atomic=True)
        )
        desk = await nats.connect(server.url, user="desk", password="d", error_cb=quiet)
        spool.append(subjects.run("agent-1", "said"), "id-1", None, b"1")
        fill(spool, 2, 3)  # of agent-0, which this user may not publish for
        async with flushing(desk, spool, timeout=0.5) as flusher:
            await eventually(lambda: "permissions violation" in (flusher.error or ""))
            await eventually(lambda: spool.pending == 2)
            assert "agent-0" in (flusher.error or "")
        async with flushing(owner, spool) as flusher:
            assert await flusher.drain(5)
        assert await numbers(owner) == [1, 2, 3]
        await desk.close()
        await owner.close()


async def test_a_dead_process_whose_events_we_may_not_publish_is_left_to_others(
    tmp_path: Path, spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    async def quiet(_: Exception) -> None:
        """The refusal is what this test is about."""

    dead = Spool.open(tmp_path / "spool", "dead")
    fill(dead, 1, 2)  # of agent-0
    dead.close()
    async with await start_nats(tmp_path / "nats", config=USERS) as server:
        owner = await nats.connect(server.url, user="owner", password="o")
        await owner.jetstream().add_stream(
            StreamConfig(name=subjects.RUNS, subjects=["midwatch.run.>"], allow_atomic=True)
        )
        desk = await nats.connect(server.url, user="desk", password="d", error_cb=quiet)
        async with flushing(desk, spool, timeout=0.1) as flusher:
            await eventually(lambda: "events that dead left wait" in caplog.text)
            spool.append(subjects.run("agent-1", "said"), "id-3", None, b"3")
            assert await flusher.drain(1)  # ours are not held up by theirs
            await eventually(lambda: [left.pending for left in Spool.open(tmp_path / "spool", "third").adopt()] == [2])
        assert await numbers(owner) == [3]
        await desk.close()
        await owner.close()
