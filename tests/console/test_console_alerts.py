"""Alerts in the console: from the run log or the bus, taken on by one press, and who was told."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from nats.js import JetStreamContext

from console_helpers import Running, console
from helpers import eventually
from logged import alert
from midwatch.contracts import codec, subjects
from midwatch.contracts.envelope import utc_now
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.settings import Settings
from midwatch_services.console.access.roles import Role
from midwatch_services.logger import alert_pages, store

HOUR = timedelta(hours=1)


def keep(settings: Settings, *events: object) -> None:
    """Puts alerts where the logger keeps them."""
    url = settings.database_for(subjects.LOGGER)
    migrate(url, subjects.LOGGER)
    database = Database(url)
    for event in events:
        database.write_now(lambda conn, event=event: store.save_alert(conn, event))
    database.close()


async def say(js: JetStreamContext, *events: object) -> None:
    """Says alerts on the bus, as the services that watch do."""
    for event in events:
        name = {"AlertRaised": "raised", "AlertResolved": "resolved"}.get(type(event.data).__name__, "acknowledged")  # type: ignore[attr-defined]
        await js.publish(subjects.alert("desk", name), codec.encode(event))  # type: ignore[arg-type]


@pytest.fixture
async def running(js: JetStreamContext, settings: Settings) -> AsyncIterator[Running]:
    async with console(settings) as one:
        yield one


def some() -> list[object]:
    now = utc_now()
    return [
        alert("raised", alert_id="a-open", title="Run r-1 has cost <b>$1.20</b>", at=now - HOUR),
        alert("raised", alert_id="a-taken", title="It loops", severity="ticket", at=now - 2 * HOUR),
        alert("acknowledged", alert_id="a-taken", by="ben", at=now - HOUR),
        alert("raised", alert_id="a-over", title="Slow", severity="info", run_id=None, at=now - 3 * HOUR),
        alert("resolved", alert_id="a-over", reason="it is fast again", repeats=3, at=now - HOUR),
    ]


async def test_each_state_has_its_list_in_an_address_of_its_own(running: Running, settings: Settings) -> None:
    keep(settings, *some())
    async with running.person(Role.VIEWER) as vera:
        pages = {
            state: (await vera.get(f"/alerts?state={state}")).text for state in ("open", "acknowledged", "resolved")
        }
        assert "Run r-1 has cost &lt;b&gt;$1.20&lt;/b&gt;" in pages["open"]
        assert 'href="/runs/desk/r-1"' in pages["open"]
        assert "Wakes somebody" in pages["open"] and "The run was stopped" in pages["open"]
        assert "I have it" not in pages["open"].replace("Somebody has it", "")
        assert "ben has it" in pages["acknowledged"] and "For the day" in pages["acknowledged"]
        assert "Over: it is fast again" in pages["resolved"] and "met 3 times more since" in pages["resolved"]
        assert ["It loops" in pages[state] for state in pages] == [False, True, False]
        everything = (await vera.get("/alerts?state=all")).text
        assert [everything.find(title) for title in ("has cost", "It loops", "Slow")] == sorted(
            everything.find(title) for title in ("has cost", "It loops", "Slow")
        )
        assert "Nothing needs you" in (await vera.get("/alerts?agent=other")).text
        assert "It loops" not in (await vera.get("/alerts?state=all&severity=page")).text
        wrong = ("state=x", "agent=No", "severity=x", "before=" + "x" * 500)
        assert [(await vera.get(f"/alerts?{one}")).status_code for one in wrong] == [404] * 4


async def test_one_leafs_through_many_alerts(running: Running, settings: Settings) -> None:
    now = utc_now()
    keep(settings, *(alert("raised", alert_id=f"a-{n:03}", title=f"No {n:03}", at=now - n * HOUR) for n in range(60)))
    async with running.person(Role.VIEWER) as vera:
        first = (await vera.get("/alerts")).text
        assert "No 049" in first and "No 050" not in first
        older = first.split('rel="next" href="')[1].split('"')[0].replace("&amp;", "&")
        second = (await vera.get(older)).text
        assert "No 050" in second and "No 059" in second and "No 049" not in second


async def test_one_press_takes_it_on_as_midwatch_ack_does(
    running: Running, settings: Settings, js: JetStreamContext
) -> None:
    keep(settings, *some())
    url = settings.database_for(subjects.LOGGER)

    async def log_it() -> None:
        """What the logger does with it."""
        heard = await js.subscribe(subjects.alert("*", "acknowledged"), ordered_consumer=True)
        message = await heard.next_msg(timeout=10)
        event = codec.decode(message.subject, message.data)
        database = Database(url)
        await database.write(lambda conn: store.save_alert(conn, event))
        database.close()

    logging = asyncio.create_task(log_it())
    async with running.person(Role.OPERATOR, "eva") as eva:
        answer = await eva.act("/alerts/a-open/acknowledge", here="agent=desk")
        assert (answer.status_code, answer.headers["location"]) == (303, "/alerts?agent=desk")
        await logging
        assert "You have it: nobody else is called for this cause." in (await eva.get("/alerts?agent=desk")).text
        assert "eva has it" in (await eva.get("/alerts?state=acknowledged")).text
    stored = await js.get_last_msg(subjects.GOVERNANCE, subjects.alert("desk", "acknowledged"))
    data = codec.decode(stored.subject or "", stored.data or b"").data
    assert (data.alert_id, data.by) == ("a-open", "eva")
    assert [(one["action"], one["target"], one["by"]) for one in await running.recorded()] == [
        ("alert.acknowledged", "a-open", "eva")
    ]


async def test_without_the_log_alerts_come_from_the_bus_and_can_be_taken_on(
    running: Running, settings: Settings, js: JetStreamContext
) -> None:
    path = Path(settings.database_for(subjects.LOGGER).removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"this is no database" * 100)
    await say(js, *some())
    async with running.person(Role.OPERATOR, "eva") as eva:
        page = (await eva.get("/alerts")).text
        assert "The run log: this cannot be read just now" in page
        assert "Run r-1 has cost" in page and "It loops" not in page
        await eva.act("/alerts/a-open/acknowledge", here="")
        assert "eva has it" in (await eva.get("/alerts?state=acknowledged")).text
        one = (await eva.get("/alerts/a-taken")).text
        assert "It loops" in one and "ben" in one
        assert (await eva.get("/alerts/a-unknown")).status_code == 404
        assert (await eva.act("/alerts/a-unknown/acknowledge")).status_code == 404


async def test_a_viewer_may_take_nothing_on(running: Running, settings: Settings, js: JetStreamContext) -> None:
    keep(settings, *some())
    async with running.person(Role.VIEWER) as vera, running.person(Role.REVIEWER) as rob:
        assert [(await one.act("/alerts/a-open/acknowledge")).status_code for one in (vera, rob)] == [403, 403]
    assert await running.done() == []


async def test_who_was_told_is_shown_from_the_pagers_own_tables(
    running: Running, settings: Settings, js: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pager_helpers import FILE, SECRET, listening, pager, write_file

    monkeypatch.setenv("PAGER_SECRET", SECRET)
    with listening() as people:
        write_file(settings, FILE % {"url": people.url})
        async with pager(settings):
            events = some()
            keep(settings, *events)
            await say(js, *events)
            await eventually(lambda: people.calls)
            async with running.person(Role.VIEWER) as vera:

                async def look() -> str:
                    page = (await vera.get("/alerts/a-open")).text
                    assert "arrived" in page
                    return page

                page = await eventually(look)
                assert "Who was told, and when" in page
                assert "arrived" in (await vera.get("/alerts")).text


async def test_what_nobody_has_taken_on_is_told_with_the_urgent_first_and_without_drills(settings: Settings) -> None:
    now = utc_now()
    told = [
        ("a-1", {"severity": "ticket"}), ("a-2", {}), ("a-3", {"severity": "info"}), ("a-4", {"mode": "drill"}),
        ("a-5", {}), ("a-6", {}), ("a-7", {"run_id": None}),
    ]  # fmt: skip
    keep(
        settings,
        *(alert("raised", alert_id=name, title=name, at=now - HOUR / n, **fields)
          for n, (name, fields) in enumerate(told, 1)),
        alert("acknowledged", alert_id="a-5", by="ben", at=now), alert("resolved", alert_id="a-6", reason="x", at=now),
    )  # fmt: skip
    database = Database(settings.database_for(subjects.LOGGER))
    found = await database.read(alert_pages.unattended)
    database.close()
    assert [(one.title, one.severity, one.run_id) for one in found] == [
        ("a-7", "page", None), ("a-2", "page", "r-1"), ("a-1", "ticket", "r-1"),
    ]  # fmt: skip
