"""Channels that die and come back, and what a message looks like where it is read."""

import email
import io
import json
import logging
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
    ROUTES,
    SECRET,
    Clock,
    Receiver,
    Ticks,
    alerts_said,
    channels,
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
        await told(people, "/bob", "escalated", within=20)
        _, dead = await told(people, "/ann", "page", "page", within=20)
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
            [letter] = await eventually(lambda: mailbox.letters, within=20)
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
        await eventually(lambda: len(rows(settings, "SELECT * FROM pager_channels WHERE failures > 0")) == 5, within=20)
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
