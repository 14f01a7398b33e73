"""What the proof of a halt rests on, what is recorded first, and the commands that stop pages print."""

import asyncio
import html
import re
import shlex
from datetime import timedelta
from typing import Any

import pytest
import typer
from nats.js import JetStreamContext

from console_helpers import Person, Running
from helpers import eventually
from kill_switch_helpers import Pod as Said
from kill_switch_helpers import heard, kill_switch, put
from midwatch.contracts import control, subjects
from midwatch.contracts.control import Presence
from midwatch.contracts.envelope import utc_now
from midwatch.contracts.governance import SwitchDrilled
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Switchboard
from midwatch_services import cli
from midwatch_services.console.access.roles import Role
from midwatch_services.console.others import drills
from midwatch_services.kill_switch.drills import drill
from proof_helpers import phase, until

DESK = {"what": "agent", "agent": "desk"}
TOOL = {"what": "tool", "agent": "desk", "tool": "refund"}
WHY = {"reason": "wrong refunds"}
DRILLED = SwitchDrilled(
    drill_id="drill-20261120-0a0a0a", agent="desk", by="ben", started_at=utc_now() - timedelta(days=3), passed=True
)


def commands(page: str) -> list[str]:
    """Every command that a page prints for its reader to copy."""
    printed = [html.unescape(one) for one in re.findall(r"<code[^>]*>(midwatch .*?)</code>", page, re.S)]
    return [one.strip() for line in printed for one in line.split("&&")]


def parses(command: str) -> bool:
    """Whether our command line takes it, word by word as a shell cuts it; a name in capitals stands for one."""
    words = shlex.split(command)
    context = typer.Context(typer.main.get_command(cli.app), info_name=words[0])
    rest = words[1:]
    while hasattr(context.command, "resolve_command"):
        _, found, rest = context.command.resolve_command(context, rest)
        context = typer.Context(found, parent=context, info_name=found.name)
    return bool(context.command.make_context(context.info_name, rest, parent=context.parent))


@pytest.mark.parametrize("pressed", [True, False])
async def test_a_halt_is_not_proved_by_the_proof_of_the_one_before(
    running: Running, board: Switchboard, js: JetStreamContext, settings: Settings, pressed: bool
) -> None:
    await put(js, "agent.desk", b'{"state":"running"}')
    one = Said(js, lease=30)
    async with kill_switch(settings), running.person(Role.OPERATOR, "eva") as eva:
        await one.say({"fleet": 1, "agent.desk": 2})
        written = await board.halt_tool("desk", "refund", reason="it loops", by="ben")
        await one.say({"tools.desk": written.revision})
        await heard(js, "halted", "contained")
        await until(eva, "contained", **TOOL)
        lifted = await board.resume_tool("desk", "refund", reason="mended", by="ben")
        await one.say({"tools.desk": lifted.revision})
        if pressed:
            await eva.act("/stop/halt", **TOOL, **WHY)
        else:
            await board.halt_tool("desk", "refund", reason="again", by="ben")
        await heard(js, "halted", "contained", "resumed", "halted", "unconfirmed")
        assert (await phase(eva, **TOOL))[0] == "waiting"
        again = (await board.read("tools.desk")).revision
        await one.say({"tools.desk": again})
        await until(eva, "contained", **TOOL)


async def test_a_proof_holds_though_the_map_has_moved_on(
    running: Running, board: Switchboard, js: JetStreamContext, settings: Settings
) -> None:
    one = Said(js, lease=30)
    async with kill_switch(settings), running.person(Role.VIEWER) as vera:
        await one.say({"fleet": 1})
        written = await board.halt_tool("desk", "refund", reason="it loops", by="ben")
        await one.say({"tools.desk": written.revision})
        await heard(js, "halted", "contained")
        later = await board.resume_tool("desk", "mail", reason="never halted", by="ben")
        assert not later.changed
        await board.halt_tool("desk", "mail", reason="it spams", by="ben")
        await one.say({"tools.desk": written.revision + 1})
        await heard(js, "halted", "contained", "halted", "contained")  # the newest is of the other tool
        page = await until(vera, "contained", **TOOL)
        assert "as kill-switch measured it" in page


async def test_a_press_that_fails_leaves_nothing_that_listens(running: Running, js: JetStreamContext) -> None:
    listens = running.context.nc._subs
    async with running.person(Role.OPERATOR) as ann:
        token = await ann.token()
        await js.delete_stream(subjects.key_stream(subjects.SWITCH))
        before = len(listens)
        for _ in range(2):
            assert (await ann.act("/stop/halt", token, **DESK, **WHY)).status_code == 503
        assert len(listens) == before


