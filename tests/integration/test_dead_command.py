"""`midwatch dead`: what died is looked at, published again once, and deleted only when the server has it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import typer
from nats.aio.client import Client
from nats.js import JetStreamContext
from typer.testing import CliRunner, Result

import shipped_server
from helpers import eventually
from logged import envelope, publish
from midwatch.contracts import codec, control, subjects
from midwatch.contracts.control import DeadLetter
from midwatch.contracts.envelope import utc_now
from midwatch.runtime import faults
from midwatch.runtime.database import Database
from midwatch.runtime.dead_letters import bury
from midwatch.runtime.delivery import Received, RunReader
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.service import run_services
from midwatch.runtime.settings import Settings
from midwatch_services.commands import dead
from midwatch_services.logger import store
from midwatch_services.logger.app import SERVICE
from shipped_server import Connect

server, connect, declared = shipped_server.server, shipped_server.connect, shipped_server.declared
SAID = subjects.run("desk", "said")
FOUR = (subjects.LOGGER, subjects.COST_WATCHDOG, subjects.REVIEWER_SAMPLER, subjects.KILL_SWITCH)
app = typer.Typer()
dead.register(app)


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


async def command(*arguments: str, answer: str = "") -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, ["dead", *arguments], input=answer)


async def rows(*arguments: str) -> list[dict[str, Any]]:
    result = await command(*arguments, "--json")
    return [json.loads(line) for line in result.stdout.splitlines()]


async def letter(js: JetStreamContext, id: str = "e-1", **fields: Any) -> None:
    """A letter of the logger, for an event that the stream no longer has, unless `fields` say otherwise."""
    made = envelope("said", by="agent", text="Hi", id=id)
    wanted: dict[str, Any] = {
        "service": subjects.LOGGER, "reason": "failed", "error": "the disk was full", "subject": SAID,
        "body": codec.encode(made), "attempts": 5, "stream": subjects.RUNS, "stream_seq": 7,
        "headers": {subjects.MSG_ID: id, subjects.TRACEPARENT: "00-aa-bb-01"}, **fields,
    }  # fmt: skip
    await bury(js, wanted.pop("service"), id=f"{id}-{wanted['stream_seq']}-{fields.get('service', '')}", **wanted)


async def left(js: JetStreamContext) -> int:
    return (await js.stream_info(subjects.DEAD)).state.messages


async def published(js: JetStreamContext) -> int:
    return (await js.stream_info(subjects.RUNS)).state.last_seq


async def retried(*arguments: str) -> Result:
    """The retry, once the server has forgotten the id."""

    async def attempt() -> Result | None:
        result = await command("retry", *arguments, "--yes")
        return None if "NOT delivered" in result.output else result

    result = await eventually(attempt)
    assert isinstance(result, Result)
    return result


# Looking


async def test_the_list_has_the_newest_first_with_what_the_person_needs(js: JetStreamContext) -> None:
    await letter(js, "e-1")
    await letter(js, "e-2", service="kill-switch", reason="malformed", error="no JSON", stream_seq=8, attempts=1)
    told = (await command("list")).stdout.splitlines()
    assert told[0].split() == ["number", "when", "service", "reason", "subject", "attempts", "error"]
    assert told[1].split()[0] == "2"
    assert told[1].split()[3:] == ["kill-switch", "malformed", SAID, "1", "no", "JSON"]
    assert told[2].split()[3:] == ["logger", "failed", SAID, "5", "the", "disk", "was", "full"]


async def test_four_services_that_could_not_process_one_message_are_one_line(js: JetStreamContext) -> None:
    for service in FOUR:
        await letter(js, service=service)
    (row,) = await rows("list")
    assert (row["number"], row["numbers"], row["services"]) == (4, [4, 3, 2, 1], sorted(FOUR))


@pytest.mark.parametrize(
    ("filters", "numbers"),
    [
        ((), [3, 2, 1]),
        (("--service", "logger"), [3, 1]),
        (("--reason", "malformed"), [2]),
        (("--agent", "desk"), [2, 1]),
        (("--agent", "re.fund"), [3]),
        (("--service", "logger", "--agent", "desk"), [1]),
        (("--since", "1h"), [3, 2, 1]),
        (("--since", "2999-01-01T00:00"), []),
        (("--limit", "1"), [3]),
    ],
)
async def test_the_list_is_filtered(js: JetStreamContext, filters: tuple[str, ...], numbers: list[int]) -> None:
    await letter(js, "e-1")
    await letter(js, "e-2", service="kill-switch", reason="malformed", stream_seq=8)
    await letter(js, "e-3", subject="midwatch.run.re.fund.said", stream_seq=9)
    assert [row["number"] for row in await rows("list", *filters)] == numbers


async def test_one_letter_is_shown_whole_with_its_body_as_json(js: JetStreamContext) -> None:
    await letter(js)
    told = (await command("show", "1")).stdout
    for part in ("the disk was full", "after 5 attempts", f"{SAID} (MIDWATCH_RUNS 7)", "traceparent: 00-aa-bb-01",
                 '"text": "Hi"', "`midwatch dead retry 1` publishes it again"):  # fmt: skip
        assert part in told
    (row,) = await rows("show", "1")
    assert (row["number"], row["body"]["data"]["text"], row["retry_refused"]) == (1, "Hi", None)


async def test_a_long_body_is_cut_unless_all_is_asked_for(js: JetStreamContext) -> None:
    await letter(js, body=b"x" * 5_000)
    assert "(5,000 characters; --full shows all)" in (await command("show", "1")).stdout
    assert "x" * 5_000 in (await command("show", "1", "--full")).stdout


@pytest.mark.parametrize("body", [b"\x1b[31mred \xff\xfe [bold]", b'{"a": "\x9b31m", "b": "[bold]"}', b"[" * 100_000])
async def test_hostile_text_reaches_no_terminal(js: JetStreamContext, body: bytes) -> None:
    await letter(js, body=body, error="\x1b]0;owned\x07 [red]", headers={"a\x1b": "\x1b[2J"}, subject="x\x1b[1m")
    for arguments in (("list",), ("show", "1", "--full"), ("retry", "1", "--yes")):
        result = await command(*arguments)
        assert result.exit_code in (0, 3), result.output
        assert not [c for c in result.output if not (c.isprintable() or c == "\n")]
    assert "[red]" in (await command("show", "1")).stdout


async def test_what_is_no_dead_letter_is_listed_and_can_be_dropped(js: JetStreamContext) -> None:
    await js.publish(subjects.dead("logger"), b"by hand")
    (row,) = await rows("list")
    assert (row["services"], row["reasons"]) == (["logger"], ["unreadable"])
    assert "by hand" in (await command("show", "1")).stdout
    assert (await command("retry", "1", "--yes")).exit_code == 3
    assert (await command("drop", "1", "--yes")).exit_code == 0
    assert await left(js) == 0


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


@pytest.mark.parametrize("point", ["dead.published", "dead.deleted"])
async def test_a_crash_before_all_letters_are_deleted_is_mended_by_another_retry(
    forgetful: JetStreamContext, point: str
) -> None:
    for service in FOUR:
        await letter(forgetful, service=service)

    def crash(reached: str) -> None:
        if reached == point:
            raise KeyboardInterrupt

    faults.set_hook(crash)
    await command("retry", "4", "--yes")
    faults.set_hook(None)
    assert await left(forgetful) == (4 if point == "dead.published" else 3)
    assert (await retried("1")).exit_code == 0
    assert (await published(forgetful), await left(forgetful)) == (2, 0)


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

    events = await eventually(found, within=10)
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


# Dropping, asking, and what goes wrong


async def test_dropping_deletes_for_good_and_says_how_many(js: JetStreamContext) -> None:
    for service in FOUR:
        await letter(js, service=service)
    await letter(js, "e-2", reason="malformed", stream_seq=8)
    result = await command("drop", "--reason", "malformed", "--yes")
    assert (result.exit_code, result.stdout) == (0, "1 letter dropped\n")
    (row,) = await rows("drop", "1", "--yes")
    assert row == {"dropped": 4, "numbers": [1, 2, 3, 4]}
    assert (await published(js), await left(js)) == (0, 0)


@pytest.mark.parametrize("verb", ["retry", "drop"])
async def test_a_person_is_asked_and_no_is_no(js: JetStreamContext, verb: str) -> None:
    await letter(js)
    result = await command(verb, "1", answer="n\n")
    assert "1 message (1 letter of logger)" in result.stderr
    assert (result.exit_code, await left(js)) == (1, 1)
    assert (await command(verb, "1")).exit_code == 2  # nobody is there to be asked
    assert (await command(verb, "1", answer="y\n")).exit_code == 0
    assert await left(js) == 0


@pytest.mark.parametrize(
    "arguments", [(), ("1", "--all"), ("--all", "--service", "logger"), ("1", "--reason", "x"), ("0",)]
)
@pytest.mark.parametrize("verb", ["retry", "drop"])
async def test_which_letters_are_meant_is_said_in_one_way(verb: str, arguments: tuple[str, ...]) -> None:
    assert (await command(verb, *arguments, "--yes")).exit_code == 2


@pytest.mark.parametrize("arguments", [("show", "9"), ("retry", "1", "9", "--yes"), ("drop", "9", "--yes")])
async def test_a_number_that_is_none_changes_nothing(js: JetStreamContext, arguments: tuple[str, ...]) -> None:
    await letter(js)
    result = await command(*arguments)
    assert (result.exit_code, result.stderr) == (
        1, "midwatch: There is no dead letter 9: `midwatch dead list` names those that are there.\n",
    )  # fmt: skip
    assert (await published(js), await left(js)) == (0, 1)


async def test_nothing_answers_or_nothing_is_declared(nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_URL", nats_server.url)
    result = await command("list")
    assert (result.exit_code, result.stderr) == (
        1, "midwatch: There is no stream MIDWATCH_DEAD: run `midwatch topology apply`.\n",
    )  # fmt: skip
    await nats_server.stop()
    result = await command("list")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "start one with `midwatch up`, or set NATS_URL" in result.stderr


@pytest.mark.usefixtures("declared")
async def test_an_operator_lists_and_shows_and_only_the_admin_retries_and_drops(
    connect: Connect, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def become(user: str) -> None:
        monkeypatch.setenv("NATS_URL", f"nats://{user}:pw-{shipped_server.ROLES[user].lower()}@{server}")

    async with connect("services") as services:
        await letter(services.nc.jetstream())
    become("operator")
    assert [row["number"] for row in await rows("list")] == [1]
    assert '"text": "Hi"' in (await command("show", "1")).stdout
    for verb in ("retry", "drop"):
        result = await command(verb, "1", "--yes")
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
        assert "retrying and dropping them the admin's" in result.stderr
    become(shipped_server.AGENT)
    refused = await command("list")
    assert (refused.exit_code, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
    assert "listing and showing dead letters takes the operator's rights" in refused.stderr
    become("admin")
    assert (await command("retry", "1", "--yes")).exit_code == 0
    assert await rows("list") == []
