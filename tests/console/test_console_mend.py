"""A list of halted tools or runs that cannot be read: told as what it is, and mended from the console."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.js import JetStreamContext

from console_helpers import Running, console
from helpers import eventually
from kill_switch_helpers import put
from midwatch.client import connect
from midwatch.errors import Halted, Temporary
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Switchboard
from midwatch_services.console.access.roles import Role
from midwatch_services.console.others import switch
from pods import arm

TOOLS = {"agent": "desk", "list": "tools"}


@pytest.fixture
async def running(js: JetStreamContext, settings: Settings) -> AsyncIterator[Running]:
    await arm(js, lease=5.0)
    await put(js, "agent.desk", b'{"state":"running"}')
    async with console(settings) as one:
        yield one


@pytest.mark.parametrize(
    ("what", "means", "today"),
    [("tools", "none of its tools may be called", False), ("runs", "every run of it stands still", True)],
)
async def test_a_list_that_cannot_be_read_is_told_as_that_and_mended_by_who_may(
    running: Running, js: JetStreamContext, what: str, means: str, today: bool
) -> None:
    await put(js, f"{what}.desk", b"[1]")
    async with running.person(Role.VIEWER) as vera, running.person(Role.OPERATOR, "eva") as eva:
        page = (await vera.get("/stop")).text
        assert f"The list of halted {what} of desk" in page
        assert means in page
        assert "/stop/mend" not in page
        assert "/stop/resume" not in page
        assert ('href="/stop">To all that is stopped' in (await vera.get("/today/needs")).text) == today
        assert f'href="/stop/mend?agent=desk&amp;list={what}"' in (await eva.get("/stop")).text
        asked = (await eva.get(f"/stop/mend?agent=desk&list={what}")).text
        assert f'name="seen" value="{(await Switchboard(js).read(f"{what}.desk")).revision}"' in asked
        seen = (await Switchboard(js).read(f"{what}.desk")).revision
        done = await eva.act("/stop/mended", agent="desk", list=what, seen=seen, reason="a typing mistake")
        assert done.headers["location"] == "/stop"
        page = (await eva.get("/stop")).text
        assert f"The list of halted {what} of desk: mended." in page
        assert "Nothing is halted." in page
        assert "it can be read, so there is nothing to mend" in (
            await eva.get(f"/stop/mend?agent=desk&list={what}")
        ).text.lower()  # fmt: skip
    assert (await Switchboard(js).read(f"{what}.desk")).value == b"{}"
    assert [(one["by"], one["action"], one["target"]) for one in await running.recorded()] == [
        ("eva", "switch.mend", f"{what}.desk")
    ]


async def test_only_what_was_seen_is_mended_and_nothing_of_it_is_started_by_itself(
    running: Running, js: JetStreamContext
) -> None:
    await put(js, "tools.desk", b"[1]")
    board = Switchboard(js)
    seen = (await board.read("tools.desk")).revision
    async with running.person(Role.OPERATOR, "eva") as eva:
        one = "what=tool&agent=desk&tool=pay"
        assert "/stop/mend?agent=desk&amp;list=tools" in (await eva.get(f"/stop/resume?{one}")).text
        tried = await eva.act("/stop/resumed", what="tool", agent="desk", tool="pay", reason="it is well")
        assert (tried.status_code, "Nothing was changed." in tried.text) == (409, True)
        assert "It is halted already" not in (await eva.get("/stop/confirm?what=agent&agent=desk&reason=x")).text
        await put(js, "tools.desk", b"[2]")
        late = await eva.act("/stop/mended", **TOOLS, seen=seen, reason="a typing mistake")
        assert (late.status_code, "The list is not what you saw any more" in late.text) == (409, True)
        assert (await eva.act("/stop/mended", **TOOLS, seen=seen, reason=" ")).status_code == 422
        assert (await eva.get("/stop/mend?agent=desk&list=agent")).status_code == 404
    async with running.person(Role.VIEWER) as vera:
        assert (await vera.act("/stop/mended", **TOOLS, seen=seen, reason="x")).status_code == 403
    assert (await board.read("tools.desk")).value == b"[2]"


@pytest.mark.parametrize("answers", [True, False])
async def test_a_mending_that_came_to_nothing_is_recorded_as_that(
    running: Running, js: JetStreamContext, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    clear = switch.clear

    async def late(js: JetStreamContext, key: str, revision: int) -> bool:
        if not answers:
            raise Temporary("the bus went")
        await put(js, key, b"[2]")
        return await clear(js, key, revision)

    await put(js, "tools.desk", b"[1]")
    seen = (await Switchboard(js).read("tools.desk")).revision
    monkeypatch.setattr(switch, "clear", late)
    async with running.person(Role.OPERATOR, "eva") as eva:
        done = await eva.act("/stop/mended", **TOOLS, seen=seen, reason="a typing mistake")
    assert done.status_code == (409 if answers else 503)
    assert [one["action"] for one in await running.recorded()] == ["switch.mend", "switch.not_mended"]


async def test_an_agent_calls_its_tools_again_once_the_list_is_mended(
    running: Running, js: JetStreamContext, nats_server: NatsServer, tmp_path: Path
) -> None:
    async with connect(nats_server.url, home=tmp_path) as mw:
        desk = mw.agent("desk", version="1")

        async def may_call() -> bool:
            try:
                async with desk.run(input="Where?") as run:
                    await run.tool("look_up", lambda: None)
            except Halted:
                return False
            return True

        async def may_not_call() -> bool:
            return not await may_call()

        await eventually(may_call)
        await put(js, "tools.desk", b"[1]")
        await eventually(may_not_call)
        async with running.person(Role.OPERATOR, "eva") as eva:
            seen = (await Switchboard(js).read("tools.desk")).revision
            await eva.act("/stop/mended", **TOOLS, seen=seen, reason="a typing mistake")
        await eventually(may_call)
