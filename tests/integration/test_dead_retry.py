"""`midwatch dead retry`: what died is published again, and its letters are deleted only when the server has it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

from dead_helpers import FOUR, SAID, command, left, letter, published, retried, rows
from helpers import eventually
from logged import envelope, publish
from midwatch.contracts import codec, control, subjects
from midwatch.contracts.control import DeadLetter
from midwatch.contracts.envelope import utc_now
from midwatch.runtime import faults
from midwatch.runtime.database import Database
from midwatch.runtime.delivery import Received, RunReader
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.service import run_services
from midwatch.runtime.settings import Settings
from midwatch_services.logger import store
from midwatch_services.logger.app import SERVICE


@pytest.fixture(autouse=True)
def _no_hook() -> Any:
    yield
    faults.set_hook(None)


@pytest.fixture
async def js(js: JetStreamContext, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> JetStreamContext:
    monkeypatch.setenv("NATS_URL", nats_server.url)
    return js


@pytest.fixture
async def forgetful(js: JetStreamContext) -> JetStreamContext:
    """A server that knows an id for a tenth of a second instead of for two minutes."""
    config = (await js.stream_info(subjects.RUNS)).config
    await js.update_stream(config.evolve(duplicate_window=0.1))
    return js


# Retrying


async def test_it_is_published_to_its_own_subject_with_its_own_headers_and_the_letter_is_deleted(
    js: JetStreamContext,
) -> None:
    await letter(js)
    result = await command("retry", "1", "--yes")
    assert (result.exit_code, result.stdout) == (0, "1 message retried, 1 letter deleted; 0 not retried\n")
    message = await js.get_msg(subjects.RUNS, 1)
    assert (message.subject, message.headers) == (
        SAID, {subjects.MSG_ID: "e-1", subjects.TRACEPARENT: "00-aa-bb-01"},
    )  # fmt: skip
    assert json.loads(message.data or b"")["data"]["text"] == "Hi"
    assert await left(js) == 0


async def test_all_letters_of_the_message_go_with_it(js: JetStreamContext) -> None:
    for service in FOUR:
        await letter(js, service=service)
    await letter(js, "e-2", stream_seq=8)
    result = await command("retry", "2", "--yes")
    assert (result.exit_code, result.stdout) == (0, "1 message retried, 4 letters deleted; 0 not retried\n")
    assert (await published(js), await left(js)) == (1, 1)


async def test_a_place_that_a_new_stream_gave_again_is_another_message(js: JetStreamContext) -> None:
    await letter(js, "e-1")
    await letter(js, "e-2")
    assert len(await rows("list")) == 2


async def test_a_member_of_an_atomic_batch_is_published_alone(js: JetStreamContext) -> None:
    headers = {
        subjects.MSG_ID: "e-1",
        "Nats-Batch-Id": "b",
        "Nats-Batch-Sequence": "2",
        "Nats-Expected-Last-Sequence": "9",
    }
    await letter(js, headers=headers)
    assert (await command("retry", "1", "--yes")).exit_code == 0
    assert (await js.get_msg(subjects.RUNS, 1)).headers == {subjects.MSG_ID: "e-1"}


async def test_within_two_minutes_the_server_delivers_nothing_and_the_letter_stays(js: JetStreamContext) -> None:
    id = await publish(js, "said", by="agent", text="Hi")
    await letter(js, id)
    result = await command("retry", "--all", "--yes")
    assert result.exit_code == 3
    assert "has NOT delivered it again: the letter stays" in result.stdout
    assert (await published(js), await left(js)) == (1, 1)
    (row,) = await rows("retry", "1", "--yes")
    assert row["outcome"] == "duplicate"


async def test_a_crash_between_publishing_and_deleting_is_mended_by_another_retry(forgetful: JetStreamContext) -> None:
    js = forgetful
    for service in FOUR:
        await letter(js, service=service)

    def crash(point: str) -> None:
        if point == "dead.published":
            raise KeyboardInterrupt

    faults.set_hook(crash)
    await command("retry", "4", "--yes")
    faults.set_hook(None)
    assert (await published(js), await left(js)) == (1, 4)
    await js.delete_msg(subjects.DEAD, 4)  # as where it died between two of its letters
    assert (await retried("1")).exit_code == 0
    assert (await published(js), await left(js)) == (2, 0)


async def test_nothing_is_deleted_where_no_stream_takes_the_message(js: JetStreamContext) -> None:
    await letter(js)
    await js.delete_stream(subjects.RUNS)
    await js.add_stream(name=subjects.RUNS, subjects=["midwatch.elsewhere"])
    result = await command("retry", "1", "--yes")
    assert (result.exit_code, await left(js)) == (3, 1)
    assert f"no stream takes {SAID}: run `midwatch topology apply`" in result.stdout


REFUSED: list[tuple[dict[str, Any], str, bool]] = [
    *(({"reason": reason}, f"it is {reason}, and will be refused again", True)
      for reason in ("malformed", "oversized", "bad_subject", "wrong_agent", "unknown_version")),
    ({"stream": "", "stream_seq": 0, "subject": subjects.SWITCH}, "`midwatch halt` what its body names", False),
    ({"stream": "", "stream_seq": 0, "subject": "midwatch.case.desk.opened"}, "`midwatch queue` has the case", False),
    ({"stream": "KV_MIDWATCH_SWITCH", "subject": "$KV.MIDWATCH_SWITCH.agent.desk"}, "would undo what was", False),
    ({"body": b"x" * (4 * 1024 * 1024 + 1)}, "only the beginning of its body was kept", False),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "why", "may_be_forced"), REFUSED)
async def test_what_cannot_help_is_refused_with_the_reason(
    js: JetStreamContext, fields: dict[str, Any], why: str, may_be_forced: bool
) -> None:
    await letter(js, **fields)
    result = await command("retry", "1", "--yes")
    assert (result.exit_code, await published(js), await left(js)) == (3, 0, 1)
    assert why in result.stdout
    assert (await command("retry", "1", "--yes", "--force")).exit_code == (0 if may_be_forced else 3)
    assert (await published(js), await left(js)) == ((1, 0) if may_be_forced else (0, 1))


async def test_what_services_may_have_forgotten_is_refused(js: JetStreamContext) -> None:
    body = codec.encode(envelope("said", by="agent", text="Hi"))
    old = DeadLetter(
        service="logger", reason="failed", error="e", attempts=1, subject=SAID, stream=subjects.RUNS, stream_seq=1,
        at=utc_now() - timedelta(days=31), data=body,
    )  # fmt: skip
    await js.publish(subjects.dead("logger"), control.encode(old))
    result = await command("retry", "1", "--yes")
    assert (result.exit_code, await published(js)) == (3, 0)
    assert "older than the 30 days for which services remember" in result.stdout
    assert (await command("retry", "1", "--yes", "--force")).exit_code == 0


async def test_some_of_many_are_refused_and_the_others_retried(js: JetStreamContext) -> None:
    await letter(js, "e-1")
    await letter(js, "e-2", reason="malformed", stream_seq=8)
    await letter(js, "e-3", service="kill-switch", stream_seq=9)
    told = await rows("retry", "--service", "logger", "--yes")
    assert {row["number"]: row["outcome"] for row in told} == {1: "retried", 2: "refused"}
    assert (await published(js), await left(js)) == (1, 2)


async def test_a_server_that_dies_meanwhile_ends_it_and_what_is_left_is_said(
    js: JetStreamContext, nats_server: NatsServer
) -> None:
    for number in range(3):
        await letter(js, f"e-{number}", stream_seq=number + 1)
    faults.set_hook(lambda point: nats_server.kill() if point == "dead.published" else None)
    told = await rows("retry", "--all", "--yes")
    assert [(row["number"], row["outcome"]) for row in told] == [(1, "failed"), (2, "failed"), (3, "failed")]
    assert told[0]["why"].endswith("Its letter stays; to retry it again is harmless")
    assert [row["why"] for row in told[1:]] == ["it was not tried"] * 2


# With real readers


@contextlib.asynccontextmanager
async def logger(settings: Settings) -> AsyncIterator[Database]:
    """The logger itself, and its database from beside it."""
    running = asyncio.Event()
    service = run_services([SERVICE], settings, started=lambda _: running.set(), restart=True)
    task = asyncio.create_task(service)
    database = Database(settings.database_for("logger"), name="test")
    try:
        await asyncio.wait_for(running.wait(), 20)
        yield database
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        database.close()


async def logged(database: Database, count: int) -> list[dict[str, Any]]:
    async def found() -> list[dict[str, Any]] | None:
        events = await database.read(lambda conn: store.read_events(conn, "desk", "r-1"))
        return events if len(events) >= count else None

    events = await eventually(found, within=20)
    assert isinstance(events, list)
    return events


async def test_the_run_log_is_healed_by_a_retry(forgetful: JetStreamContext, settings: Settings) -> None:
    js = forgetful
    reader = await js.pull_subscribe_bind(subjects.LOGGER, subjects.RUNS)
    id = await publish(js, "said", by="agent", text="Hi")
    (message,) = await reader.fetch(1)
    await letter(js, id, body=message.data, headers=message.headers, stream_seq=1)  # as a logger that gave up
    await message.ack_sync()
    async with logger(settings) as database:
        last = await publish(js, "said", seq=1, by="agent", text="after it")
        assert [event["id"] for event in await logged(database, 1)] == [last]
        assert (await retried("1")).exit_code == 0
        assert {event["id"] for event in await logged(database, 2)} == {id, last}
    assert await left(js) == 0


async def test_who_could_not_process_it_does_and_who_had_applied_it_ignores_it(
    forgetful: JetStreamContext, nc: Client, settings: Settings
) -> None:
    js, broken, handled = forgetful, True, list[str]()

    async def handle(batch: list[Received]) -> None:
        if broken:
            raise ValueError("a bug")
        handled.extend(received.event.id for received in batch)

    declared = await js.consumer_info(subjects.RUNS, subjects.LOGGER)
    await js.add_consumer(subjects.RUNS, declared.config.evolve(durable_name="t", name="t"))
    reader = RunReader(nc, js, stream=subjects.RUNS, consumer="t", service="t", handle=handle, max_attempts=1)
    task = asyncio.create_task(reader.run())
    async with logger(settings) as database:
        id = await publish(js, "said", by="agent", text="Hi")
        await eventually(lambda: left(js))
        broken = False
        assert (await retried("--service", "t")).exit_code == 0
        await eventually(lambda: handled == [id])
        await publish(js, "said", seq=1, by="agent", text="after it")
        assert [event["seq"] for event in await logged(database, 2)] == [0, 1]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (await published(js), await left(js)) == (3, 0)
