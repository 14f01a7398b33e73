"""What a help desk is told over HTTP, and what it may say: a real server on its side, a real nats-server on ours."""

import asyncio
import base64
import hashlib
import hmac
import json
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from nats.js import JetStreamContext
from pydantic import SecretStr

from desk import KEY, SECRET, Desk, listening
from helpers import eventually
from kill_switch_helpers import Crash, said
from midwatch.contracts import codec, subjects
from midwatch.contracts.control import DeadLetter
from midwatch.contracts.governance import CaseOpened
from midwatch.errors import MidwatchError
from midwatch.runtime import faults
from midwatch.runtime import webhook_signing as signing
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.outbox import Outbox
from midwatch.runtime.settings import Settings
from midwatch_services.kill_switch.cases import webhook as module
from midwatch_services.kill_switch.cases.webhook import Target, Webhook, key_in, target
from midwatch_services.kill_switch.policy import Policy

QUICK = Policy(
    webhook_within=timedelta(seconds=0.5), webhook_first=timedelta(seconds=0.05),
    webhook_longest=timedelta(seconds=0.1),
)  # fmt: skip


@pytest.fixture
def desk() -> Iterator[Desk]:
    with listening(Desk()) as found:
        yield found


@dataclass
class World:
    js: JetStreamContext
    database: Database
    url: str

    def webhook(self, policy: Policy = QUICK, now: Callable[[], datetime] | None = None) -> Webhook:
        outbox = Outbox(self.database, "kill_switch", self.js)
        clock = now or (lambda: datetime.now(UTC))
        return Webhook(Target(self.url, KEY), self.js, self.database, outbox, clock, policy)

    async def hear(self, webhook: Webhook, event: str, case: CaseOpened) -> None:
        await self.database.write(lambda conn: webhook.hear(conn, event, case))


@asynccontextmanager
async def running(webhook: Webhook) -> AsyncIterator[None]:
    task = asyncio.create_task(webhook.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def world(js: JetStreamContext, settings: Settings, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(module, "TICK", 0.01)
    url = settings.database_for(subjects.KILL_SWITCH)
    migrate(url, subjects.KILL_SWITCH)
    database = Database(url)
    yield World(js, database, desk.url)
    faults.set_hook(None)
    database.close()


def case(name: str = "case-1", **more: Any) -> CaseOpened:
    return CaseOpened(
        case_id=name, agent="desk", run_id=f"run-of-{name}", to="human", reason="wrong refunds",
        opened_by="kill-switch", ticket="T-1", input="Where is my refund?", **more,
    )  # fmt: skip


async def test_a_case_is_told_with_its_whole_context_and_a_signature_by_the_standard(world: World, desk: Desk) -> None:
    webhook = world.webhook()
    async with running(webhook):
        await world.hear(webhook, "opened", case(events=[{"event": "started", "input": "Where is my refund?"}]))
        [call] = await eventually(lambda: desk.calls)
    said = call.said
    assert (said["type"], said["data"]["case_id"], said["data"]["ticket"]) == ("case.opened", "case-1", "T-1")
    assert said["data"]["events"] == [{"event": "started", "input": "Where is my refund?"}]
    assert datetime.fromisoformat(said["timestamp"]).tzinfo is not None
    # As https://www.standardwebhooks.com has it, written out.
    signed = f"{call.headers['webhook-id']}.{call.headers['webhook-timestamp']}.".encode() + call.body
    signature = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert call.headers["webhook-signature"] == f"v1,{signature}"
    assert abs(int(call.headers["webhook-timestamp"]) - datetime.now(UTC).timestamp()) < 60
    assert call.headers["content-type"] == "application/json"


async def test_an_answer_that_names_who_accepts_takes_the_case(world: World, desk: Desk) -> None:
    desk.reply = lambda said: (201, b'{"accepted_by": "zendesk", "reference": "ZD-7", "url": "https://x"}')
    webhook = world.webhook()
    async with running(webhook):
        await world.hear(webhook, "opened", case())
        [(event, data)] = await eventually(lambda: said_of_cases(world.js))
    assert (event, data.case_id, data.by, data.reference) == ("accepted", "case-1", "zendesk", "ZD-7")


async def said_of_cases(js: JetStreamContext) -> list[tuple[str, Any]]:
    return await said(js, "case")


@pytest.mark.parametrize("answer", [b"", b"thanks", b'{"accepted_by": ""}', b'{"accepted_by": 7}', b"[" * 9999])
async def test_an_answer_that_names_nobody_leaves_the_case_in_the_queue(
    world: World, desk: Desk, answer: bytes
) -> None:
    desk.reply = lambda said: (200, answer)
    webhook = world.webhook()
    async with running(webhook):
        await world.hear(webhook, "opened", case())
        await eventually(lambda: desk.calls)
        await eventually(lambda: all_sent(world))
    assert (len(desk.calls), await said_of_cases(world.js)) == (1, [])


async def all_sent(world: World) -> bool:
    query = "SELECT count(*) FROM kill_switch_webhook_calls WHERE sent_at IS NULL"
    return bool(await world.database.read(lambda conn: conn.exec_driver_sql(query).scalar()) == 0)


@pytest.mark.parametrize("status", [302, 307, 400, 401, 404, 500, 503])
async def test_what_was_not_taken_is_told_again_with_the_same_id(world: World, desk: Desk, status: int) -> None:
    desk.reply = lambda said: (status if len(desk.calls) < 3 else 200, b"")
    webhook = world.webhook()
    async with running(webhook):
        await world.hear(webhook, "opened", case())
        await eventually(lambda: all_sent(world))
    assert len(desk.calls) == 3, "a redirect is not followed"
    assert len({call.headers["webhook-id"] for call in desk.calls}) == 1


async def test_the_pause_between_two_attempts_doubles_up_to_its_limit(world: World, desk: Desk) -> None:
    desk.reply = lambda said: (500, b"")
    at = datetime(2026, 11, 22, tzinfo=UTC)
    clock = [at]
    policy = Policy(webhook_longest=timedelta(seconds=6))
    webhook = world.webhook(policy, now=lambda: clock[0])
    pauses = []
    async with running(webhook):
        await world.hear(webhook, "opened", case())
        for attempt in range(1, 6):
            due = await eventually(lambda n=attempt: next_due(world, n))
            pauses.append((due - clock[0]).total_seconds())
            clock[0] = due
    assert pauses == [1, 2, 4, 6, 6]


async def next_due(world: World, attempts: int) -> datetime | None:
    query = f"SELECT due_at FROM kill_switch_webhook_calls WHERE attempts = {attempts}"
    due = await world.database.read(lambda conn: conn.exec_driver_sql(query).scalar())
    return None if due is None else datetime.fromtimestamp(due / 1e6, UTC)


async def test_a_help_desk_that_hangs_is_left_after_the_limit_and_holds_up_no_other_case(
    world: World, desk: Desk
) -> None:
    hang = threading.Event()

    def reply(said: dict[str, Any]) -> tuple[int, bytes]:
        if said["data"]["case_id"] == "case-slow":
            hang.wait(10)
        return 200, b""

    desk.reply = reply
    webhook = world.webhook(replace(QUICK, webhook_within=timedelta(seconds=30)))
    try:
        async with running(webhook):
            await world.hear(webhook, "opened", case("case-slow"))
            await eventually(lambda: desk.calls)
            for n in range(5):
                await world.hear(webhook, "opened", case(f"case-{n}"))
            await eventually(lambda: len(desk.calls) == 6)
    finally:
        hang.set()


@pytest.mark.parametrize("turns", range(4))
async def test_it_ends_whatever_happens_at_the_moment_when_it_shall(world: World, turns: int) -> None:
    webhook = world.webhook(QUICK)
    task = asyncio.create_task(webhook.run())
    await asyncio.sleep(0.05)
    webhook._room.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task], timeout=1)
    assert task.cancelled()


