"""Digests that the pager brings: to those whom the file names, once, by mail and by chat, whatever fails between."""

import asyncio
import email
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email import policy as mail_policy
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP
from nats.js import JetStreamContext

from digest_helpers import log, service
from helpers import eventually
from logged import received
from midwatch.contracts import codec, subjects
from midwatch.contracts.reviews import DigestWritten
from midwatch.runtime import faults
from midwatch.runtime.settings import Settings
from midwatch_services.pager import messages
from pager_helpers import ROUTES, SECRET, Clock, Crash, Receiver, Ticks, all_heard, listening, pager, rows, write_file
from stack import free_port

QUIET = "quiet_hours: {hours: 00:00-23:59, zone: UTC}\n"
READERS = "digest: {to: owner, agents: {desk: [support, owner]}}\n"


class Mailbox:
    """A mail server that answers each letter as `answers` says, and as taken once that is empty."""

    def __init__(self) -> None:
        self.letters: list[Any] = []
        self.tries = 0
        self.answers: list[str] = []
        self.closing = asyncio.Event()

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:
        self.tries += 1
        answer = self.answers.pop(0) if self.answers else "250 OK"
        if answer == "hang":
            await self.closing.wait()
            return "451 too slow"
        if answer.startswith("250"):
            self.letters.append(email.message_from_bytes(envelope.content, policy=mail_policy.default))
        return answer

    def html(self) -> str:
        (letter,) = self.letters
        return str(letter.get_body(("html",)).get_content())


@contextmanager
def mail_server(port: int) -> Iterator[Mailbox]:
    mailbox = Mailbox()
    controller = Controller(mailbox, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield mailbox
    finally:
        controller.loop.call_soon_threadsafe(mailbox.closing.set)
        controller.stop()


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    found = free_port()
    monkeypatch.setenv("MAIL", f"mailto://127.0.0.1:{found}?from=digest@shop.example&to=owner@shop.example")
    return found


@pytest.fixture(autouse=True)
def ticks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ticks]:
    monkeypatch.setenv("PAGER_SECRET", SECRET)
    yield Ticks(monkeypatch)
    faults.set_hook(None)


@pytest.fixture
def people() -> Iterator[Receiver]:
    with listening() as found:
        yield found


def digest(agent: str = "_fleet", date: str = "2026-11-25", **fields: Any) -> DigestWritten:
    given = {
        "title": "The whole shop: Wednesday, 25 November 2026", "words": 12, "text": "3 runs failed. [1]\n",
        "markdown": "3 runs failed.[^1]\n", "html": "<!doctype html><h1>The whole shop</h1><p>3 runs failed.</p>",
        "brief": "3 runs began.\n\n• 3 runs failed: <b>x</b> @everyone.\n\nThe rest: midwatch digest --date 2026-11-25",
        **fields,
    }  # fmt: skip
    return DigestWritten(agent=agent, date=date, **given)


async def publish(js: JetStreamContext, data: DigestWritten, *, id: str = "") -> None:
    id = id or f"digest-{data.agent}-{data.date}"
    body = codec.encode(codec.envelope("digest", "written", data, source="/services/digest", id=id))
    await js.publish(subjects.digest(data.agent, "written"), body, headers={subjects.MSG_ID: id})


def mail_file(*more: str) -> str:
    channels = "channels:\n  mail: {apprise: '${MAIL}'}\ncontacts: {owner: mail, support: mail, all: mail}\n"
    return channels + ROUTES + QUIET + "".join(more)


async def test_mail_gets_the_whole_page_at_any_hour(js: JetStreamContext, settings: Settings, port: int) -> None:
    write_file(settings, mail_file(READERS))
    with mail_server(port) as mailbox:
        async with pager(settings):
            await publish(js, digest())
            await eventually(lambda: mailbox.letters, within=10)
    (letter,) = mailbox.letters
    assert letter["to"] == "owner@shop.example"
    assert letter["subject"] == "The whole shop: Wednesday, 25 November 2026"
    assert "<h1>The whole shop</h1><p>3 runs failed.</p>" in mailbox.html()
    assert "3 runs failed." in letter.get_body(("plain",)).get_content()


