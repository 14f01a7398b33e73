"""The pager as a whole: a real nats-server, real receivers, the service as it is deployed, and a clock of the test."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from nats.js import JetStreamContext

from helpers import eventually
from logged import publish
from midwatch.contracts import codec, subjects
from midwatch.contracts.control import AlertRule, Card, DeadLetter
from midwatch.runtime.service import run_services
from midwatch.runtime.settings import Settings
from midwatch_services import registry
from pager_helpers import (
    FILE,
    SECRET,
    Clock,
    Receiver,
    Ticks,
    alert,
    alerts_said,
    all_heard,
    listening,
    pager,
    rows,
    say,
    told,
    write_file,
)  # fmt: skip

Settle = Callable[[], Awaitable[None]]


@pytest.fixture
def people() -> Iterator[Receiver]:
    with listening() as found:
        yield found


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def ticks(monkeypatch: pytest.MonkeyPatch) -> Ticks:
    monkeypatch.setenv("PAGER_SECRET", SECRET)
    return Ticks(monkeypatch)


@pytest.fixture
def settle(js: JetStreamContext, settings: Settings, ticks: Ticks) -> Settle:
    return lambda: ticks.settled(js, settings)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def stored(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """Settings with each database in turn."""
    if request.param == "sqlite":
        return settings
    return settings.model_copy(update={"database_url": request.getfixturevalue("postgres_url")})


async def test_ten_thousand_alerts_of_one_cause_in_a_minute_make_one_page_at_once(
    js: JetStreamContext, stored: Settings, people: Receiver, clock: Clock, record_property
) -> None:
    write_file(stored, FILE % {"url": people.url})
    async with pager(stored, clock):
        began = time.monotonic()
        await say(js, "raised", "a-0")
        await eventually(lambda: people.calls)
        took = time.monotonic() - began
        for start in range(1, 10_000, 500):
            made = [alert("raised", f"a-{number}") for number in range(start, min(start + 500, 10_000))]
            await asyncio.gather(
                *(js.publish(subjects.alert("desk", "raised"), codec.encode(one), timeout=30) for one in made)
            )
            clock.forward(seconds=3)
        await eventually(lambda: all_heard(js), within=60)
        [page] = await told(people, "/ann", "page")
        assert took < 1, "the first page goes out at once"
        record_property("figure", f"published → page received: {took * 1000:.0f} ms")
        assert page.said["data"]["title"] == "Run of a-0 has spent $1.20 of its $1.00 budget"
        assert page.said["data"]["acknowledge"] == "midwatch ack a-0"
        clock.forward(minutes=5)
        _, update = await told(people, "/ann", "page", "update")
        assert update.said["data"]["note"] == "9999 more of the same cause are open"
        assert (update.said["data"]["alerts"], update.said["data"]["open"]) == (10_000, 10_000)


async def test_an_alert_that_is_acknowledged_goes_no_further(
    js: JetStreamContext, settings: Settings, people: Receiver, clock: Clock, settle: Settle
) -> None:
    write_file(settings, FILE % {"url": people.url})
    async with pager(settings, clock):
        await say(js, "raised", "a-1")
        await told(people, "/ann", "page")
        await say(js, "raised", "a-2")
        await say(js, "acknowledged", "a-2", by="ann")
        await settle()
        clock.forward(hours=3)
        await settle()
        assert people.whats("/bob") == []
        assert people.whats("/ann") == ["page", "update"], "any alert of the group stands for it; what joined is told"


async def test_nobody_answers_and_the_chain_is_gone_along_and_its_end_repeated(
    js: JetStreamContext, settings: Settings, people: Receiver, clock: Clock, settle: Settle
) -> None:
    write_file(settings, FILE % {"url": people.url})
    async with pager(settings, clock):
        await say(js, "raised")
        await told(people, "/ann", "page")
        clock.forward(minutes=10)
        [escalated] = await told(people, "/bob", "escalated")
        assert escalated.said["data"]["note"] == "nobody has acknowledged it for 10 min"
        clock.forward(minutes=14, seconds=50)
        await settle()
        assert people.whats("/bob") == ["escalated"]
        clock.forward(seconds=15)
        await told(people, "/bob", "escalated", "again")
        clock.forward(minutes=29)
        await settle()
        assert people.whats("/bob") == ["escalated", "again"], "twice as long as before"
        clock.forward(minutes=2)
        await told(people, "/bob", "escalated", "again", "again")
        assert people.whats("/ann") == ["page"]


async def test_the_end_is_told_once_and_to_those_alone_who_heard_of_the_beginning(
    js: JetStreamContext, settings: Settings, people: Receiver, clock: Clock, settle: Settle
) -> None:
    write_file(settings, FILE % {"url": people.url})
    async with pager(settings, clock):
        await say(js, "raised")
        await told(people, "/ann", "page")
        for _ in range(3):
            await say(js, "resolved")
        await settle()
        assert people.whats("/ann") == ["page"], "it may come back at once"
        clock.forward(minutes=1)
        _, over = await told(people, "/ann", "page", "ended")
        assert over.said["data"]["note"] == "the run has finished"
        clock.forward(hours=1)
        await settle()
        assert (people.whats("/ann"), people.whats("/bob")) == (["page", "ended"], [])


async def test_alerts_that_come_and_go_within_a_minute_are_one_page(
    js: JetStreamContext, settings: Settings, people: Receiver, clock: Clock, settle: Settle
) -> None:
    write_file(settings, FILE % {"url": people.url})
    async with pager(settings, clock):
        for number in range(20):
            await say(js, "raised", f"a-{number}")
            await say(js, "resolved", f"a-{number}")
            clock.forward(seconds=3)
        await settle()
        assert len(people.calls) <= 1


async def test_an_end_before_its_beginning_leaves_nothing_open(
    js: JetStreamContext, settings: Settings, people: Receiver, clock: Clock, settle: Settle
) -> None:
    write_file(settings, FILE % {"url": people.url})
    async with pager(settings, clock):
        await say(js, "resolved", "a-1")
        await say(js, "raised", "a-1")
        await settle()
        assert people.calls == []
        assert rows(settings, "SELECT phase FROM pager_alerts") == [{"phase": "resolved"}]
        await say(js, "acknowledged", "a-2")
        await say(js, "raised", "a-2")
        await settle()
        clock.forward(hours=1)
        await settle()
        assert people.calls == [], "somebody has taken it on already"


async def test_the_same_events_again_page_nobody_again(
    js: JetStreamContext, settings: Settings, people: Receiver, settle: Settle
) -> None:
    write_file(settings, FILE % {"url": people.url})
    body = codec.encode(alert("raised", id="same"))
    other = codec.encode(alert("raised", id="other"))
    async with pager(settings):
        for one in (body, body, other, body):
            await js.publish(subjects.alert("desk", "raised"), one)  # without an id the server lets a repeat through
        await settle()
        assert people.whats() == ["page"]
    async with pager(settings):
        await js.publish(subjects.alert("desk", "raised"), body)
        await settle()
        assert people.whats() == ["page"]


async def test_what_was_raised_while_the_pager_was_down_pages_only_if_it_is_still_open(
    js: JetStreamContext, settings: Settings, people: Receiver, clock: Clock, settle: Settle
) -> None:
    write_file(settings, FILE % {"url": people.url})
    await say(js, "raised", "over", agent="one")
    await say(js, "raised", "still", agent="two")
    for number in range(1500):  # more than one batch lies between a beginning and its end
        made = alert("raised", f"n-{number}", agent="other", severity="info")
        await js.publish(subjects.alert("other", "raised"), codec.encode(made))
    await say(js, "resolved", "over", agent="one")
    clock.forward(hours=1)
    async with pager(settings, clock):
        [page] = await told(people, "/ann", "page", within=20)
        assert page.said["data"]["alert_id"] == "still"
        await settle()
        assert len(people.calls) == 1


@pytest.mark.parametrize("mode", ["replay", "eval", "drill", "shadow"])
async def test_what_is_not_live_pages_nobody(
    js: JetStreamContext, settings: Settings, people: Receiver, settle: Settle, mode: str
) -> None:
    write_file(settings, FILE % {"url": people.url})
    async with pager(settings):
        await say(js, "raised", "a-1", mode=mode)
        await say(js, "raised", "a-2", severity="info")
        await say(js, "resolved", "a-1")
        await settle()
        assert people.calls == []


async def test_tickets_wait_for_the_end_of_quiet_hours_and_pages_do_not(
    js: JetStreamContext, settings: Settings, people: Receiver, clock: Clock, settle: Settle
) -> None:
    now = datetime.now(UTC)
    hours = f"{now - timedelta(hours=2):%H:%M}-{now + timedelta(hours=3):%H:%M}"
    write_file(settings, FILE % {"url": people.url} + f"quiet_hours: {{hours: {hours}, zone: UTC}}\n")
    async with pager(settings, clock):
        await say(js, "raised", "t-1", severity="ticket", agent="one")
        await say(js, "raised", "t-2", severity="ticket", agent="two")
        await say(js, "raised", "p-1", severity="page", agent="one")
        await say(js, "resolved", "t-2", agent="two")
        await told(people, "/ann", "page")
        await settle()
        assert people.whats("/lead") == []
        clock.forward(hours=3, minutes=1)
        [ticket] = await told(people, "/lead", "page")
        assert ticket.said["data"]["alert_id"] == "t-1"


async def test_the_card_says_where_the_alerts_of_its_agent_go(
    js: JetStreamContext, settings: Settings, people: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    write_file(settings, FILE % {"url": people.url})
    for agent, rule in (("known", AlertRule(page="bob")), ("lost", AlertRule(page="nobody-knows"))):
        card = Card(agent=agent, owner="o", purpose="p", can=["c"], alerts=rule)
        await js.publish(subjects.key_subject(subjects.AGENTS, agent), msgspec.json.encode(card))
    async with pager(settings):
        await say(js, "raised", "k", agent="known")
        await told(people, "/bob", "page")
        await say(js, "raised", "l", agent="lost")
        [page] = await told(people, "/ann", "page")
        assert page.said["data"]["remark"] == (
            "the card of lost wants page alerts to go to 'nobody-knows', which pager.yaml does not have"
        )


async def test_without_a_file_alerts_are_kept_and_told_once_there_is_one(
    js: JetStreamContext, settings: Settings, people: Receiver, capsys: pytest.CaptureFixture[str], settle: Settle
) -> None:
    async with pager(settings):
        await say(js, "raised")
        await settle()
        assert people.calls == []
        assert rows(settings, "SELECT alert_id, phase FROM pager_alerts") == [{"alert_id": "a-1", "phase": "open"}]
        write_file(settings, FILE % {"url": people.url})
        await told(people, "/ann", "page")
        settings.pager_yaml.write_text("channels: [")
        await say(js, "raised", "a-2", agent="other")
        await told(people, "/ann", "page", "page")
    assert capsys.readouterr().out.count("nobody_is_paged") == 1


async def test_a_message_that_breaks_the_contract_is_a_dead_letter_and_holds_up_nothing(
    js: JetStreamContext, settings: Settings, people: Receiver, settle: Settle
) -> None:
    write_file(settings, FILE % {"url": people.url})
    async with pager(settings):
        await js.publish(subjects.alert("desk", "raised"), b'{"specversion": "1.0"}')
        await js.publish(subjects.alert("desk", "raised"), codec.encode(alert("raised", "x", agent="other")))
        await say(js, "raised")
        await told(people, "/ann", "page")
        await settle()
        letters = [
            msgspec.json.decode((await js.get_msg(subjects.DEAD, seq)).data or b"", type=DeadLetter) for seq in (1, 2)
        ]
        assert sorted(letter.reason for letter in letters) == ["malformed", "wrong_agent"]
        assert {letter.service for letter in letters} == {"pager"}


async def test_whatever_is_in_an_alert_it_is_told_and_can_be_taken_on(
    js: JetStreamContext, stored: Settings, people: Receiver, ticks: Ticks, clock: Clock
) -> None:
    write_file(stored, FILE % {"url": people.url})
    long = "x" * 20_000
    evil = {"title": long + "\0", "run_id": long, "dedupe_key": f"budget_run/{long}", "evidence": "a\0b"}
    async with pager(stored, clock):
        first = "a\0" + long
        await say(js, "raised", first, id="1", agent="one", at=datetime(1, 1, 1, tzinfo=UTC), **evil)
        await say(js, "raised", "b", id="2", agent="two", at=datetime(9999, 12, 31, tzinfo=UTC), **evil)
        await say(js, "raised", "c" + long, id="3", agent="two", **evil)
        pages = await told(people, "/ann", "page", "page")
        assert all(len(page.body) < 3000 for page in pages)
        await say(js, "acknowledged", first, id="4", agent="one")
        await eventually(lambda: all_heard(js))
        clock.forward(minutes=11)
        [escalated] = await told(people, "/bob", "escalated")
        assert escalated.said["data"]["agent"] == "two", "the other has somebody"
        await say(js, "resolved", "c" + long, id="5", agent="two")
        await say(js, "resolved", "b", id="6", agent="two")
        await eventually(lambda: all_heard(js))
        clock.forward(minutes=1)
        *_, over = await eventually(lambda: people.whats("/bob") == ["escalated", "ended"] and people.at("/bob"))
        assert over.said["data"]["agent"] == "two"


async def test_a_run_that_spends_too_much_wakes_somebody(
    js: JetStreamContext, settings: Settings, people: Receiver, ticks: Ticks
) -> None:
    write_file(settings, FILE % {"url": people.url})
    running = asyncio.Event()
    services = [registry.load("cost-watchdog"), registry.load("pager")]
    task = asyncio.create_task(run_services(services, settings, started=lambda _: running.set(), restart=False))
    try:
        await asyncio.wait_for(running.wait(), 20)
        for seq, cost in enumerate(("0.40", "0.45", "0.25")):
            await publish(js, "model_called", seq=seq, model="m", cost_usd=cost)
        [page] = await told(people, "/ann", "page")
        [warning] = await told(people, "/lead", "page")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert page.said["data"]["title"] == "Run r-1 of desk has spent $1.10 of its $1.00 budget and is halted"
    assert (page.said["data"]["action_taken"], page.said["data"]["evidence"]) == ("halted_run", "midwatch show r-1")
    assert warning.said["data"]["severity"] == "ticket"


async def test_two_alerts_under_one_key_are_one_cause_and_a_late_end_of_the_first_does_not_end_it(
    js: JetStreamContext, settings: Settings, people: Receiver, clock: Clock, settle: Settle
) -> None:
    write_file(settings, FILE % {"url": people.url})
    async with pager(settings, clock):
        await say(js, "raised", "a-1", dedupe_key="k")
        await say(js, "raised", "a-2", dedupe_key="k")
        await say(js, "resolved", "a-1")
        await settle()
        clock.forward(minutes=6)
        await settle()
        assert people.whats() == ["page"], "open still, and nothing new"
        await say(js, "resolved", "a-2")
        await settle()
        clock.forward(minutes=1)
        _, over = await told(people, "/ann", "page", "ended")
        assert (over.said["data"]["alerts"], over.said["data"]["repeats"]) == (1, 1)
        assert [event for event, _ in await alerts_said(js)] == ["raised", "raised", "resolved", "resolved"]
