"""How messages get to people: retries, crashes, channels that hang, die and come back, and what is read there."""

import asyncio
import base64
import email
import hashlib
import hmac
import io
import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from email import policy as mail_policy
from typing import Any

import jsonschema
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP
from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from helpers import eventually
from midwatch.runtime import faults
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.settings import Settings
from pager_helpers import (
    FILE,
    KEY,
    SECRET,
    Call,
    Clock,
    Crash,
    Receiver,
    Ticks,
    alerts_said,
    ids,
    listening,
    pager,
    rows,
    say,
    told,
    write_file,
)  # fmt: skip
from stack import free_port

# As https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml has postableAlerts.
POSTABLE_ALERTS = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["labels"],
        "additionalProperties": False,
        "properties": {
            "startsAt": {"type": "string", "format": "date-time"},
            "endsAt": {"type": "string", "format": "date-time"},
            "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}, "required": ["alertname"]},
            "generatorURL": {"type": "string", "format": "uri"},
        },
    },
}
ROUTES = "routes: {on-call: {steps: [{tell: all, within: 1h}]}}\ndefault: on-call\n"


@pytest.fixture
def people() -> Iterator[Receiver]:
    with listening() as found:
        yield found


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def ticks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ticks]:
    monkeypatch.setenv("PAGER_SECRET", SECRET)
    yield Ticks(monkeypatch)
    faults.set_hook(None)


def channels(people: Receiver, *names: str) -> str:
    """A file that tells all the channels at once."""
    lines = [f'  {name}: {{webhook: "{people.url}/{name}", secret: "${{PAGER_SECRET}}"}}' for name in names]
    return "channels:\n" + "\n".join(lines) + f"\ncontacts: {{all: [{', '.join(names)}]}}\n{ROUTES}"


async def test_a_webhook_is_signed_by_the_standard(js: JetStreamContext, settings: Settings, people: Receiver) -> None:
    write_file(settings, FILE % {"url": people.url})
    async with pager(settings):
        await say(js, "raised")
        [call] = await told(people, "/ann", "page")
    signed = f"{call.headers['webhook-id']}.{call.headers['webhook-timestamp']}.".encode() + call.body
    signature = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert call.headers["webhook-signature"] == f"v1,{signature}"
    assert call.said["type"] == "alert.page"
    assert call.said["data"]["action_taken"] == "halted_run"
    assert call.said["data"]["evidence"] == "midwatch show run-a-1"


@pytest.mark.parametrize("fault", [500, 503, 429, None], ids=["500", "503", "429", "no answer"])
async def test_what_was_not_taken_is_sent_again_under_the_same_id(
    js: JetStreamContext, settings: Settings, people: Receiver, clock: Clock, fault: int | None
) -> None:
    people.reply = lambda call: 200 if len(people.calls) > 2 else fault
    write_file(settings, FILE % {"url": people.url} + "delivery: {within: 0.2s}\n")
    async with pager(settings, clock):
        await say(js, "raised")
        await eventually(lambda: len(people.calls) == 1)
        clock.forward(seconds=2)
        await eventually(lambda: rows(settings, "SELECT error FROM pager_deliveries WHERE error IS NOT NULL"))
        clock.forward(seconds=2)
        await eventually(lambda: len(people.calls) == 2)
        await eventually(lambda: rows(settings, "SELECT attempts FROM pager_deliveries") == [{"attempts": 2}])
        await eventually(lambda: rows(settings, "SELECT error FROM pager_deliveries WHERE error IS NOT NULL"))
        clock.forward(seconds=10)
        calls = await told(people, "/ann", "page", "page", "page")
        assert len(set(ids(calls))) == 1
        await eventually(
            lambda: rows(settings, "SELECT phase, attempts FROM pager_deliveries") == [{"phase": "sent", "attempts": 3}]
        )


async def test_the_delay_grows_and_ends_after_hours(js: JetStreamContext, settings: Settings, clock: Clock) -> None:
    write_file(settings, FILE % {"url": "http://127.0.0.1:1"} + "delivery: {give_up_after: 1h}\n")
    delays = []
    async with pager(settings, clock):
        await say(js, "raised")
        for attempt in range(1, 60):
            health = f"SELECT channel FROM pager_channels WHERE channel = 'ann' AND failures = {attempt}"
            await eventually(lambda health=health: rows(settings, health))
            (row,) = rows(settings, "SELECT * FROM pager_deliveries WHERE channel = 'ann'")
            if row["phase"] != "waiting":
                break
            delays.append((row["due_at"] - row["tried_at"]) / 1e6)
            clock.forward(seconds=delays[-1])
    assert (row["phase"], row["error"]) == ("given_up", "it cannot be reached (connection refused)")
    assert 0.7 < delays[0] < 1.4
    assert 2.9 < delays[2] < 5.1
    assert max(delays) < 376
    assert 3000 < sum(delays) < 3700


