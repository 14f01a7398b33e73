"""Drills in the console: what was measured, what is due, and one that is really run from the page."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from nats.js import JetStreamContext

from console_helpers import Person, Running, console
from drill_helpers import LONG_AGO, apply_card, is_armed
from helpers import eventually
from kill_switch_helpers import kill_switch, put
from midwatch.contracts import codec, subjects
from midwatch.contracts.envelope import utc_now
from midwatch.contracts.governance import AuditActed, InstanceReport, SwitchDrilled
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Switchboard
from midwatch_services.console.access.roles import Role
from midwatch_services.kill_switch.drills import drill, drill_plan
from midwatch_services.kill_switch.policy import POLICY
from pods import arm, pod

DRILLED = SwitchDrilled(
    drill_id="drill-20261120-0a0a0a", agent="desk", by="ben", started_at=utc_now() - timedelta(days=3), passed=False,
    failures=["2 of 40 tickets were lost: <b>x</b>"], effective_seconds=0.4123, first_fallback_seconds=None,
    restore_seconds=2.25, tickets=40, answered=30, fell_back=8, lost=2,
)  # fmt: skip


@pytest.fixture
async def running(js: JetStreamContext, settings: Settings) -> AsyncIterator[Running]:
    await put(js, "agent.desk", b'{"state":"running"}')
    async with console(settings) as one:
        yield one


async def test_past_drills_show_their_times_and_what_is_due_is_said_without_any_database(
    running: Running, js: JetStreamContext
) -> None:
    await apply_card(js, agent="desk", drill="weekly", drill_hours="02:00-05:00")
    await apply_card(js, agent="old-desk", applied_at=LONG_AGO, drill="weekly", drill_hours="02:00-05:00")
    await apply_card(js, agent="quiet", drill="never")
    await drill.publish(js, DRILLED, "result")
    async with running.person(Role.VIEWER) as vera:

        async def look() -> str:
            page = (await vera.get("/drills")).text
            assert "quiet" in page
            return page

        page = await eventually(look)
        row = re.search(r"drill-20261120-0a0a0a.*?</tr>", page.split("Drills that were")[-1], re.S)
        assert row and all(
            text in row[0] for text in ("Not passed", "0.4 s", "not reached", "2.2 s", "ben", "&lt;b&gt;")
        )
        assert re.search(r"the weekly drill of old-desk is \d+ days overdue; none was ever run", page)
        assert "never, by its card" in page
        assert "Drill …" not in page
        one = (await vera.get("/drills/drill-20261120-0a0a0a")).text
        assert (
            "40: 30 answered, 8 to the fallback, 2 lost, 0 doubled" in one
            and "(limit 5 seconds)" in one
            and "(limit 10 seconds)" in one
        )
        assert (await vera.get("/drills/drill-x")).status_code == 404
        assert (await vera.act("/drills/begin", agent="desk")).status_code == 403
        assert (await vera.get("/drills/plan?agent=desk")).status_code == 403


async def test_an_empty_page_names_the_command_that_does_what_is_promised(
    running: Running, js: JetStreamContext
) -> None:
    async with running.person(Role.OPERATOR) as ann:
        for where in ("/drills", "/stop/history"):
            assert "AGENT" not in (await ann.get(where)).text
        await apply_card(js)
        for where in ("/drills", "/stop/history"):
            await eventually(lambda where=where: _names(ann, where, '<code class="command">midwatch drill desk</code>'))


async def _names(person: Person, where: str, text: str) -> bool:
    assert text in (await person.get(where)).text
    return True


async def test_a_drill_that_did_not_pass_says_in_words_for_whom_it_waited_and_what_to_do(
    running: Running, js: JetStreamContext
) -> None:
    reports = [
        InstanceReport(agent="desk", instance="pod-1", state="applied", running=["r-1"]),
        InstanceReport(agent="desk", instance="pod-2", state="lapsed"),
        InstanceReport(agent="desk", instance="pod-3", state="applied"),
    ]
    failed = msgspec.structs.replace(DRILLED, effective_seconds=None, instances=reports, failures=[])
    told = msgspec.structs.replace(failed, failures=drill_plan.failures(failed, drill_plan.LIMITS))
    await drill.publish(js, told, "result")
    async with running.person(Role.OPERATOR) as ann:
        page = await eventually(lambda: _one(ann))
    assert "pod-1 (still moves), pod-2 (silent too long)" in page
    assert "See whether pod-1, pod-2 would obey now" in page
    assert 'href="/runs?agent=desk&amp;mode=drill"' in page


async def _one(person: Person) -> str:
    page = await person.get(f"/drills/{DRILLED.drill_id}")
    assert page.status_code == 200
    return page.text


async def test_commands_in_a_refusal_stand_as_commands(running: Running, js: JetStreamContext) -> None:
    async with running.person(Role.OPERATOR) as ann:
        plan = (await ann.get("/drills/plan?agent=night-desk")).text
    assert "apply one with <code>midwatch apply</code>" in plan


async def test_what_may_not_be_drilled_is_told_why_and_nothing_is_halted(
    running: Running, js: JetStreamContext
) -> None:
    await apply_card(js)
    async with running.person(Role.OPERATOR) as ann:
        plan = (await ann.get("/drills/plan?agent=desk")).text
        assert "It may not begin: no instance of desk is armed" in plan
        assert "Drill now" not in plan
        assert "--without-instances" not in plan
        begun = await ann.act("/drills/begin", agent="desk")

        async def failed() -> bool:
            return "It did not come to a halt: no instance of desk is armed" in (
                await ann.get(begun.headers["location"])
            ).text  # fmt: skip

        await eventually(failed)
    record = (await Switchboard(js).read("agent.desk")).record()
    assert record is not None and record.state == "running"


async def test_a_drill_from_the_page_halts_a_real_process_measures_and_restores(
    running: Running, js: JetStreamContext, nats_server: NatsServer, settings: Settings, tmp_path: Path
) -> None:
    await arm(js, lease=5.0)
    async with (
        kill_switch(settings, POLICY),
        pod(tmp_path, nats_server.url, runs=2),
        running.person(Role.OPERATOR, "eva") as eva,
    ):
        await eventually(lambda: is_armed(running.context.nc, js))

        async def ready() -> bool:
            return "2 runs in flight stop and go to its fallback" in (await eva.get("/drills/plan?agent=desk")).text

        await eventually(ready)
        token = await eva.token()
        both = await asyncio.gather(*(eva.act("/drills/begin", token, agent="desk") for _ in range(2)))
        where = {one.headers["location"] for one in both}
        assert len(where) == 1, "pressing twice begins one drill"
        (where_to,) = where

        async def over() -> str:
            page = (await eva.get(f"{where_to}?part=1")).text
            assert "data-drill=" in page, page
            return page

        page = await eventually(over, 60)
        assert 'data-drill="passed"' in page, page
        assert "0 lost, 0 doubled" in page
        assert where_to in (await eva.get("/drills")).text
    record = (await Switchboard(js).read("agent.desk")).record()
    assert record is not None and record.state == "running"
    assert [one["action"] for one in await running.recorded()] == ["drill.began"]


async def test_a_drill_that_warmed_up_as_the_console_restarted_is_told_as_over_and_as_having_halted_nothing(
    js: JetStreamContext, nats_server: NatsServer, settings: Settings, tmp_path: Path
) -> None:
    await put(js, "agent.desk", b'{"state":"running"}')
    await arm(js, lease=5.0)
    async with kill_switch(settings, POLICY), pod(tmp_path, nats_server.url, runs=1):
        async with console(settings) as before, before.person(Role.OPERATOR, "eva") as eva:
            await eventually(lambda: is_armed(before.context.nc, js))
            here = (await eva.act("/drills/begin", agent="desk")).headers["location"]

            async def warms_up() -> str:
                page = (await eva.get(f"{here}?part=1")).text
                assert "tickets a second flow to desk" in page, page
                return page

            assert "It runs" in await eventually(warms_up)
        async with console(settings) as after, after.person(Role.OPERATOR, "ann") as ann:
            part = await ann.get(f"{here}?part=1&seen=what-it-was")
    assert part.status_code == 200, "the part stands in the place of the one that says that it runs"
    assert "This console does not run it" in part.text
    assert "<bdi>eva</bdi>" in part.text
    assert "it never halted desk" in part.text
    assert 'href="/drills/plan?agent=desk"' in part.text
    assert "every 1s" not in part.text
    assert "It runs" not in part.text


@pytest.mark.parametrize("kept", ["halted", "replaced", "lifted", "quiet"])
async def test_the_page_of_a_lost_drill_says_that_all_agents_are_halted_and_by_whom(
    running: Running, js: JetStreamContext, kept: str
) -> None:
    name, board = await began(js), Switchboard(js)
    says = "All agents are halted now, and desk with them"
    if kept != "quiet":
        await board.halt_agent("desk", drill=True, reason="a drill", by=f"drill/{name} eva")
    if kept in ("lifted", "replaced"):
        await board.resume_agent("desk", reason="it expired", by="kill-switch")
    if kept == "replaced":
        await board.halt_agent("desk", reason="a fire", by="ben")
    async with running.person(Role.OPERATOR) as ann:
        before = (await ann.get(f"/drills/{name}")).text
        await board.halt_fleet(reason="a flood", by="bo")
        page = (await ann.get(f"/drills/{name}")).text
        await put(js, subjects.FLEET_KEY, b"[1]")
        unread = (await ann.get(f"/drills/{name}")).text
    assert says not in before
    assert f"{says}, by: <bdi>bo</bdi>." in page
    assert f"{says}." in unread
    for halted in (page, unread):
        assert 'href="/stop">See how things stand</a>' in halted
        assert ("<bdi>ben</bdi>" in halted) == (kept == "replaced")


async def began(js: JetStreamContext) -> str:
    """A drill of desk by eva that is recorded as begun, and that no console runs."""
    name = f"drill-{utc_now():%Y%m%d}-0a0a0a"
    said = AuditActed(by="eva", role="operator", action="drill.began", target="desk", detail={"drill": name})
    envelope = codec.envelope("audit", "acted", said, source="/services/console")
    await js.publish(subjects.audit("desk", "acted"), codec.encode(envelope))
    return name


async def test_of_a_drill_that_runs_nowhere_the_switch_says_whether_its_halt_still_stands(
    running: Running, js: JetStreamContext, nats_server: NatsServer
) -> None:
    name = await began(js)
    async with running.person(Role.VIEWER) as vera:
        board, halt = Switchboard(js), {"reason": "a drill", "by": f"drill/{name} eva"}
        await board.halt_agent("desk", drill=True, expires_at=utc_now() + timedelta(minutes=1), **halt)
        page = (await vera.get(f"/drills/{name}")).text
        assert "It halted desk, and that halt still stands." in page
        assert "It is to be lifted:" in page
        assert 'hx-trigger="every 5s"' in page
        await board.resume_agent("desk", reason="it expired", by="kill-switch")
        assert "that halt was lifted since" in (await vera.get(f"/drills/{name}")).text
        await board.halt_agent("desk", reason="a fire", by="ben")
        page = (await vera.get(f"/drills/{name}")).text
        assert "by another halt that took the place of its own" in page
        assert "halted now by somebody else: <bdi>ben</bdi>" in page
        assert "lifted since" not in page
        for odd in ("drill-99999999-0a0a0a", "drill-x"):
            assert (await vera.get(f"/drills/{odd}")).status_code == 404
            assert "Nobody recorded that it began" in (await vera.get(f"/drills/{odd}?part=1")).text
        await nats_server.stop()

        async def silent() -> bool:
            return "take it that the agent may be halted" in (await vera.get(f"/drills/{name}?part=1")).text

        await eventually(silent)
