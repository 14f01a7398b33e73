"""Stopping from the console: two steps, the proof as it fills, and everything of ours but the bus down."""

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import pytest
from nats.js import JetStreamContext

from console_helpers import Person, Running, console
from helpers import eventually
from kill_switch_helpers import Pod as Said
from kill_switch_helpers import kill_switch, put
from midwatch.contracts import subjects
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Scope, Switchboard
from midwatch_services.console.access.roles import Role
from pods import arm, pod
from proof_helpers import phase, until

DESK = {"what": "agent", "agent": "desk"}
WHY = {"reason": "wrong refunds"}


def flash(page: str) -> str:
    found = re.search(r'<p class="flash"[^>]*>.*?</span> (.*?)</p>', page, re.S)
    return found[1] if found else ""


async def test_two_steps_halt_a_real_process_and_the_proof_fills_by_name(
    running: Running, js: JetStreamContext, nats_server: NatsServer, tmp_path: Path
) -> None:
    await arm(js)
    async with pod(tmp_path, nats_server.url, runs=3) as one, running.person(Role.OPERATOR, "eva") as eva:
        sure = "no run begins any more in its one process, and 3 runs in flight stop before their next call."
        await eventually(lambda: _page_has(eva, "/stop/confirm?what=agent&agent=desk&reason=x", sure))
        pressed = time.monotonic()
        answer = await eva.act("/stop/halt", **DESK, **WHY)
        assert (answer.status_code, answer.headers["location"]) == (303, "/stop/proof?what=agent&agent=desk")
        page = await until(eva, "contained", **DESK)
        assert await one.stopped(pressed) - pressed < 5
        assert one.calls_after(time.monotonic()) == []
        row = re.search(r"desk/pod-1.*?</tr>", page, re.S)
        assert row and "Has applied it" in row[0]
        assert "from your press" in page
        page = await eventually(lambda: _has(eva, "3 runs stopped", DESK))
        assert "eva: wrong refunds" in page.replace("Halted by ", "")
    recorded = [(one["by"], one["action"], one["target"], one["subject"]) for one in await running.recorded()]
    assert recorded == [("eva", "switch.halt", "agent.desk", "midwatch.audit.desk.acted")]


async def _has(person: Person, text: str, scope: dict[str, str]) -> str:
    _, page = await phase(person, **scope)
    assert text in page
    return page