async def test_no_answer_within_the_limit_is_a_failure(world: World, desk: Desk) -> None:
    hang = threading.Event()

    def reply(_: dict[str, Any]) -> tuple[int, bytes]:
        if len(desk.calls) == 1:
            hang.wait(10)
        return 200, b""

    desk.reply = reply
    webhook = world.webhook(replace(QUICK, webhook_within=timedelta(seconds=0.1)))
    try:
        async with running(webhook):
            await world.hear(webhook, "opened", case())
            await eventually(lambda: len(desk.calls) == 2)
    finally:
        hang.set()


async def test_the_end_of_a_case_is_told_after_its_beginning(world: World, desk: Desk) -> None:
    desk.reply = lambda said: (500 if len(desk.calls) < 3 else 200, b"")
    webhook = world.webhook()
    await world.hear(webhook, "opened", case())
    await world.hear(webhook, "closed", case())
    async with running(webhook):
        await eventually(lambda: len(desk.calls) == 4)
        await eventually(lambda: all_sent(world))
    assert desk.told() == [("case-1", "case.opened")] * 3 + [("case-1", "case.closed")]


async def test_of_what_it_was_not_told_a_help_desk_hears_no_end(world: World, desk: Desk) -> None:
    webhook = world.webhook()
    async with running(webhook):
        await world.hear(webhook, "closed", case("case-1"))
        await world.hear(webhook, "opened", case("case-2", mode="drill"))
        await world.hear(webhook, "closed", case("case-2", mode="drill"))
        await world.hear(webhook, "opened", case("case-3"))
        await eventually(lambda: all_sent(world))
    assert desk.told() == [("case-3", "case.opened")]


async def test_a_case_that_is_said_twice_is_told_once(world: World, desk: Desk) -> None:
    webhook = world.webhook()
    async with running(webhook):
        await world.hear(webhook, "opened", case())
        await eventually(lambda: all_sent(world))
        await world.hear(webhook, "opened", case())
        await world.hear(webhook, "opened", case("case-2"))
        await eventually(lambda: len(desk.calls) == 2)
    assert desk.told() == [("case-1", "case.opened"), ("case-2", "case.opened")]


async def test_what_waits_is_told_by_the_next_process(world: World, desk: Desk) -> None:
    await world.hear(world.webhook(), "opened", case())
    async with running(world.webhook()):
        await eventually(lambda: desk.calls)