async def test_a_channel_that_hangs_holds_up_no_other(
    js: JetStreamContext, settings: Settings, people: Receiver
) -> None:
    people.reply = lambda call: None if call.path == "/slow" else 200
    write_file(settings, channels(people, "slow", "quick"))
    async with pager(settings):
        for number in range(3):
            await say(js, "raised", f"a-{number}", agent=f"desk-{number}")
        began = time.monotonic()
        await told(people, "/quick", "page", "page", "page")
        assert time.monotonic() - began < 2
        assert len(people.at("/slow")) == 1


async def test_what_waits_for_a_channel_goes_out_at_once_when_the_channel_takes_another(
    js: JetStreamContext, settings: Settings, people: Receiver, clock: Clock
) -> None:
    people.reply = lambda call: 410
    write_file(settings, channels(people, "one"))
    async with pager(settings, clock):
        await say(js, "raised", "a-1")
        await eventually(lambda: rows(settings, "SELECT error FROM pager_deliveries WHERE error IS NOT NULL"))
        people.reply = lambda call: 200
        await say(js, "raised", "a-2", agent="other")
        await eventually(lambda: len(rows(settings, "SELECT id FROM pager_deliveries WHERE phase = 'sent'")) == 2)
    assert [call.said["data"]["alert_id"] for call in people.calls] == ["a-1", "a-2", "a-1"]


async def test_a_page_goes_before_the_tickets_that_wait(
    js: JetStreamContext, settings: Settings, people: Receiver
) -> None:
    gate = threading.Event()
    people.reply = lambda call: 200 if gate.wait(10) else 500
    write_file(settings, channels(people, "one"))
    async with pager(settings):
        for number in range(5):
            await say(js, "raised", f"t-{number}", agent=f"desk-{number}", severity="ticket")
        await eventually(lambda: people.calls)
        await say(js, "raised", "p-1")
        await eventually(lambda: len(rows(settings, "SELECT id FROM pager_deliveries")) == 6)
        gate.set()
        calls = await told(people, "/one", *["page"] * 6)
    assert [call.said["data"]["alert_id"] for call in calls].index("p-1") == 1


POINTS = [
    "delivery.received", "pager.decided", "delivery.handled", "delivery.drained", "delivery.acked", "pager.claimed",
    "pager.sent", "pager.saved",
]  # fmt: skip


@pytest.mark.parametrize("point", POINTS)
async def test_a_crash_between_any_two_steps_loses_no_page(
    js: JetStreamContext, settings: Settings, people: Receiver, point: str
) -> None:
    write_file(settings, FILE % {"url": people.url})

    def hook(reached: str) -> None:
        if reached == point:
            faults.set_hook(None)
            raise Crash

    async with pager(settings) as running:
        faults.set_hook(hook)
        await say(js, "raised")
        with pytest.raises(BaseException) as ended:
            await asyncio.wait_for(running, 10)
        assert ended.group_contains(Crash) if isinstance(ended.value, BaseExceptionGroup) else True
    async with pager(settings):
        await eventually(lambda: rows(settings, "SELECT id FROM pager_deliveries WHERE phase = 'sent'"), within=40)
        assert len(set(ids(people.at("/ann")))) == 1
        assert len(people.calls) == (2 if point == "pager.sent" else 1)


async def test_a_crash_right_after_an_escalation_was_decided_sends_it_once(
    js: JetStreamContext, settings: Settings, people: Receiver, clock: Clock, ticks: Ticks
) -> None:
    write_file(settings, FILE % {"url": people.url})

    def hook(reached: str) -> None:
        if reached == "pager.ticked":
            faults.set_hook(None)
            raise Crash

    async with pager(settings, clock) as running:
        await say(js, "raised")
        await told(people, "/ann", "page")
        await ticks.settled(js, settings)
        faults.set_hook(hook)
        clock.forward(minutes=10)
        with pytest.raises(BaseException):  # noqa: B017, a crash in a task group comes wrapped
            await asyncio.wait_for(running, 10)
    async with pager(settings, clock):
        await told(people, "/bob", "escalated")
        await ticks.settled(js, settings)
        assert people.whats("/bob") == ["escalated"]


