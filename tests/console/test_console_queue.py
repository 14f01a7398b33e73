"""The queue in the console: a case whole, and what people do with it, judged by kill-switch itself."""

import re
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from nats.js import JetStreamContext
from sqlalchemy.engine import Connection

from console_helpers import Running, console
from helpers import eventually
from kill_switch_helpers import kill_switch, publish, put
from logged import NOON
from midwatch.contracts import subjects
from midwatch.contracts.governance import CaseOpened
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.settings import Settings
from midwatch_services.console.access.roles import Role
from midwatch_services.kill_switch.cases import case_pages, case_store
from midwatch_services.kill_switch.cases.routing import Case
from router_helpers import HASTY, give_card, stop

CASE = subjects.case_id("desk", "r1")


@pytest.fixture
async def running(js: JetStreamContext, settings: Settings) -> AsyncIterator[Running]:
    await give_card(js)
    await put(js, "agent.desk", b'{"state":"running"}')
    async with console(settings) as one:
        yield one


async def a_case(js: JetStreamContext, text: str = "Where is my refund?") -> None:
    await publish(js, "started", "r1", seq=0, input=text, customer="c-7")
    await publish(js, "tool_called", "r1", seq=1, arguments={"order": "<b>A-1</b>"}, result="paid " * 300)
    await stop(js)


async def test_a_case_is_shown_whole_and_goes_through_peoples_hands(
    running: Running, js: JetStreamContext, settings: Settings
) -> None:
    async with kill_switch(settings, HASTY), running.person(Role.OPERATOR, "eva") as eva:
        await a_case(js)

        async def waits() -> str:
            page = (await eva.get("/queue")).text
            assert "Where is my refund?" in page
            return page

        page = await eventually(waits)
        assert "Nobody has it" in page and f"/queue/{CASE}" in page
        whole = (await eva.get(f"/queue/{CASE}")).text
        assert ("paid " * 300).strip() in whole, "the hand-off's context is no summary"
        assert "&lt;b&gt;A-1&lt;/b&gt;" in whole and "<b>A-1</b>" not in whole
        assert "c-7" in whole
        taken = await eva.act(f"/queue/{CASE}/take", text="ZD-1184")
        page = (await eva.get(taken.headers["location"])).text
        assert "It is yours." in page and "You have it" in page and "ZD-1184" in page
        async with running.person(Role.OPERATOR, "ben") as ben:
            late = await ben.act(f"/queue/{CASE}/take", text="")
            page = (await ben.get(late.headers["location"])).text
            assert "Somebody else was faster: eva has it. Nothing was changed by yours." in page
            assert "<span>eva took it <time" in page
            assert f'action="/queue/{CASE}/close"' not in page
        await eva.act(f"/queue/{CASE}/return", text="needs someone who may refund")
        page = (await eva.get(f"/queue/{CASE}")).text
        assert "It waits for others again." in page and "needs someone who may refund" in page
        await eva.act(f"/queue/{CASE}/close", text="refunded by hand")
        page = (await eva.get(f"/queue/{CASE}")).text
        assert "Closed." in page and "refunded by hand" in page
        assert "Nobody waits" in (await eva.get("/queue")).text
        assert CASE in (await eva.get("/queue?state=all&about=zd-11")).text
        assert CASE in (await eva.get("/queue?state=closed")).text
        assert "Given back" in page and '<td data-label="What">returned' not in page
    assert [(one["by"], one["action"], one.get("detail", {})) for one in await running.recorded()] == [
        ("eva", "case.accepted", {}), ("ben", "case.not_accepted", {"why": "refused"}), ("eva", "case.returned", {}),
        ("eva", "case.closed", {}),
    ]  # fmt: skip