async def test_a_crash_after_the_answer_tells_again_under_the_same_id_and_takes_once(world: World, desk: Desk) -> None:
    desk.reply = lambda said: (200, b'{"accepted_by": "zendesk"}')

    def crash(point: str) -> None:
        if point == "webhook.answered":
            raise Crash

    webhook = world.webhook()
    await world.hear(webhook, "opened", case())
    faults.set_hook(crash)
    with pytest.raises(Crash):
        await webhook.run()
    assert await said_of_cases(world.js) == []
    faults.set_hook(None)
    async with running(world.webhook()):
        [(event, data)] = await eventually(lambda: said_of_cases(world.js))
    assert (event, data.by) == ("accepted", "zendesk")
    assert len({call.headers["webhook-id"] for call in desk.calls}) == 1


async def test_what_no_help_desk_takes_for_three_days_is_a_dead_letter(world: World, desk: Desk) -> None:
    desk.reply = lambda said: (500, b"")
    clock = [datetime.now(UTC)]
    webhook = world.webhook(Policy(), now=lambda: clock[0])
    await world.hear(webhook, "opened", case())
    clock[0] += timedelta(days=3)
    async with running(webhook):
        await eventually(lambda: all_sent(world))
    message = await world.js.get_last_msg(subjects.DEAD, subjects.dead(subjects.KILL_SWITCH))
    letter = codec.msgspec.json.decode(message.data or b"", type=DeadLetter)
    assert letter.subject == subjects.case("desk", "opened")
    assert "500" in letter.error
    assert json.loads(letter.data)["data"]["case_id"] == "case-1"


@pytest.mark.postgres
async def test_it_is_told_in_order_from_postgresql_too(
    js: JetStreamContext, desk: Desk, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TICK", 0.01)
    desk.reply = lambda said: (500 if len(desk.calls) < 3 else 200, b"")
    url = postgres_url.replace("postgresql://", "postgresql+psycopg://")
    migrate(url, subjects.KILL_SWITCH)
    world = World(js, Database(url), desk.url)
    webhook = world.webhook()
    try:
        await world.hear(webhook, "opened", case())
        await world.hear(webhook, "closed", case())
        async with running(webhook):
            await eventually(lambda: len(desk.calls) == 4)
            await eventually(lambda: all_sent(world))
    finally:
        world.database.close()
    assert desk.told() == [("case-1", "case.opened")] * 3 + [("case-1", "case.closed")]


async def test_a_certificate_that_nobody_vouches_for_gets_no_word(
    world: World, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed, which makes the certificate")
    command = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout key.pem -out cert.pem"
    made = [*command.split(), "-addext", "subjectAltName=DNS:localhost"]
    await asyncio.to_thread(subprocess.run, ["openssl", *made], cwd=tmp_path, check=True, capture_output=True)
    with listening(Desk(), certificate=tmp_path) as theirs:
        world.url = theirs.url
        webhook = world.webhook()
        async with running(webhook):
            await world.hear(webhook, "opened", case())
            await eventually(lambda: next_due(world, 1))
            assert theirs.calls == []
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
            await eventually(lambda: theirs.calls)


# Settings


def of(settings: Settings, url: str | None, secret: str | None) -> Settings:
    return settings.model_copy(
        update={"cases_webhook": url, "cases_webhook_secret": SecretStr(secret) if secret else None}
    )


def test_without_a_secret_one_line_says_what_to_set(
    settings: Settings, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    without = of(settings, "https://desk.example/cases", None)
    assert target(without, key_in(without)) == Target("https://desk.example/cases", None)
    printed = capsys.readouterr().out + caplog.text
    assert printed.count("MIDWATCH_CASES_WEBHOOK_SECRET") >= 1


async def test_without_a_secret_cases_wait_until_there_is_one(world: World, desk: Desk) -> None:
    outbox = Outbox(world.database, "kill_switch", world.js)
    silent = Webhook(Target(desk.url, None), world.js, world.database, outbox, lambda: datetime.now(UTC), QUICK)
    await world.hear(silent, "opened", case())
    assert not silent.is_on
    async with running(world.webhook()):
        await eventually(lambda: desk.calls)


@pytest.mark.parametrize(
    "url", ["desk.example", "ftp://desk.example", "file:///etc/passwd", "https://a:b@desk", "http://"]
)
def test_what_is_no_address_is_refused(settings: Settings, url: str) -> None:
    assert target(of(settings, url, SECRET), KEY) is None


def test_the_secret_is_read_as_people_and_libraries_write_it(settings: Settings) -> None:
    assert key_in(of(settings, None, SECRET)) == KEY
    assert key_in(of(settings, None, "whsec_%%%")) is None
    assert signing.key_of("a plain text of some length") == b"a plain text of some length"
    for bad in ("short", "whsec_%%%", "whsec_c2hvcnQ="):
        with pytest.raises(MidwatchError, match="whsec_ and base64"):
            signing.key_of(bad)


def test_the_secret_shows_in_no_settings(settings: Settings) -> None:
    assert SECRET not in repr(of(settings, "http://x", SECRET))