async def test_a_day_in_the_log_is_a_mail_in_the_morning(js: JetStreamContext, settings: Settings, port: int) -> None:
    at = datetime(2026, 11, 25, 12, tzinfo=UTC)
    log(settings, [received("started", at=at, stored_at=at, input="<b>Where</b> is my order?"),
                   received("finished", at=at, stored_at=at, resolution="resolved", seq=1)])  # fmt: skip
    write_file(settings, mail_file("digest: {agents: {desk: owner}}\n"))
    with mail_server(port) as mailbox:
        async with pager(settings), service(settings, lambda: datetime(2026, 11, 26, 7, tzinfo=UTC)):
            await eventually(lambda: mailbox.letters, within=15)
    assert mailbox.letters[0]["subject"] == "Desk: Wednesday, 25 November 2026"
    assert "1 run began on this day: 1 settled." in mailbox.html()
    assert "A customer wrote “&lt;b&gt;Where&lt;/b&gt; is my order?”" in mailbox.html()


async def test_a_digest_goes_to_its_own_readers_each_once(
    js: JetStreamContext, settings: Settings, people: Receiver
) -> None:
    names = ("owner", "support", "oncall")
    lines = [f'  {name}: {{webhook: "{people.url}/{name}", secret: "${{PAGER_SECRET}}"}}\n' for name in names]
    contacts = "contacts: {owner: owner, support: support, all: oncall}\n"
    write_file(settings, "channels:\n" + "".join(lines) + contacts + ROUTES + READERS)
    async with pager(settings):
        await publish(js, digest())
        await publish(js, digest("desk", title="Desk"))
        await publish(js, digest("other", title="Other"))
        await publish(js, digest("desk", title="Desk"), id="the-same-again")
        await eventually(lambda: len(people.calls) >= 3)
        await eventually(lambda: all_heard(js))
        await publish(js, digest("desk", "2026-11-26", title="Desk"))
        await eventually(lambda: len(people.at("/support")) == 2)
    told = sorted((call.path, call.said["data"]["agent"], call.said["data"]["date"]) for call in people.calls)
    assert told == [
        ("/owner", "_fleet", "2026-11-25"), ("/owner", "desk", "2026-11-25"), ("/owner", "desk", "2026-11-26"),
        ("/support", "desk", "2026-11-25"), ("/support", "desk", "2026-11-26"),
    ]  # fmt: skip
    call = people.at("/support")[0]
    assert call.said["type"] == "digest.written"
    assert call.id == "digest-desk-2026-11-25"
    assert set(call.said["data"]) == {"agent", "date", "title", "words", "text", "markdown", "html", "brief"}


async def test_where_nobody_reads_digests_nothing_is_sent_or_complained_of(
    js: JetStreamContext, settings: Settings, people: Receiver, capfd: pytest.CaptureFixture[str]
) -> None:
    channel = f'channels: {{ann: {{webhook: "{people.url}/ann", secret: "${{PAGER_SECRET}}"}}}}\n'
    write_file(settings, channel + "contacts: {all: ann}\n" + ROUTES)
    async with pager(settings):
        await publish(js, digest())
        await eventually(lambda: all_heard(js))
    assert people.calls == []
    assert rows(settings, "SELECT id FROM pager_deliveries") == []
    assert "digest" not in capfd.readouterr().err


async def test_a_mail_server_that_refuses_and_hangs_gets_it_once_in_the_end(
    js: JetStreamContext, settings: Settings, port: int, ticks: Ticks
) -> None:
    write_file(settings, mail_file(READERS, "delivery: {within: 0.5s}\n"))
    clock = Clock()
    with mail_server(port) as mailbox:
        mailbox.answers = ["500 not now", "451 later", "hang"]
        async with pager(settings, clock):
            await publish(js, digest())
            for tries in (1, 2, 3):
                await eventually(lambda tries=tries: mailbox.tries >= tries, within=15)  # type: ignore[misc]
                await eventually(lambda: rows(settings, "SELECT id FROM pager_deliveries WHERE error IS NOT NULL"))
                clock.forward(minutes=10)
            await eventually(lambda: mailbox.letters, within=15)
            assert mailbox.tries == 4
            await eventually(lambda: rows(settings, "SELECT id FROM pager_deliveries WHERE phase = 'sent'"))
            clock.forward(hours=2)
            await ticks.settled(js, settings)
    assert "3 runs failed." in mailbox.html()


