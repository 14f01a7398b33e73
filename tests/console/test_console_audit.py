"""Who did what, and what agents changed: read by person, day, agent and tool; as a sheet that runs nothing."""

import csv
import io
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from nats.js import JetStreamContext

from console_helpers import Running, console
from helpers import eventually
from kill_switch_helpers import kill_switch, put
from logged import alert, received
from midwatch.contracts import codec, subjects
from midwatch.contracts.envelope import utc_now
from midwatch.contracts.governance import HoldPlaced
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.delivery import Received
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Switchboard
from midwatch_services.console.access.roles import Role
from midwatch_services.logger import store
from midwatch_services.logger.search.indexer import Index


@pytest.fixture
async def running(js: JetStreamContext, settings: Settings) -> AsyncIterator[Running]:
    async with console(settings) as one:
        yield one


async def test_the_trail_holds_the_pages_and_the_command_line_each_deed_once(
    running: Running, js: JetStreamContext, settings: Settings
) -> None:
    await put(js, "agent.desk", b'{"state":"running"}')
    async with kill_switch(settings), running.person(Role.OPERATOR, "eva") as eva, running.person(Role.ADMIN) as ann:
        await eva.act("/stop/halt", what="agent", agent="desk", reason="=HYPERLINK(1)")
        await Switchboard(js).halt_tool("desk", "refund", reason="too many", by="ben@shop")
        said = alert("acknowledged", alert_id="a-1", by="cid@shop")
        await js.publish(subjects.alert("desk", "acknowledged"), codec.encode(said))
        held = codec.envelope("hold", "placed", HoldPlaced(hold_id="h-1", by="dora", reason="a lawsuit"), source="/x")
        await js.publish("midwatch.hold._fleet.placed", codec.encode(held))

        async def look() -> list[list[str]]:
            rows = list(csv.reader(io.StringIO((await ann.get("/audit.csv")).text)))
            assert "switch.halted" in {row[3] for row in rows}
            return rows

        rows = await eventually(look)
        assert rows[0] == ["at", "by", "role", "action", "agent", "target", "detail", "where"]
        assert sorted((row[1], row[3], row[5]) for row in rows[1:]) == [
            ("ben@shop", "switch.halted", "tools.desk refund"), ("cid@shop", "alert.acknowledged", "a-1"),
            ("dora", "hold.placed", "h-1"), ("eva", "switch.halt", "agent.desk"),
        ]  # fmt: skip
        page = (await ann.get("/audit")).text
        assert "4 entries" in page and "a lawsuit" in page
        one = (await ann.get("/audit?by=eva")).text
        assert "1 entry" in one and "switch.halt" in one and "dora" not in one.split("<table")[1]
        tomorrow = utc_now().date() + timedelta(days=1)
        assert "Nobody did anything in these days" in (await ann.get(f"/audit?from={tomorrow}&to={tomorrow}")).text
        wrong = ("from=x", "from=2026-01-01&to=2025-01-01", "from=2020-01-01&to=2026-01-01")
        assert [(await ann.get(f"/audit?{asked}")).status_code for asked in wrong] == [404] * 3
        assert [(await eva.get(path)).status_code for path in ("/audit", "/audit.csv")] == [403, 403]


async def test_a_sheet_holds_no_formula(running: Running) -> None:
    async with running.person(Role.OPERATOR, by="=cmd|' /C calc'!A0") as mallory, running.person(Role.ADMIN) as ann:
        await mallory.act("/stop/halt", what="fleet", reason="@SUM(1)")
        answer = await ann.get("/audit.csv")
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert answer.headers["content-disposition"].startswith("attachment;")
        (row,) = list(csv.reader(io.StringIO(answer.text)))[1:]
        assert row[1] == "'=cmd|' /C calc'!A0"


async def reads(database: Database) -> None:
    """The logger's index of the words and tools of each run, brought up to date."""
    index = Index(database)
    while await index.note(2**60):
        pass
    while await index.read(utc_now() + timedelta(hours=1)):
        pass
    index.close()


def a_write(
    run_id: str, *, minutes: float, tool: str = "refund", agent: str = "desk", **more: object
) -> list[Received]:
    at = utc_now() - timedelta(minutes=minutes)
    return [
        received("started", run_id=run_id, agent=agent, input="x", at=at, stored_at=at),
        received("tool_called", run_id=run_id, agent=agent, seq=1, tool="look_up", kind="read", at=at, stored_at=at),
        received(
            "tool_called",
            run_id=run_id,
            agent=agent,
            seq=2,
            tool=tool,
            at=at,
            stored_at=at,
            **{"kind": "write", **more},
        ),
    ]


async def test_writes_are_told_with_arguments_result_and_undo_by_agent_tool_and_day(
    running: Running, settings: Settings
) -> None:
    async with running.person(Role.VIEWER) as vera:
        assert "Nothing was changed in these days" in (await vera.get("/writes")).text
        url = settings.database_for(subjects.LOGGER)
        migrate(url, subjects.LOGGER)
        database = Database(url)
        batch = [
            *a_write("r-1", minutes=5, arguments={"eur": "<i>9</i>"}, result="ok-9", undo="take_back"),
            *a_write("r-2", minutes=3, tool="mail", error="no such address"),
            *a_write("r-3", minutes=1, agent="other"),
        ]
        batch += [one for n in range(60) for one in a_write(f"old-{n:02}", minutes=100 + n)]
        placed = [replace(one, stream_seq=place) for place, one in enumerate(batch, 1)]
        database.write_now(lambda conn: store.save(conn, placed))
        await reads(database)
        database.close()

        async def look() -> str:
            page = (await vera.get("/writes")).text
            assert "r-3" in page
            return page

        page = await eventually(look)
        assert page.index("/runs/other/r-3") < page.index("/runs/desk/r-2") < page.index("/runs/desk/r-1")
        assert "&lt;i&gt;9&lt;/i&gt;" in page and "ok-9" in page and "Undone by: take_back" in page
        assert "no such address" in page and "look_up" not in page
        older = page.split('rel="next" href="')[1].split('"')[0].replace("&amp;", "&")
        rest = (await vera.get(older)).text
        assert "old-59" in rest and "/runs/desk/r-1" not in rest
        assert "r-1" not in (await vera.get("/writes?agent=other")).text
        by_tool = (await vera.get("/writes?tool=mail")).text
        assert "no such address" in by_tool and "ok-9" not in by_tool
        yesterday = utc_now().date() - timedelta(days=5)
        assert "Nothing was changed" in (await vera.get(f"/writes?from={yesterday}&to={yesterday}")).text


async def test_the_trail_needs_no_database_and_writes_say_that_theirs_is_away(
    running: Running, settings: Settings
) -> None:
    for service in (subjects.LOGGER, subjects.KILL_SWITCH, subjects.PAGER):
        path = Path(settings.database_for(service).removeprefix("sqlite:///"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"this is no database" * 100)
    async with running.person(Role.ADMIN, by="ann") as ann:
        await ann.act("/stop/halt", what="fleet", reason="now")
        assert "switch.halt" in (await ann.get("/audit")).text
        pages = [await ann.get(path) for path in ("/stop", "/alerts", "/queue", "/drills", "/writes", "/audit")]
        assert [one.status_code for one in pages] == [200] * 6
        assert "The run log: this cannot be read just now" in pages[4].text