async def test_a_page_that_was_saved_and_not_sent_is_sent_by_the_next_process(
    js: JetStreamContext, settings: Settings, people: Receiver
) -> None:
    people.reply = lambda call: 503
    write_file(settings, FILE % {"url": people.url})
    async with pager(settings):
        await say(js, "raised")
        await eventually(lambda: people.calls)
    people.reply = lambda call: 200
    async with pager(settings):
        await eventually(lambda: rows(settings, "SELECT id FROM pager_deliveries WHERE phase = 'sent'"))
    assert len(set(ids(people.calls))) == 1


# Dead channels


@pytest.mark.parametrize("status", [401, 404, 410])
async def test_a_channel_that_refuses_is_dead_at_once_and_the_others_say_so_until_it_works(
    js: JetStreamContext, settings: Settings, people: Receiver, clock: Clock, ticks: Ticks, status: int
) -> None:
    people.reply = lambda call: status if call.path == "/ann" else 200
    write_file(settings, channels(people, "ann", "bob"))
    async with pager(settings, clock):
        await say(js, "raised")
        _, dead = await told(people, "/bob", "page", "page")
        assert (dead.said["data"]["rule"], dead.said["data"]["agent"]) == ("channel_dead", "_fleet")
        assert dead.said["data"]["title"].startswith(f"The channel ann takes no alerts: it answers {status}")
        await ticks.settled(js, settings)
        assert ids(people.at("/ann")) == ["a-1-1"], "its death is not told through itself"
        people.reply = lambda call: 200
        clock.forward(minutes=8)
        await eventually(lambda: len(people.at("/ann")) == 2)
        await ticks.settled(js, settings)
        clock.forward(minutes=1)
        await eventually(lambda: [call.what for call in people.at("/bob")] == ["page", "page", "ended"])
        assert people.at("/bob")[2].said["data"]["rule"] == "channel_dead"
        await ticks.settled(js, settings)
        assert [call.said["data"]["rule"] for call in people.at("/ann")] == ["budget_run", "budget_run"]
        said = await alerts_said(js, "channel_dead")
        assert [event for event, _ in said] == ["raised", "resolved"]
        assert (said[0][1].severity, said[0][1].dedupe_key) == ("page", "channel_dead/ann")
        assert said[1][1].reason == "the channel ann works again"


async def test_a_channel_that_fails_over_some_minutes_is_dead(
    js: JetStreamContext, settings: Settings, people: Receiver, clock: Clock, ticks: Ticks
) -> None:
    people.reply = lambda call: 500 if call.path == "/ann" else 200
    write_file(settings, channels(people, "ann", "bob"))
    async with pager(settings, clock):
        await say(js, "raised")
        await told(people, "/bob", "page")
        for number in range(1, 6):
            await eventually(lambda number=number: len(people.at("/ann")) == number)
            await ticks.settled(js, settings)
            assert people.whats("/bob") == ["page"]
            clock.forward(seconds=25)
        await told(people, "/bob", "page", "page")
        assert people.at("/bob")[1].said["data"]["rule"] == "channel_dead"


async def test_where_every_channel_is_dead_nothing_goes_round_in_circles(
    js: JetStreamContext, settings: Settings, people: Receiver, clock: Clock, ticks: Ticks
) -> None:
    people.reply = lambda call: 410
    write_file(settings, channels(people, "ann", "bob"))
    async with pager(settings, clock):
        await say(js, "raised")
        await eventually(lambda: len(rows(settings, "SELECT * FROM pager_channels WHERE dead_at > 0")) == 2)
        await ticks.settled(js, settings)
        for _ in range(5):
            clock.forward(minutes=1)
            await ticks.settled(js, settings)
        said = await alerts_said(js, "channel_dead")
        assert [event for event, _ in said] == ["raised", "raised"]
        assert len(people.calls) <= 6


