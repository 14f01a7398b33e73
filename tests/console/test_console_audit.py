"""Who did what, and what agents changed: read by person, day, agent and tool; as a sheet that runs nothing."""

import ast
import csv
import io
import tomllib
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
from midwatch_services.console import pages, texts
from midwatch_services.console.access.roles import Role
from midwatch_services.logger import store
from midwatch_services.logger.search.indexer import Index


def sheet(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def one_export(rows: list[list[str]]) -> list[list[str]]:
    """Without all but one of the records that looking at the sheet made."""
    exports = [row for row in rows if row[3] == "audit.exported"]
    return [row for row in rows if row not in exports[1:]]


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
            rows = sheet((await ann.get("/audit.csv")).text)
            assert "switch.halted" in {row[3] for row in rows}
            return one_export(rows)

        rows = await eventually(look)
        assert rows[0] == ["at", "by", "role", "action", "agent", "target", "detail", "where"]
        assert sorted((row[1], row[3], row[5]) for row in rows[1:]) == [
            ("ann", "audit.exported", "csv"), ("ben@shop", "switch.halted", "tools.desk refund"),
            ("cid@shop", "alert.acknowledged", "a-1"),
            ("dora", "hold.placed", "h-1"), ("eva", "switch.halt", "agent.desk"),
        ]  # fmt: skip
        page = (await ann.get("/audit")).text
        assert " entries" in page and "because: a lawsuit" in page and "as an operator" in page
        one = (await ann.get("/audit?by=eva")).text
        assert "1 entry" in one and "switch.halt" in one and "dora" not in one.split("<table")[1]
        tomorrow = utc_now().date() + timedelta(days=1)
        assert "Nobody did anything in these days" in (await ann.get(f"/audit?from={tomorrow}&to={tomorrow}")).text
        assert [(await eva.get(path)).status_code for path in ("/audit", "/audit.csv")] == [403, 403]


async def test_a_sheet_holds_no_formula(running: Running) -> None:
    async with running.person(Role.OPERATOR, by="=cmd|' /C calc'!A0") as mallory, running.person(Role.ADMIN) as ann:
        await mallory.act("/stop/halt", what="fleet", reason="x;=1+1")
        answer = await ann.get("/audit.csv")
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert answer.headers["content-disposition"].startswith("attachment;")
        (row,) = [row for row in sheet(answer.text)[1:] if row[3] != "audit.exported"]
        assert row[1:6] == ["'=cmd|' /C calc'!A0", "operator", "switch.halt", "_fleet", "fleet"]
        assert row[6].startswith("reason: x;'=1+1")
        assert answer.text.splitlines()[0] == '"at","by","role","action","agent","target","detail","where"'


async def test_what_one_does_on_a_page_and_then_on_the_command_line_stands_there_twice(
    running: Running, js: JetStreamContext
) -> None:
    raised = alert("raised", alert_id="a-1")
    await js.publish(subjects.alert("desk", "raised"), codec.encode(raised))
    again = codec.encode(alert("acknowledged", alert_id="a-1", by="eva"))
    async with running.person(Role.OPERATOR, "eva") as eva, running.person(Role.ADMIN) as ann:
        assert (await eva.act("/alerts/a-1/acknowledge")).status_code == 303
        await js.publish(subjects.alert("desk", "acknowledged"), again)
        rows = sheet((await ann.get("/audit.csv?by=eva")).text)[1:]
        assert sorted((row[3], row[7]) for row in rows) == [
            ("alert.acknowledged", "bus"), ("alert.acknowledged", "console"),
        ]  # fmt: skip


async def test_that_the_record_was_saved_is_in_the_record(running: Running) -> None:
    async with running.person(Role.ADMIN, "ann") as ann:
        await ann.get("/audit.csv?from=2026-11-01&to=2026-11-02")
    kept = [(one["by"], one["action"], one["target"], one.get("detail", {})) for one in await running.recorded()]
    assert kept == [("ann", "audit.exported", "csv", {"days": "2026-11-01 to 2026-11-02"})]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ("from=x", "One of the two is no day that the calendar has."),
        ("from=2026-01-02&to=2026-01-01", "The first day is after the last"),
        ("from=2020-01-01&to=2026-01-01", "At most 92 days can be shown at once"),
        ("from=2020-01-01", "At most 92 days can be shown at once"),
    ],
)
async def test_days_that_make_no_sense_are_told_beside_the_form(running: Running, asked: str, why: str) -> None:
    async with running.person(Role.ADMIN) as ann:
        answer = await ann.get(f"/audit?{asked}&by=eva")
        assert (answer.status_code, (await ann.get(f"/audit.csv?{asked}")).status_code) == (400, 400)
        assert why in answer.text
        first = asked.removeprefix("from=").split("&")[0]
        assert f'name="from" aria-invalid="true" aria-describedby="wrong" value="{first}"' in answer.text
        assert 'value="eva"' in answer.text


async def test_without_a_last_day_the_trail_goes_up_to_today(running: Running) -> None:
    async with running.person(Role.ADMIN) as ann:
        await ann.get("/audit.csv")
        yesterday = utc_now().date() - timedelta(days=1)
        assert "Saved this record as a sheet" in (await ann.get(f"/audit?from={yesterday}&to=")).text


async def test_a_page_that_no_list_has_is_refused(running: Running) -> None:
    huge = "000001" + "9" * 24
    async with running.person(Role.ADMIN) as ann:
        for path in ("/review/queue", "/review", "/evals/desk"):
            assert (await ann.get(f"{path}?page={huge}")).status_code == 404, path
        assert (await ann.get(f"/audit?after={huge}")).status_code == 200


def test_every_deed_that_a_page_records_has_words() -> None:
    words = texts.load()
    made, details = set(_BY_ANOTHER_NAME), {"reference", "reason"}
    for file in Path(pages.__path__[0]).glob("*.py"):
        for call in ast.walk(ast.parse(file.read_text())):
            name = getattr(call.func, "id", getattr(call.func, "attr", "")) if isinstance(call, ast.Call) else ""
            if isinstance(call, ast.Call) and name in ("record", "acted", "noted"):
                if isinstance(action := call.args[1], ast.Constant):
                    made.add(action.value)
                details |= {one.arg for one in call.keywords if one.arg} - {"agent", "target", "deed"}
    assert {"eval.agreed", "review.taken", "session.began", "runs.exported"} <= made
    assert [one for one in made if not words.has(f"audit.did.{one}")] == []
    told = tomllib.loads((Path(texts.__path__[0]) / "en" / "audit.toml").read_text())["how"]
    assert details - set(told) == set()


# Recorded under a name that is put together, or by the command line alone.
_BY_ANOTHER_NAME = (
    "switch.halt", "switch.resume", "switch.halted", "switch.resumed", "case.accepted", "case.returned", "case.closed",
    "hold.placed", "hold.lifted", "erasure.requested", "alert.acknowledged", "review.judged",
)  # fmt: skip


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


async def test_both_pages_say_whose_days_they_go_by(js: JetStreamContext, settings: Settings) -> None:
    moved = settings.model_copy(update={"digest_zone": "Asia/Tokyo"})
    async with console(moved) as running, running.person(Role.ADMIN) as vera:
        for path in ("/audit", "/writes", "/audit?from=never", "/writes?from=never"):
            page = (await vera.get(path)).text
            assert (path, "A day is one of Asia/Tokyo." in page) == (path, True)
