"""The loop by which services read: nothing lost, nothing blocked, whatever arrives and whatever fails."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import nats
import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from prometheus_client import REGISTRY

from helpers import all_read, eventually
from logged import envelope, publish
from midwatch.contracts import codec, subjects
from midwatch.contracts.control import DeadLetter
from midwatch.errors import Permanent, Temporary
from midwatch.runtime import delivery, faults
from midwatch.runtime.delivery import Received, RunReader
from midwatch.runtime.nats_server import NatsServer

Handler = Callable[[list[Received]], Any]


class Crash(BaseException):
    """The process ends here."""


class Readers:
    """Starts readers of a consumer whose acknowledgements are waited for half a second."""

    def __init__(self, nc: Client, js: JetStreamContext) -> None:
        self.nc, self.js = nc, js
        self.tasks: list[asyncio.Task[None]] = []
        self.handled: list[str] = []

    async def declare(self, ack_wait: float = 0.5) -> None:
        declared = await self.js.consumer_info(subjects.RUNS, subjects.LOGGER)
        await self.js.add_consumer(subjects.RUNS, declared.config.evolve(durable_name="t", name="t", ack_wait=ack_wait))

    def start(self, handle: Handler | None = None, **options: Any) -> RunReader:
        async def keep(batch: list[Received]) -> None:
            self.handled += [received.event.id for received in batch]

        reader: RunReader = RunReader(
            self.nc, self.js, stream=subjects.RUNS, consumer="t", service="t", handle=handle or keep, **options
        )
        self.tasks.append(asyncio.create_task(reader.run()))
        return reader

    async def all_acknowledged(self) -> None:
        await eventually(lambda: all_read(self.js, subjects.RUNS, "t"))

    async def asked(self) -> bool:
        """Whether a pull stands."""
        return bool((await self.js.consumer_info(subjects.RUNS, "t")).num_waiting)

    async def dead(self) -> list[DeadLetter]:
        info = await self.js.stream_info(subjects.DEAD)
        messages = [await self.js.get_msg(subjects.DEAD, n) for n in range(1, info.state.last_seq + 1)]
        return [msgspec.json.decode(message.data or b"", type=DeadLetter) for message in messages]

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        for task in self.tasks:
            with contextlib.suppress(asyncio.CancelledError, Crash):
                await task
        self.tasks = []


@pytest.fixture
async def readers(nc: Client, js: JetStreamContext) -> AsyncIterator[Readers]:
    made = Readers(nc, js)
    await made.declare()
    yield made
    faults.set_hook(None)
    await made.stop()


async def test_a_lone_event_is_handed_over_at_once(readers: Readers) -> None:
    readers.start(batch=500)
    id = await publish(readers.js, "said", by="agent", text="Hi")
    await eventually(lambda: readers.handled == [id], within=1)
    await readers.all_acknowledged()


async def test_what_is_received_says_where_it_stood(readers: Readers) -> None:
    kept: list[Received] = []

    async def keep(batch: list[Received]) -> None:
        kept.extend(batch)

    readers.start(keep)
    ids = [await publish(readers.js, "said", seq=n, by="agent", text="x") for n in range(3)]
    await eventually(lambda: len(kept) == 3)
    assert [(one.event.id, one.stream_seq, one.delivered) for one in kept] == [
        (id, n + 1, 1) for n, id in enumerate(ids)
    ]
    stored = (await readers.js.get_msg(subjects.RUNS, 1)).time
    assert stored is not None
    assert abs((kept[0].stored_at - stored).total_seconds()) < 0.001
    assert (kept[0].headers or {})[subjects.MSG_ID] == ids[0]


def _changed(**changes: Any) -> bytes:
    body = json.loads(codec.encode(envelope("model_called", model="m")))
    for path, value in changes.items():
        target = body
        *parents, last = path.split("__")
        for parent in parents:
            target = target[parent]
        target[last] = value
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    ("subject", "body", "reason"),
    [
        ("midwatch.run.desk.model_called", b'{"specversion": "1.0", ', "malformed"),
        ("midwatch.run.desk.model_called", b"\xff\xfe", "malformed"),
        ("midwatch.run.desk.model_called", b"[" * 100_000, "malformed"),
        ("midwatch.run.desk.model_called", _changed(data__seq="first"), "malformed"),
        ("midwatch.run.desk.model_called", _changed(data__cost_usd="-1"), "malformed"),
        ("midwatch.run.desk.model_called", _changed(type="midwatch.run.model_called.v9"), "unknown_version"),
        ("midwatch.run.desk.model_called", _changed(data__output="x" * 2 * 1024 * 1024), "oversized"),
        ("midwatch.run.desk.model_called", _changed(data__agent="other"), "wrong_agent"),
        ("midwatch.run.desk.model_called", _changed(source="/agents/other/1"), "wrong_agent"),
        ("midwatch.run.re.fund.model_called", _changed(), "bad_subject"),
    ],
    ids=["cut", "bytes", "deep", "type", "cost", "version", "large", "agent", "source", "dots"],
)  # fmt: skip
async def test_a_bad_event_is_found_with_its_reason_and_stops_nothing(
    readers: Readers, subject: str, body: bytes, reason: str
) -> None:
    readers.start()
    await readers.js.publish(subject, body)
    id = await publish(readers.js, "said", by="agent", text="after it")
    await eventually(lambda: readers.handled == [id])
    await readers.all_acknowledged()
    [letter] = await readers.dead()
    assert (letter.reason, letter.subject, letter.data, letter.stream_seq) == (reason, subject, body, 1)


async def test_when_something_was_last_handled_is_a_metric(readers: Readers) -> None:
    before = time.time()
    readers.start()
    await publish(readers.js, "said", by="agent", text="x")
    await readers.all_acknowledged()
    labels = {"service": "t", "consumer": "t"}
    handled = REGISTRY.get_sample_value("midwatch_last_handled_timestamp_seconds", labels)
    assert handled is not None
    assert before <= handled <= time.time()


async def test_a_crash_before_the_acknowledgement_makes_no_second_dead_letter(readers: Readers) -> None:
    _crash_once("delivery.buried")
    readers.start()
    await readers.js.publish("midwatch.run.desk.said", b"{")
    with pytest.raises(Crash):
        await asyncio.wait_for(readers.tasks[0], 20)
    readers.start()
    await readers.all_acknowledged()
    assert len(await readers.dead()) == 1


async def test_many_bad_events_at_once_are_one_letter_each(readers: Readers) -> None:
    for number in range(30):
        await readers.js.publish("midwatch.run.desk.said", b"{" * (number + 1))
    readers.start()
    await readers.all_acknowledged()
    letters = await readers.dead()
    assert [len(letter.data) for letter in letters] == list(range(1, 31))
    assert {(letter.reason, letter.attempts, letter.service) for letter in letters} == {("malformed", 1, "t")}


async def test_bad_events_of_which_some_are_buried_already_make_no_second_letter(readers: Readers) -> None:
    for number in range(10):
        await readers.js.publish("midwatch.run.desk.said", b"{" * (number + 1))
    _crash_once("delivery.buried")
    readers.start()
    with pytest.raises(Crash):
        await asyncio.wait_for(readers.tasks[0], 5)
    for number in range(10, 20):
        await readers.js.publish("midwatch.run.desk.said", b"{" * (number + 1))
    readers.start()
    await readers.all_acknowledged()
    assert sorted(len(letter.data) for letter in await readers.dead()) == list(range(1, 21))


async def test_trouble_that_passes_brings_the_whole_batch_again(readers: Readers) -> None:
    failures = 2

    async def handle(batch: list[Received]) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise Temporary("the database is away", delay=0.05)
        readers.handled += [received.event.id for received in batch]

    ids = {await publish(readers.js, "said", seq=n, by="agent", text="x") for n in range(10)}
    readers.start(handle)
    await eventually(lambda: set(readers.handled) == ids)
    await readers.all_acknowledged()
    assert await readers.dead() == []


async def test_trouble_is_told_while_it_lasts(readers: Readers) -> None:
    away = True

    async def handle(batch: list[Received]) -> None:
        if away:
            raise Temporary("the database is away", delay=0.05)
        readers.handled += [received.event.id for received in batch]

    reader = readers.start(handle)
    await publish(readers.js, "said", by="agent", text="x")
    assert await eventually(reader.trouble) == "the database is away"
    away = False
    await readers.all_acknowledged()
    assert reader.trouble() is None


async def test_trouble_is_over_where_another_process_took_what_was_given_back(
    readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "SILENCE", 0.3)

    async def handle(_: list[Received]) -> None:
        raise Temporary("the database is away", delay=0.05)

    reader = readers.start(handle)
    id = await publish(readers.js, "said", by="agent", text="x")
    await eventually(reader.trouble)
    await readers.stop()  # what it reads of this reader is what a process says that gets no more messages
    readers.start()
    await eventually(lambda: readers.handled == [id])
    await eventually(lambda: reader.trouble() is None)


async def test_an_event_that_always_fails_does_not_hold_up_the_others(readers: Readers) -> None:
    async def handle(batch: list[Received]) -> None:
        if any(received.event.data.seq == 3 for received in batch):
            raise RuntimeError("a bug")
        readers.handled += [received.event.id for received in batch]

    ids = [await publish(readers.js, "said", seq=n, by="agent", text="x") for n in range(6)]
    readers.start(handle, max_attempts=2)
    await readers.all_acknowledged()
    assert sorted(readers.handled) == sorted(ids[:3] + ids[4:])
    [letter] = await readers.dead()
    assert (letter.reason, letter.error, letter.attempts) == ("failed", "a bug", 2)


async def test_an_event_that_can_never_work_is_given_up_at_once(readers: Readers) -> None:
    async def handle(batch: list[Received]) -> None:
        raise Permanent("no such thing", reason="nonsense")

    await publish(readers.js, "said", by="agent", text="x")
    readers.start(handle)
    await readers.all_acknowledged()
    [letter] = await readers.dead()
    assert (letter.reason, letter.error, letter.attempts) == ("nonsense", "no such thing", 1)


async def test_a_slow_handler_is_not_given_the_event_again(readers: Readers) -> None:
    given: list[int] = []

    async def handle(batch: list[Received]) -> None:
        given.extend(received.delivered for received in batch)
        await asyncio.sleep(1.5)  # three times the half second after which the server would deliver again

    readers.start(handle)
    await publish(readers.js, "said", by="agent", text="x")
    await readers.all_acknowledged()
    assert given == [1]


async def test_a_cancelled_reader_gives_back_what_it_held(readers: Readers) -> None:
    await readers.declare(ack_wait=30)
    held = asyncio.Event()

    async def handle(_: list[Received]) -> None:
        held.set()
        await asyncio.Event().wait()

    readers.start(handle)
    id = await publish(readers.js, "said", by="agent", text="x")
    await asyncio.wait_for(held.wait(), 20)
    await readers.stop()
    readers.start()
    await eventually(lambda: readers.handled == [id], within=20)  # before ack_wait is over


async def test_what_is_on_its_way_to_a_reader_that_stops_goes_back_as_well(
    readers: Readers, nats_server: NatsServer
) -> None:
    await readers.declare(ack_wait=60)
    other = await nats.connect(nats_server.url)
    for number in range(20):
        readers.start()
        await eventually(readers.asked)
        await publish(other.jetstream(), "said", seq=number, by="agent", text="x")
        await readers.stop()
    readers.start()
    await readers.all_acknowledged()  # before ack_wait is over
    await other.close()


async def test_a_killed_server_loses_nothing(readers: Readers, nats_server: NatsServer) -> None:
    readers.start(batch=20)
    ids = {await publish(readers.js, "said", seq=n, by="agent", text="x") for n in range(100)}
    nats_server.kill()
    await nats_server.restart()
    await eventually(lambda: readers.nc.is_connected)
    ids |= {await publish(readers.js, "said", seq=n, by="agent", text="x") for n in range(100, 200)}
    await readers.all_acknowledged()
    assert set(readers.handled) == ids


async def test_a_deleted_consumer_is_named_and_taken_up_again(readers: Readers) -> None:
    reader = readers.start()
    first = await publish(readers.js, "said", by="agent", text="x")
    await eventually(lambda: readers.handled == [first])
    await readers.js.delete_consumer(subjects.RUNS, "t")
    error = await eventually(lambda: reader.error)
    assert "consumer t is not there: run `midwatch topology apply`" in error
    await readers.declare()
    second = await publish(readers.js, "said", by="agent", text="x")
    await eventually(lambda: second in readers.handled)
    assert reader.error is None


def _crash_once(point: str) -> None:
    def hook(reached: str) -> None:
        if reached == point:
            faults.set_hook(None)
            raise Crash

    faults.set_hook(hook)