async def test_what_waits_survives_a_restart(js: JetStreamContext, settings: Settings, port: int) -> None:
    write_file(settings, mail_file(READERS))
    async with pager(settings):  # there is no mail server yet
        await publish(js, digest())
        await eventually(lambda: rows(settings, "SELECT id FROM pager_deliveries WHERE error IS NOT NULL"), within=15)
    with mail_server(port) as mailbox:
        for _ in range(2):
            async with pager(settings):
                await eventually(lambda: mailbox.letters, within=15)
                await eventually(lambda: rows(settings, "SELECT id FROM pager_deliveries WHERE phase = 'sent'"))
    assert len(mailbox.letters) == 1


async def test_a_kill_before_the_attempt_is_tried_again_by_the_next_process(
    js: JetStreamContext, settings: Settings, port: int
) -> None:
    write_file(settings, mail_file(READERS))

    def crash(reached: str) -> None:
        if reached == "pager.claimed":
            faults.set_hook(None)
            raise Crash

    with mail_server(port) as mailbox:
        async with pager(settings) as task:
            faults.set_hook(crash)
            await publish(js, digest())
            with pytest.raises(Crash):
                async with asyncio.timeout(10):
                    await task
        assert mailbox.letters == []
        async with pager(settings):
            await eventually(lambda: mailbox.letters, within=15)
    assert len(mailbox.letters) == 1


async def test_a_digest_that_waited_too_long_is_sent_to_nobody(
    js: JetStreamContext, settings: Settings, people: Receiver
) -> None:
    channel = f'channels: {{ann: {{webhook: "{people.url}/ann", secret: "${{PAGER_SECRET}}"}}}}\n'
    write_file(settings, channel + "contacts: {owner: ann, all: ann, support: ann}\n" + ROUTES + READERS)
    clock = Clock()
    clock.forward(days=2, minutes=1)
    await publish(js, digest())
    async with pager(settings, clock):
        await eventually(lambda: all_heard(js))
        assert rows(settings, "SELECT id FROM pager_deliveries") == []


async def test_a_chat_gets_the_beginning_as_text_and_no_page(
    js: JetStreamContext, settings: Settings, people: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = people.url.rsplit(":", 1)[1]
    monkeypatch.setenv("CHAT", f"json://127.0.0.1:{port}/chat")
    contacts = "contacts: {owner: chat, support: chat, all: chat}\n"
    write_file(settings, "channels: {chat: {apprise: '${CHAT}'}}\n" + contacts + ROUTES + READERS)
    async with pager(settings):
        await publish(js, digest())
        await eventually(lambda: people.calls, within=10)
    (call,) = people.calls
    assert call.said["title"] == "The whole shop: Wednesday, 25 November 2026"
    assert "• 3 runs failed: ‹b›x‹/b› ＠everyone." in call.said["message"]
    assert call.said["message"].endswith("The rest: midwatch digest --date 2026-11-25")


def test_a_chat_is_cut_by_whole_lines_and_says_where_the_rest_is() -> None:
    lines = [f"• Line {number} of many." for number in range(100)]
    data = digest(brief="\n".join([*lines, "The rest: midwatch digest --date 2026-11-25"]))
    text = messages.chat(data, 200)
    assert len(text) <= 200
    shown = text.splitlines()
    assert shown[:-1] == lines[: len(shown) - 1]
    assert shown[-1] == "The rest: midwatch digest --date 2026-11-25"
    assert len(messages.chat(data, 20)) <= 20