async def test_a_look_that_is_cut_off_leaves_nothing_that_listens(
    running: Running, board: Switchboard, js: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    await board.halt_agent("desk", reason="it loops", by="ben")
    listens = running.context.nc._subs
    monkeypatch.setattr("midwatch_services.kill_switch.witness.round_trip", _never)
    async with running.person(Role.VIEWER) as vera:
        before = len(listens)
        assert (await phase(vera, **DESK))[0] == "unknown"
        assert len(listens) == before


async def _never(*_: object, **__: object) -> None:
    raise TimeoutError


async def test_a_dozen_halts_are_followed_at_once(running: Running, board: Switchboard) -> None:
    await board.halt_runs("desk", [f"r-{n}" for n in range(12)], reason="it loops", by="ben")
    async with running.person(Role.VIEWER) as vera:
        for n in range(12):
            await phase(vera, what="run", agent="desk", run=f"r-{n}")
        assert sum(one.get_name() == "containment" for one in asyncio.all_tasks()) == 12


async def test_what_cannot_be_recorded_is_not_started_again(
    running: Running, board: Switchboard, js: JetStreamContext
) -> None:
    await board.halt_agent("desk", reason="it loops", by="ben")
    async with running.person(Role.OPERATOR, "eva") as eva:
        seen = re.search(r'name="seen" value="(\w+)"', (await eva.client.get("/stop/resume", params=DESK)).text)
        assert seen
        await js.delete_stream(subjects.GOVERNANCE)
        answer = await eva.act("/stop/resumed", **DESK, reason="mended", seen=seen[1])
        assert answer.status_code == 503
        assert "Who starts what is recorded first, and that could not be done. Everything stays halted." in answer.text
    record = (await board.read("agent.desk")).record()
    assert record and (record.state, record.by) == ("halted", "ben")


async def test_a_start_is_recorded_with_who_and_why(running: Running, board: Switchboard) -> None:
    written = await board.halt_agent("desk", reason="it loops", by="ben")
    async with running.person(Role.OPERATOR, "eva") as eva:
        seen = re.search(r'name="seen" value="(\w+)"', (await eva.client.get("/stop/resume", params=DESK)).text)
        assert seen
        assert (await eva.act("/stop/resumed", **DESK, reason="mended", seen=seen[1])).status_code == 303
    (kept,) = await running.recorded()
    assert (kept["by"], kept["action"], kept["target"]) == ("eva", "switch.resume", "agent.desk")
    assert kept["detail"] == {"reason": "mended", "epoch": str(written.revision)}


async def test_every_command_that_stop_and_drill_pages_print_is_one_of_ours(
    running: Running, board: Switchboard, js: JetStreamContext, settings: Settings
) -> None:
    async with running.person(Role.OPERATOR) as ann:
        pages = [(await ann.get(path)).text for path in ("/stop", "/stop/history", "/drills")]
        await drill.publish(js, DRILLED, "result")
        pages.append((await ann.get(f"/drills/{DRILLED.drill_id}")).text)
        await board.halt_agent("desk", reason="it loops", by="ben")
        await Said(js, lease=60).say({"agent.desk": 0})
        await eventually(lambda: _prints(ann, "write-off pod-1"))
        pages.append((await phase(ann, **DESK))[1])
        await js.delete_stream(subjects.key_stream(subjects.SWITCH))
        pages += [(await ann.act("/stop/halt", **scope, **WHY)).text for scope in (DESK, {"what": "fleet"})]
    found = [command for page in pages for command in commands(page)]
    assert found == [
        "midwatch card new desk", "midwatch apply agents/desk.yaml",
        "midwatch drill desk --sign-off drill-20261120-0a0a0a",
        'midwatch switch write-off pod-1 --agent desk --reason "…"',
        'midwatch halt desk --reason "…" --wait', 'midwatch halt --fleet --reason "…" --wait',
    ]  # fmt: skip
    for command in found:
        assert parses(command), command


async def _prints(person: Person, text: str) -> bool:
    return text in (await phase(person, **DESK))[1]


@pytest.mark.parametrize("name", ["x;rm$IFS-rf", "--agent=other", "a$(id)", "'\"`id`"])
async def test_no_command_is_printed_for_a_process_with_a_name_that_a_shell_reads_as_more(
    running: Running, board: Switchboard, js: JetStreamContext, name: str
) -> None:
    await board.halt_agent("desk", reason="it loops", by="ben")
    said = Presence(agent="desk", instance=name, version="1", host="h", pid=7, applied={}, lease=60)
    await js.publish(subjects.presence("desk", name), control.encode(said))
    async with running.person(Role.VIEWER) as vera:

        async def look() -> str:
            page = (await phase(vera, **DESK))[1]
            assert f"desk/{name}" in html.unescape(page)
            return page

        page = await eventually(look)
        assert "no command stands here to be copied" in page
        assert commands(page) == []


async def test_who_confirmed_before_anybody_looked_did_not_come_up_since(
    running: Running, board: Switchboard, js: JetStreamContext, settings: Settings
) -> None:
    one = Said(js, lease=30)
    async with kill_switch(settings), running.person(Role.VIEWER) as vera:
        await put(js, "agent.desk", b'{"state":"running"}')
        await one.say({"fleet": 1}, process="a")
        written = await board.halt_agent("desk", reason="it loops", by="ben")
        await one.say({"agent.desk": written.revision}, process="a")
        await heard(js, "halted", "contained")
        pages = [await phase(vera, **DESK) for _ in range(5)]
        assert [(now, "Came up since then" in page) for now, page in pages] == [("contained", False)] * 5


async def test_a_proof_says_as_of_when_and_who_came_up_since(
    running: Running, board: Switchboard, js: JetStreamContext
) -> None:
    await board.halt_agent("desk", reason="it loops", by="ben")
    async with running.person(Role.VIEWER) as vera:
        page = await until(vera, "contained", **DESK)
        assert re.search(r"No process of it ran then\. As of: <time ", page)
        assert "Came up since then" not in page
        await Said(js, name="pod-9", lease=60).say({"agent.desk": 0})
        page = (await phase(vera, **DESK))[1]
        since = page.split("Came up since then")[1].split("</section>")[0]
        assert "desk/pod-9" in since and "▲" in since


async def test_a_process_that_takes_the_name_of_one_that_confirmed_has_not_confirmed(
    running: Running, board: Switchboard, js: JetStreamContext
) -> None:
    written = await board.halt_agent("desk", reason="it loops", by="ben")
    one = Said(js, lease=60)
    await one.say({"agent.desk": written.revision}, process="a")
    async with running.person(Role.VIEWER) as vera:
        page = await until(vera, "contained", **DESK)
        assert "Came up since then" not in page
        await one.say(process="a")
        assert "Came up since then" not in (await phase(vera, **DESK))[1]
        await one.say({"agent.desk": 0}, process="b")
        page = (await phase(vera, **DESK))[1]
        since = page.split("Came up since then")[1].split("</section>")[0]
        assert "desk/pod-1" in since and "▲" in since and "A new process under this name" in since


async def test_a_halt_is_not_contained_while_a_second_process_of_a_name_works(
    running: Running, board: Switchboard, js: JetStreamContext, settings: Settings
) -> None:
    one, two = Said(js, lease=60), Said(js, lease=60)
    async with kill_switch(settings), running.person(Role.OPERATOR, "eva") as eva:
        await two.say({"fleet": 1}, process="b", runs_in_flight=["r-b"])
        await one.say({"fleet": 1}, process="a")
        await eva.act("/stop/halt", **DESK, **WHY)
        written = (await board.read("agent.desk")).revision
        await one.say({"agent.desk": written}, process="a")
        await two.say(process="b", runs_in_flight=["r-b"])
        await one.say(process="a")
        await heard(js, "halted", "unconfirmed")
        now, page = await phase(eva, **DESK)
        assert now == "waiting"
        assert "r-b" in page and "Two processes use this name" in page
        await two.say({"agent.desk": written}, process="b")
        await until(eva, "contained", **DESK)
        await heard(js, "halted", "unconfirmed", "contained")


async def test_the_first_process_that_is_heard_proves_no_halt_for_those_who_speak_after_it(
    running: Running, board: Switchboard, js: JetStreamContext
) -> None:
    async with running.person(Role.OPERATOR, "eva") as eva:
        await eva.act("/stop/halt", **DESK, **WHY)
        written = (await board.read("agent.desk")).revision
        await Said(js, "pod-0", lease=60).say({"agent.desk": written})
        await eventually(lambda: _prints(eva, "desk/pod-0"))
        assert (await phase(eva, **DESK))[0] == "waiting"
        await Said(js, "pod-1", lease=60).say({"agent.desk": 0}, runs_in_flight=["r-1"])
        await eventually(lambda: _prints(eva, "desk/pod-1"))
        assert (await phase(eva, **DESK))[0] == "waiting"


async def test_a_part_that_says_the_same_is_not_brought_again(
    running: Running, board: Switchboard, js: JetStreamContext
) -> None:
    await board.halt_agent("desk", reason="it loops", by="ben")
    await Said(js, lease=60).say({"agent.desk": 0})
    async with running.person(Role.VIEWER) as vera:
        await eventually(lambda: _prints(vera, "desk/pod-1"))
        seen = re.search(r'name="seen" value="(\w+)"', (await phase(vera, **DESK))[1])
        assert seen
        part = {**DESK, "part": "1"}
        assert (await vera.client.get("/stop/proof", params={**part, "seen": seen[1]})).status_code == 204
        assert (await vera.client.get("/stop/proof", params={**part, "seen": "x"})).status_code == 200


async def test_it_is_said_to_whom_cases_would_go(running: Running, js: JetStreamContext) -> None:
    for agent, fallback in (("desk", "human"), ("night-desk", "agent:desk")):
        card = control.Card(agent=agent, owner="o", purpose="p", can=["c"], fallback=fallback)
        await js.publish(subjects.key_subject(subjects.AGENTS, agent), control.encode(card))

    async def look() -> bool:
        async with running.person(Role.OPERATOR) as ann:
            one = (await ann.client.get("/stop/confirm", params={"what": "agent", "agent": "night-desk", **WHY})).text
            assert re.search(r"Cases go to</dt><dd>The agent desk\s+<span", one)
            fleet = (await ann.client.get("/stop/confirm", params={"what": "fleet", **WHY})).text
            assert re.search(r"Cases go to</dt><dd>People \(desk\), The agent desk \(night-desk\)", fleet)
            return True

    await eventually(look)


async def test_halts_beyond_the_newest_are_told_of_and_brought_when_asked_for(
    running: Running, board: Switchboard, settings: Settings
) -> None:
    async with kill_switch(settings), running.person(Role.VIEWER) as vera:
        await board.halt_runs("desk", [f"r-{n}" for n in range(31)], reason="it loops", by="ben")

        async def look() -> str:
            page = (await vera.get("/stop/history?agent=desk")).text
            assert "The newest 30, the newest first" in page
            return page

        page = await eventually(look)
        assert page.count("<tr>") == 31
        link = re.search(r'href="(/stop/history\?[^"]*shown=60)"', page)
        assert link
        older = (await vera.get(html.unescape(link[1]))).text
        assert "All 31, the newest first" in older and older.count("<tr>") == 32


async def test_a_drill_that_breaks_after_its_halt_is_not_told_as_one_that_halted_nothing(
    running: Running, js: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def checked(*_: object, **__: object) -> None:
        return None

    async def breaks(self: Any) -> None:
        self._written = object()
        raise TimeoutError

    monkeypatch.setattr(drills.drill_check, "check", checked)
    monkeypatch.setattr(drills.drill.Drill, "__init__", _without_ready)
    monkeypatch.setattr(drills.drill.Drill, "perform", breaks)
    async with running.person(Role.OPERATOR) as ann:
        begun = (await ann.act("/drills/begin", agent="desk")).headers["location"]

        async def over() -> bool:
            return "It halted the agent, and how it ended is not known: TimeoutError" in (await ann.get(begun)).text

        await eventually(over)


def _without_ready(self: Any, *_: object) -> None:
    self._written, self.result = None, None


async def test_a_drill_that_fails_in_an_unforeseen_way_is_over(
    running: Running, js: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(drills.drill_check, "check", fails)
    async with running.person(Role.OPERATOR) as ann:
        token = await ann.token()
        begun = (await ann.act("/drills/begin", token, agent="desk")).headers["location"]

        async def over() -> bool:
            return "It did not come to a halt: RuntimeError" in (await ann.get(begun)).text

        await eventually(over)
        seen = re.search(r'name="seen" value="(\w+)"', (await ann.get(begun)).text)
        assert seen and (await ann.get(f"{begun}?part=1&seen={seen[1]}")).status_code == 204
        assert (await ann.act("/drills/begin", token, agent="desk")).headers["location"] != begun