async def test_with_every_database_spoiled_it_halts_and_says_what_is_not_known(
    running: Running, settings: Settings, board: Switchboard, js: JetStreamContext
) -> None:
    for service in (subjects.KILL_SWITCH, subjects.LOGGER):
        path = Path(settings.database_for(service).removeprefix("sqlite:///"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"this is no database" * 100)
    await put(js, "agent.desk", b'{"state":"running"}')
    one = Said(js, lease=30)
    await one.say({"fleet": 1, "agent.desk": 2}, runs_in_flight=["r-1"])
    async with running.person(Role.OPERATOR) as ann:
        sure = (await ann.client.get("/stop/confirm", params=DESK | WHY)).text
        assert "1 run in flight" in sure
        assert "are not counted: kill-switch&#39;s database does not answer" in sure
        await ann.act("/stop/halt", **DESK, **WHY)
        epoch = (await board.read("agent.desk")).revision
        page = await eventually(lambda: _has(ann, "desk/pod-1", DESK))
        assert "Has not confirmed" in page
        assert "End this process: 7 on h." in page
        assert "midwatch switch write-off pod-1 --agent desk" in page
        await one.say({"agent.desk": epoch})
        page = await until(ann, "contained", **DESK)
        assert "1 process has confirmed" in page
        history = await ann.get("/stop/history")
        assert "cannot be read just now" in history.text


async def test_all_four_scopes_are_halted_and_resumed(running: Running, board: Switchboard) -> None:
    scopes = [
        ({"what": "fleet"}, Scope()), (DESK, Scope("desk")),
        ({"what": "tool", "agent": "desk", "tool": "refund é"}, Scope("desk", tool="refund é")),
        ({"what": "run", "agent": "desk", "run": "<r-1>"}, Scope("desk", run_id="<r-1>")),
    ]  # fmt: skip
    async with running.person(Role.OPERATOR, "eva") as eva:
        for fields, scope in scopes:
            assert (await eva.act("/stop/halt", **fields, **WHY, fallback="human", expires="2h")).status_code == 303
            entry = await board.read(scope.key)
            stands = entry.record() if scope.target is None else (entry.map() or {})[scope.target]
            assert stands and (stands.state, stands.by, stands.reason) == ("halted", "eva", "wrong refunds")
            assert stands.fallback == "human" and stands.expires_at is not None
        page = (await eva.get("/stop")).text
        assert page.count("Start again …") == 4
        assert "The run &lt;r-1&gt; of desk" in page
        for fields, scope in scopes:
            resume = (await eva.client.get("/stop/resume", params=fields)).text
            seen = re.search(r'name="seen" value="(\w+)"', resume)
            assert seen
            await eva.act("/stop/resumed", **fields, reason="mended", seen=seen[1])
            entry = await board.read(scope.key)
            stands = entry.record() if scope.target is None else (entry.map() or {})[scope.target]
            assert stands and (stands.state, stands.by, stands.reason) == ("running", "eva", "mended")
        assert "Nothing is halted." in (await eva.get("/stop")).text


async def test_pressing_twice_is_pressing_once(running: Running, board: Switchboard) -> None:
    async with running.person(Role.OPERATOR, "eva") as eva:
        token = await eva.token()
        answers = await asyncio.gather(*(eva.act("/stop/halt", token, **DESK, **WHY) for _ in range(2)))
        assert [one.status_code for one in answers] == [303, 303]
        epoch = (await board.read("agent.desk")).revision
        again = await eva.act("/stop/halt", token, **DESK, **WHY)
        assert (await board.read("agent.desk")).revision == epoch
        assert flash((await eva.get(again.headers["location"])).text) == (
            "You had halted it already. Pressing twice changes nothing."
        )
    assert sorted(one["detail"]["changed"] for one in await running.recorded()) == ["False", "False", "True"]


async def test_a_halt_of_the_fleet_stands_there_though_no_agent_is_known_yet(
    js: JetStreamContext, settings: Settings
) -> None:
    board = Switchboard(js)
    async with console(settings) as running, running.person(Role.OPERATOR) as ann:
        await board.halt_fleet(by="bo", reason="not ready yet")
        page = (await ann.get("/stop")).text
    assert "Nothing is halted" not in page
    assert "not ready yet" in page
    assert 'href="/stop/resume?what=fleet"' in page


async def test_starting_again_what_runs_is_recorded_as_what_it_was(running: Running, board: Switchboard) -> None:
    await board.resume_agent("desk", by="bo", reason="began")
    async with running.person(Role.OPERATOR, "eva") as eva:
        answer = await eva.act("/stop/resumed", what="agent", agent="desk", reason="x", seen="")
        assert answer.status_code == 303
    assert [one["action"] for one in await running.done()] == ["switch.not_resumed"]


@pytest.mark.parametrize(
    ("halts_anew", "status"), [(True, 409), (False, 303)], ids=["who halts anew", "who starts it first"]
)
async def test_a_start_that_somebody_overtook_is_recorded_as_come_to_nothing(
    running: Running, board: Switchboard, monkeypatch: pytest.MonkeyPatch, halts_anew: bool, status: int
) -> None:
    resume = Switchboard.resume

    async def late(self: Switchboard, scope: Scope, **how: Any) -> Any:
        await resume(self, scope, reason="done", by="bo")
        if halts_anew:
            await self.halt(scope, reason="worse", by="bo")
        return await resume(self, scope, **how)

    await board.halt_agent("desk", by="eva", reason="it loops")
    async with running.person(Role.ADMIN, "eva") as eva:
        asked = (await eva.get("/stop/resume?what=agent&agent=desk")).text
        fields = {name: re.findall(rf'name="{name}" value="([^"]*)"', asked)[-1] for name in ("seen", "once")}
        monkeypatch.setattr(Switchboard, "resume", late)
        answer = await eva.act("/stop/resumed", **DESK, **fields, reason="it is well")
        told = (await eva.get("/audit")).text
    assert answer.status_code == status
    assert "Somebody else had stopped or started it meanwhile" in told
    assert [(one["action"], one["detail"].get("why")) for one in await running.recorded()] == [
        ("switch.resume", None), ("switch.not_resumed", "overtaken"),
    ]  # fmt: skip


async def test_one_is_told_that_somebody_else_halted_meanwhile(running: Running, board: Switchboard) -> None:
    async with running.person(Role.OPERATOR, "eva") as eva:
        await eva.client.get("/stop/confirm", params=DESK | WHY)
        await board.halt_agent("desk", reason="it loops", by="ben")
        answer = await eva.act("/stop/halt", **DESK, **WHY)
        page = (await eva.get(answer.headers["location"])).text
        assert flash(page).startswith("ben had halted it meanwhile.")
        record = (await board.read("agent.desk")).record()
        assert record and (record.by, record.reason) == ("ben", "it loops")
        assert "It is halted already, by ben: it loops." in (
            await eva.client.get("/stop/confirm", params=DESK | WHY)
        ).text  # fmt: skip


async def test_a_halt_that_its_reader_never_saw_is_not_lifted(running: Running, board: Switchboard) -> None:
    await board.halt_agent("desk", reason="first", by="ben")
    async with running.person(Role.OPERATOR, "eva") as eva:
        page = (await eva.client.get("/stop/resume", params=DESK)).text
        seen = re.search(r'name="seen" value="(\w+)"', page)
        assert seen and "ben" in page
        await board.resume_agent("desk", reason="mended", by="ben")
        await board.halt_agent("desk", reason="second", by="cid")
        answer = await eva.act("/stop/resumed", **DESK, reason="mended", seen=seen[1])
        assert answer.status_code == 409
        assert "somebody wrote the switch meanwhile. Nothing was changed." in answer.text
        assert "cid" in answer.text and "second" in answer.text
        record = (await board.read("agent.desk")).record()
        assert record and (record.state, record.by) == ("halted", "cid")
    assert await running.recorded() == []


async def test_a_viewer_and_a_reviewer_see_how_things_stand_and_may_press_nothing(
    running: Running, board: Switchboard
) -> None:
    await board.halt_agent("desk", reason="it loops", by="ben")
    for role in (Role.VIEWER, Role.REVIEWER):
        async with running.person(role) as vera:
            page = (await vera.get("/stop")).text
            assert "it loops" in page
            assert '<form class="stopping' not in page and "Start again" not in page
            assert (await phase(vera, **DESK))[0] in ("waiting", "contained")
            before = (await board.read("agent.other")).revision
            answers = [
                await vera.act("/stop/halt", what="agent", agent="other", **WHY),
                await vera.act("/stop/resumed", **DESK, **WHY, seen="x"),
                await vera.client.get("/stop/confirm", params=DESK | WHY),
                await vera.client.get("/stop/resume", params=DESK),
            ]
            assert [one.status_code for one in answers] == [403] * 4
            assert (await board.read("agent.other")).revision == before
    record = (await board.read("agent.desk")).record()
    assert record and record.state == "halted"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({**WHY}, "Choose what is to be stopped."),
        ({"what": "agent", "agent": "No Agent", **WHY}, "Choose an agent."),
        ({"what": "tool", "agent": "desk", **WHY}, "Name the tool"),
        ({"what": "run", "agent": "desk", "run": "x" * 129, **WHY}, "Name the run"),
        ({**DESK, "reason": "  "}, "Write why"),
        ({**DESK, **WHY, "fallback": "agent:No"}, "Choose who takes over."),
        ({**DESK, **WHY, "expires": "9y"}, "Choose until when."),
    ],
)
async def test_what_is_missing_is_said_and_nothing_is_halted(
    running: Running, board: Switchboard, fields: dict[str, str], says: str
) -> None:
    async with running.person(Role.OPERATOR) as ann:
        for answer in (await ann.act("/stop/halt", **fields), await ann.client.get("/stop/confirm", params=fields)):
            assert answer.status_code == 422
            assert says in answer.text
    assert (await board.read("agent.desk")).revision == 0