async def test_what_kill_switch_has_not_judged_yet_is_said_to_be_so(
    running: Running, js: JetStreamContext, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from midwatch_services.kill_switch.cases import hands

    monkeypatch.setattr(hands, "WITHIN", 0.2)
    async with running.person(Role.OPERATOR, "eva") as eva:
        async with kill_switch(settings, HASTY):
            await a_case(js)

            async def waits() -> bool:
                return CASE in (await eva.get("/queue")).text

            await eventually(waits)
        answer = await eva.act(f"/queue/{CASE}/take", text="")
        assert "kill-switch has not confirmed it yet" in (await eva.get(answer.headers["location"])).text


async def test_only_operators_take_cases_and_unknown_ones_are_not_there(
    running: Running, js: JetStreamContext, settings: Settings
) -> None:
    async with kill_switch(settings, HASTY), running.person(Role.REVIEWER) as rob:
        await a_case(js)

        async def waits() -> bool:
            return (await rob.get(f"/queue/{CASE}")).status_code == 200

        await eventually(waits)
        assert "/take" not in (await rob.get(f"/queue/{CASE}")).text
        assert (await rob.act(f"/queue/{CASE}/take")).status_code == 403
        assert [(await rob.get(path)).status_code for path in ("/queue/case-x", "/queue/case-", "/queue?state=x")] == [
            404, 404, 404,
        ]  # fmt: skip


async def test_without_the_database_the_queue_says_so_and_the_page_works(running: Running, settings: Settings) -> None:
    async with running.person(Role.OPERATOR) as ann:
        assert "Nobody waits" in (await ann.get("/queue")).text
        path = Path(settings.database_for(subjects.KILL_SWITCH).removeprefix("sqlite:///"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"this is no database" * 100)
        page = await ann.get("/queue")
        assert page.status_code == 200
        assert "Stops, cases and drills: this cannot be read just now" in page.text


def fill(settings: Settings, cases: Iterable[Case], events: Sequence[dict[str, Any]] = ()) -> None:
    """Puts cases where kill-switch keeps them; the customer of run `r-7` is `c-7`."""
    url = settings.database_for(subjects.KILL_SWITCH)
    migrate(url, subjects.KILL_SWITCH)
    database = Database(url)

    def write(conn: Connection) -> None:
        for one in cases:
            body = CaseOpened(
                case_id=one.case_id, agent=one.agent, run_id=one.run_id, to="human", reason=one.reason,
                opened_by="kill-switch", customer=one.run_id.replace("r-", "c-"), events=list(events),
            )  # fmt: skip
            case_store.save(conn, one, body, new=True)

    database.write_now(write)
    database.close()


def waiting(number: int, agent: str = "desk") -> Case:
    """A case of run `r-<number>`, opened as many minutes after noon."""
    at = NOON + number * timedelta(minutes=1)
    return Case(
        case_id=f"case-{number:06x}", agent=agent, run_id=f"r-{number}", state="open", to="human",
        opened_by="kill-switch", opened_at=at, updated_at=at, ticket=f"T-{1000 + number}", reason="all are stopped",
        asked=f"Question {number}.",
    )  # fmt: skip


async def test_a_case_that_tells_nothing_leads_to_its_run(running: Running, settings: Settings) -> None:
    fill(settings, [replace(waiting(7), state="closed")])
    async with running.person(Role.OPERATOR) as eva:
        page = (await eva.get(f"/queue/{waiting(7).case_id}")).text
        assert "Nothing of the run is known" not in page
        story = page[page.index("What was handed over, whole") :]
        assert '<a href="/runs/desk/r-7">Run r-7</a>' in story


def walk(page: str) -> str | None:
    """Where the next page is."""
    found = re.search(r'rel="next" href="([^"]*)"', page)
    return found[1].replace("&amp;", "&") if found else None


async def test_in_a_fleet_halt_everybody_who_waits_can_be_leafed_to_and_found(
    running: Running, settings: Settings
) -> None:
    fill(settings, [waiting(number, "desk" if number % 2 else "shop") for number in range(230)])
    async with running.person(Role.OPERATOR) as eva:
        seen, page = [], (await eva.get("/queue")).text
        assert "230 cases. The longest waiting first." in page
        while True:
            seen += [int(number) for number in re.findall(r"Question ([0-9]+)\.", page)]
            if (address := walk(page)) is None:
                break
            page = (await eva.get(address)).text
        assert seen == list(range(230))
        assert 'href="/queue" data-key="p"' in page
        for about in ("c-201", "t-1201", "case-0000c9", "0000c9", "r-201"):
            page = (await eva.get(f"/queue?about={about}")).text
            assert re.findall(r"Question ([0-9]+)\.", page) == ["201"], about
            assert f'value="{about}"' in page and "One case." in page
        page = (await eva.get("/queue?about=c-2000")).text
        assert "Only cases with “c-2000” as ticket, customer, run or case were looked for" in page
        assert "Nobody waits" not in page and 'href="/queue?state=all&amp;about=c-2000"' in page
        page = (await eva.get("/queue?agent=shop")).text
        assert "<option selected>shop</option>" in page and "115 cases." in page
        page = (await eva.get("/queue?agent=other")).text
        assert "Only cases of other were looked for" in page and '<a class="button" href="/queue">' in page
        assert [(await eva.get(f"/queue?after={bad}")).status_code for bad in ("x", "1", "1.", "x.y")] == [404] * 4


async def test_what_was_handed_over_is_told_as_a_story_and_as_data_where_that_is_asked_for(
    running: Running, settings: Settings
) -> None:
    at = NOON.isoformat()
    fill(settings, [waiting(7)], [
        {"event": "started", "time": at, "input": "Where is my refund?", "run_id": "r-7", "seq": 0},
        {"event": "model_called", "time": at, "model": "m-1", "provider": "openai", "latency_ms": 1240.0,
         "usage": {"input_tokens": 1204, "output_tokens": 31}, "output": "I will see."},
        {"event": "tool_called", "time": at, "tool": "refund", "kind": "write", "error": "card expired"},
        {"event": "started", "time": at, "truncated": True},
    ])  # fmt: skip
    async with running.person(Role.VIEWER) as vera:
        page = (await vera.get(f"/queue/{waiting(7).case_id}")).text
        assert "The model m-1 was asked (1,204 tokens in, 31 out)" in page and "1.2 s" in page
        assert '<li class="step work failed">' in page and "Tried to change something with refund" in page
        assert "card expired" in page and "input_tokens" not in page and "openai" not in page
        raw = (await vera.get(f"/queue/{waiting(7).case_id}?raw=1")).text
        assert "&#34;input_tokens&#34;: 1204" in raw and "openai" in raw


async def test_a_deed_that_the_bus_does_not_confirm_is_recorded_as_not_done(
    running: Running, settings: Settings, js: JetStreamContext
) -> None:
    fill(settings, [waiting(7)])
    stream = await js.stream_info(subjects.GOVERNANCE)
    keeps = [name for name in stream.config.subjects or [] if not name.startswith("midwatch.case.")]
    await js.update_stream(stream.config, subjects=keeps)
    async with running.person(Role.OPERATOR, "eva") as eva:
        answer = await eva.act(f"/queue/{waiting(7).case_id}/take", text="")
        assert answer.status_code == 503 and "the bus (NATS) did not confirm it" in answer.text
    assert [(one["action"], one.get("detail", {}).get("why")) for one in await running.recorded()] == [
        ("case.accepted", None), ("case.not_accepted", "unanswered"),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_a_customer_is_found_by_the_whole_of_the_name_on_either_database(
    kind: str, settings: Settings, request: pytest.FixtureRequest
) -> None:
    if kind == "postgres":
        settings = settings.model_copy(update={"database_url": request.getfixturevalue("postgres_url")})
    fill(settings, [replace(waiting(number), run_id=f"r-{name}") for number, name in enumerate(
        ("7", "77", "50%", "500", 'a"b\\c', "a_b", "axb", "Ü")
    )])  # fmt: skip
    database = Database(settings.database_for(subjects.KILL_SWITCH))
    found = {}
    for name in ("c-7", "c-50%", 'c-a"b\\c', "c-a_b", "c-Ü", "7"):
        wanted = case_pages.Wanted(about=name)
        some = await database.read(lambda conn, wanted=wanted: case_pages.find(conn, wanted))  # type: ignore[misc]
        found[name] = [one["asked"] for one in some]
    database.close()
    assert found == {
        "c-7": ["Question 0."], "c-50%": ["Question 2."], 'c-a"b\\c': ["Question 4."], "c-a_b": ["Question 5."],
        "c-Ü": ["Question 7."], "7": ["Question 7."],
    }  # fmt: skip
