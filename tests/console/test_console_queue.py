"""The queue in the console: a case whole, and what people do with it, judged by kill-switch itself."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.js import JetStreamContext

from console_helpers import Running, console
from helpers import eventually
from kill_switch_helpers import kill_switch, publish, put
from midwatch.contracts import subjects
from midwatch.runtime.settings import Settings
from midwatch_services.console.access.roles import Role
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
            assert "Somebody else was faster: eva has it since" in page
            assert f'action="/queue/{CASE}/close"' not in page
        await eva.act(f"/queue/{CASE}/return", text="needs someone who may refund")
        page = (await eva.get(f"/queue/{CASE}")).text
        assert "It waits for others again." in page and "needs someone who may refund" in page
        await eva.act(f"/queue/{CASE}/close", text="refunded by hand")
        page = (await eva.get(f"/queue/{CASE}")).text
        assert "Closed." in page and "refunded by hand" in page
        assert "Nobody waits" in (await eva.get("/queue")).text
        assert CASE in (await eva.get("/queue?state=closed")).text
    assert [(one["by"], one["action"], one["detail"]["standing"]) for one in await running.recorded()] == [
        ("eva", "case.accepted", "may"), ("ben", "case.accepted", "refused"), ("eva", "case.returned", "may"),
        ("eva", "case.closed", "may"),
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