async def test_kill_switchs_own_word_tells_how_long_a_halt_took_that_nobody_here_pressed(
    running: Running, board: Switchboard, js: JetStreamContext, settings: Settings
) -> None:
    await put(js, "agent.desk", b'{"state":"running"}')
    one = Said(js, lease=30)
    async with kill_switch(settings), running.person(Role.VIEWER) as vera:
        await one.say({"fleet": 1, "agent.desk": 2})
        written = await board.halt_agent("desk", reason="it loops", by="ben")
        await one.say({"agent.desk": written.revision})
        page = await eventually(lambda: _has(vera, "as kill-switch measured it", DESK))
        assert "Contained" in page
        history = await eventually(lambda: _page_has(vera, "/stop/history", "it loops"))
        assert "Stop" in history
        await board.resume_agent("desk", reason="mended", by="ben")
        page = await until(vera, "lifted", **DESK)
        assert "Lifted by ben: mended" in page


async def _page_has(person: Person, path: str, text: str) -> str:
    page = (await person.get(path)).text
    assert text in page
    return page


async def test_while_the_bus_is_away_it_is_said_that_nothing_was_stopped(
    running: Running, nats_server: NatsServer
) -> None:
    async with running.person(Role.OPERATOR) as ann:
        token = await ann.token()
        await asyncio.to_thread(nats_server.kill)
        await eventually(lambda: not running.context.nc.is_connected)
        page = await ann.get("/stop")
        assert page.status_code == 200
        assert "Nothing can be stopped from here until it is back." in page.text
        answer = await ann.act("/stop/halt", token, **DESK, **WHY)
        assert answer.status_code == 503
        assert "so take it that nothing was stopped" in answer.text
        assert (await phase(ann, **DESK))[0] == "unknown"


