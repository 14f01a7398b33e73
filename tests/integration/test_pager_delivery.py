"""How messages get to people: signed, again after a failure, and once more after a crash."""

import asyncio
import base64
import hashlib
import hmac
import threading
import time
from collections.abc import Iterator

import pytest
from nats.js import JetStreamContext

from helpers import eventually
from midwatch.runtime import faults
from midwatch.runtime.settings import Settings
from pager_helpers import (
    FILE,
    KEY,
    SECRET,
    Clock,
    Crash,
    Receiver,
    Ticks,
    channels,
    ids,
    listening,
    pager,
    rows,
    say,
    told,
    write_file,
)  # fmt: skip


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
            await asyncio.wait_for(running, 20)
        assert ended.group_contains(Crash) if isinstance(ended.value, BaseExceptionGroup) else True
    async with pager(settings):
        await eventually(lambda: rows(settings, "SELECT id FROM pager_deliveries WHERE phase = 'sent'"), within=40)
        assert len(set(ids(people.at("/ann")))) == 1
        # What was under way while another part of the process died may have arrived: it is sent again under its id.
        assert len(people.calls) in ((2,) if point == "pager.sent" else (1, 2))


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
            await asyncio.wait_for(running, 20)
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