async def test_without_nats_people_are_called_all_the_same_and_it_is_said_later(
    js: JetStreamContext, nats_server: NatsServer, settings: Settings, people: Receiver, clock: Clock
) -> None:
    write_file(settings, FILE % {"url": people.url})
    async with pager(settings, clock):
        await say(js, "raised")
        await told(people, "/ann", "page")
        await nats_server.stop()
        people.reply = lambda call: 410 if call.path == "/bob" else 200
        clock.forward(minutes=10)
        await told(people, "/bob", "escalated", within=15)
        _, dead = await told(people, "/ann", "page", "page", within=15)
        assert dead.said["data"]["rule"] == "channel_dead"
        await nats_server.start()

        async def is_said() -> bool:
            try:
                return [event for event, _ in await alerts_said(js, "channel_dead")] == ["raised"]
            except (NatsError, TimeoutError):
                return False

        await eventually(is_said, within=20)
    assert [call.said["data"]["rule"] for call in people.at("/ann")] == ["budget_run", "channel_dead"]


async def test_a_dead_channel_that_is_taken_out_of_the_file_is_dead_no_more(
    js: JetStreamContext, settings: Settings, people: Receiver
) -> None:
    people.reply = lambda call: 410 if call.path == "/ann" else 200
    write_file(settings, channels(people, "ann", "bob"))
    async with pager(settings):
        await say(js, "raised")
        await told(people, "/bob", "page", "page")
        write_file(settings, channels(people, "bob"))

        async def resolved() -> bool:
            return [event for event, _ in await alerts_said(js, "channel_dead")] == ["raised", "resolved"]

        await eventually(resolved)


async def test_a_channel_whose_secret_is_missing_is_dead_and_the_others_work(
    js: JetStreamContext, settings: Settings, people: Receiver
) -> None:
    text = channels(people, "ann", "bob").replace("${PAGER_SECRET}", "${NOT_THERE}", 1)
    write_file(settings, text)
    async with pager(settings):
        await say(js, "raised")
        _, dead = await told(people, "/bob", "page", "page")
        assert dead.said["data"]["title"] == (
            "The channel ann takes no alerts: ${NOT_THERE} is not set in the environment of the pager"
        )


# Alertmanager


async def test_alertmanager_is_told_by_its_schema_again_and_again_and_of_the_end(
    js: JetStreamContext, settings: Settings, people: Receiver, clock: Clock, ticks: Ticks
) -> None:
    write_file(settings, f"channels: {{am: {{alertmanager: '{people.url}'}}}}\ncontacts: {{all: am}}\n{ROUTES}")
    async with pager(settings, clock):
        await say(js, "raised", evidence="https://runs.example/r-1")
        await say(js, "raised", "a-2", agent="other", rule="loop_no_new_state")
        await eventually(lambda: len(people.calls) == 2)
        await ticks.settled(js, settings)
        for number in (4, 6):
            clock.forward(minutes=1)
            await eventually(lambda number=number: len(people.calls) == number)
            await ticks.settled(js, settings)
        await say(js, "resolved", "a-1")
        await ticks.settled(js, settings)
        clock.forward(minutes=1)
        await eventually(lambda: len(people.calls) >= 8)
    assert {call.path for call in people.calls} == {"/api/v2/alerts"}
    for call in people.calls:
        jsonschema.validate(call.said, POSTABLE_ALERTS, format_checker=jsonschema.FormatChecker())
    mine = [call.said[0] for call in people.calls if call.said[0]["labels"]["agent"] == "desk"]
    assert {json.dumps(one["labels"], sort_keys=True) for one in mine} == {
        '{"agent": "desk", "alertname": "budget_run", "severity": "page", "source": "midwatch"}'
    }, "one alert to Alertmanager, which knows it by its labels"
    assert mine[0]["annotations"]["summary"] == "Run of a-1 has spent $1.20 of its $1.00 budget"
    assert mine[0]["generatorURL"] == "https://runs.example/r-1"
    starts = {one["startsAt"] for one in mine}
    assert len(starts) == 1
    ends = [datetime.fromisoformat(one["endsAt"]) for one in mine]
    assert ends[0] < ends[1] < ends[2], "a firing alert is posted again before it would be taken for over"
    assert ends[-1] < ends[-2], "the end is when it ended"


# Mail


class Mailbox:
    """What a mail server was given."""

    def __init__(self) -> None:
        self.letters: list[Any] = []

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:
        self.letters.append(email.message_from_bytes(envelope.content, policy=mail_policy.default))
        return "250 OK"