async def test_a_halt_that_cannot_be_recorded_stands_and_says_so(
    running: Running, board: Switchboard, js: JetStreamContext
) -> None:
    await js.delete_stream(subjects.GOVERNANCE)
    async with running.person(Role.OPERATOR, "eva") as eva:
        answer = await eva.act("/stop/halt", **DESK, **WHY)
        said = flash((await eva.get(answer.headers["location"])).text)
        assert said.endswith("It could not be recorded in the audit; the switch itself keeps your name and reason.")
    record = (await board.read("agent.desk")).record()
    assert record and (record.state, record.by) == ("halted", "eva")


async def test_another_site_or_a_form_without_its_token_halts_nothing(running: Running, board: Switchboard) -> None:
    async with running.person(Role.OPERATOR) as ann:
        token = await ann.token()
        forged = await ann.act("/stop/halt", "0" * 64, **DESK, **WHY)
        foreign = await ann.client.post(
            "/stop/halt", data={"csrf": token, **DESK, **WHY}, headers={"sec-fetch-site": "cross-site"}
        )
        assert [forged.status_code, foreign.status_code] == [403, 403]
    async with running.person() as stranger:
        assert (await stranger.act("/stop/halt", token, **DESK, **WHY)).status_code == 401
    assert (await board.read("agent.desk")).revision == 0