@contextmanager
def mail_server() -> Iterator[tuple[Mailbox, int]]:
    mailbox = Mailbox()
    port = free_port()
    controller = Controller(mailbox, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield mailbox, port
    finally:
        controller.stop()


async def test_mail_arrives_through_apprise_as_plain_text(
    js: JetStreamContext, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with mail_server() as (mailbox, port):
        monkeypatch.setenv("MAIL", f"mailto://127.0.0.1:{port}?from=pager@shop.example&to=ann@shop.example")
        write_file(settings, f"channels: {{mail: {{apprise: '${{MAIL}}'}}}}\ncontacts: {{all: mail}}\n{ROUTES}")
        async with pager(settings):
            await say(js, "raised", title="Run r\r\nBcc: x@evil.example <b>[click](http://evil.example)</b> @everyone")
            [letter] = await eventually(lambda: mailbox.letters, within=10)
    assert letter["to"] == "ann@shop.example"
    assert letter["bcc"] is None
    assert letter["subject"].startswith("Run r Bcc: x＠evil.example ‹b›［click］(http:／／evil.example)‹/b› ＠everyone")
    text = letter.get_body(("plain",)).get_content()
    assert "What was done: the run was halted." in text
    assert "To take it on: midwatch ack a-1" in text
    assert "Agent desk, budget_run (page)." in text


async def test_no_secret_reaches_a_log_or_a_table(
    js: JetStreamContext, settings: Settings, people: Receiver, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str], clock: Clock,
) -> None:  # fmt: skip
    logged = io.StringIO()
    heard = logging.StreamHandler(logged)
    logging.getLogger().addHandler(heard)
    people.reply = lambda call: 403
    host = people.url.removeprefix("http://")
    monkeypatch.setenv("CHAT", f"json://hunter2name:hunter2word@{host}/hunter2path?+x=hunter2head")
    monkeypatch.setenv("HOOK", f"http://hunter2name:hunter2word@{host}/hunter2path?token=hunter2token")
    monkeypatch.setenv("BROKEN", "slack://hunter2word")
    monkeypatch.setenv("REFUSED", "json://hunter2name:hunter2word@127.0.0.1:1/hunter2path")
    monkeypatch.setenv("KEY", "whsec_aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMg==")
    write_file(
        settings,
        "channels:\n  chat: {apprise: '${CHAT}'}\n  broken: {apprise: '${BROKEN}'}\n  gone: {apprise: '${REFUSED}'}\n"
        "  hook: {webhook: '${HOOK}', secret: '${KEY}'}\n  am: {alertmanager: '${HOOK}'}\n"
        f"contacts: {{all: [chat, broken, gone, hook, am]}}\n{ROUTES}",
    )
    async with pager(settings, clock):
        await say(js, "raised")
        await eventually(lambda: len(rows(settings, "SELECT * FROM pager_channels WHERE failures > 0")) == 5, within=15)
        tables = [rows(settings, f"SELECT * FROM pager_{name}") for name in ("channels", "deliveries", "outbox")]
        said = await alerts_said(js)
    logging.getLogger().removeHandler(heard)
    out = capfd.readouterr()
    everything = f"{tables} {said} {out.out} {out.err} {logged.getvalue()}"
    assert "hunter2" not in everything
    assert "aHVudGVyMm" not in everything
    errors = {row["channel"]: row["error"] for row in tables[0]}
    assert errors["chat"] == errors["hook"] == "it answers 403 Forbidden"
    assert errors["broken"] == "its address is none of https://appriseit.com/services"
    assert errors["gone"] == "A Connection error occurred sending JSON notification to ***."


async def test_two_people_behind_one_channel_are_one_message(
    js: JetStreamContext, settings: Settings, people: Receiver, ticks: Ticks
) -> None:
    write_file(
        settings,
        f'channels: {{ann: {{webhook: "{people.url}/ann", secret: "{SECRET}"}}}}\n'
        "contacts: {all: ann, other: ann}\nroutes: {on-call: {steps: [{tell: [all, other]}]}}\ndefault: on-call\n",
    )
    async with pager(settings):
        await say(js, "raised")
        await told(people, "/ann", "page")
        await ticks.settled(js, settings)
        assert len(people.calls) == 1


def test_a_call_knows_what_it_is() -> None:
    assert Call("/x", {}, b'{"type": "alert.page"}').what == "page"
