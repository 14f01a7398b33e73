"""Drills on a real server with the real kill-switch: what they measure, and that they restore whatever happens."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

import midwatch
from drill_helpers import apply_card, drilled, is_armed, state, until_halted
from helpers import eventually
from kill_switch_helpers import Pod, kill_switch, put
from midwatch.contracts import control, subjects
from midwatch.contracts.control import Route
from midwatch.link import end
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Switchboard
from midwatch_services.kill_switch.drills import drill, drill_check
from midwatch_services.kill_switch.drills.drill import Drill, Order
from midwatch_services.kill_switch.drills.drill_check import NotReady
from midwatch_services.kill_switch.drills.drill_plan import LIMITS, Limits, Shape
from midwatch_services.kill_switch.policy import POLICY

SHAPE = Shape(before=0.3, hold=0.3, after=0.1)
IMPATIENT = Limits(effective=1.0, first_fallback=3.0, restore=1.0)


@pytest.fixture
async def board(js: JetStreamContext) -> Switchboard:
    """The switch, with an agent that runs and has a card."""
    await put(js, "agent.desk", b'{"state":"running"}')
    await apply_card(js)
    return Switchboard(js)


@asynccontextmanager
async def instance(settings: Settings, home: Path, nc: Client, js: JetStreamContext) -> AsyncIterator[midwatch.Agent]:
    """A real instance of the agent, once it is armed."""
    async with midwatch.connect(settings.url, home=home, instance="pod-1") as mw:
        desk = mw.agent("desk", version="1")
        await eventually(lambda: is_armed(nc, js))
        yield desk


async def ordered(nc: Client, js: JetStreamContext, settings: Settings, **more: Any) -> Order:
    ready = await drill_check.check(nc, js, "desk", without_instances=True)
    return Order(ready, "ann", settings.url, drill.new_id(datetime.now(UTC)), **({"shape": SHAPE} | more))


async def test_a_drill_passes_with_figures_of_its_own_tickets(nc, js, board, settings, tmp_path) -> None:
    async with kill_switch(settings, POLICY), instance(settings, tmp_path / "pod", nc, js):
        order = await ordered(nc, js, settings)
        result = await Drill(nc, js, order, lambda _: None).perform()
    assert result.passed, result.failures
    assert 0 < result.effective_seconds <= LIMITS.effective
    assert 0 < result.first_fallback_seconds <= LIMITS.first_fallback
    assert 0 < result.restore_seconds <= LIMITS.restore
    assert result.answered > 0
    assert result.fell_back > 0
    assert result.answered + result.fell_back == result.tickets
    assert (result.lost, result.doubled, result.restored) == (0, 0, True)
    assert {one.instance: one.state for one in result.instances} == {"pod-1": "applied", order.drill_id: "applied"}
    assert await state(board) == ("running", f"drill/{order.drill_id} ann")
    assert await drilled(js) == [result]
    assert result.signed_off_by == "ann"


async def test_a_drill_fails_by_the_name_of_an_instance_that_does_not_obey_and_restores(
    nc, js, board, settings
) -> None:
    deaf = Pod(js, "deaf-1", applied={"fleet": 1, "agent.desk": 2, "tools.desk": 0, "runs.desk": 0})
    async with kill_switch(settings, POLICY), speaking(deaf):
        order = await ordered(nc, js, settings, limits=IMPATIENT)
        result = await Drill(nc, js, order, lambda _: None).perform()
    assert not result.passed
    assert result.failures == [
        "the halt was not contained within 1 s: deaf-1 (has not confirmed)",
        "the restore was not over; 1 s is the limit",
        "the resume was not applied by deaf-1",
    ]
    assert (result.restored, result.lost, result.doubled) == (True, 0, 0)
    assert await state(board) == ("running", f"drill/{order.drill_id} ann")


@asynccontextmanager
async def speaking(pod: Pod) -> AsyncIterator[None]:
    """The instance says the same, four times a second."""

    async def speak() -> None:
        while True:
            await pod.say()
            await asyncio.sleep(0.25)

    task = asyncio.create_task(speak())
    try:
        yield
    finally:
        await drill.end(task)


@pytest.mark.parametrize("verb", ["halt_agent", "resume_agent"])
async def test_what_an_operator_writes_during_a_drill_stays_and_the_drill_says_so(
    nc, js, board, settings, verb
) -> None:
    async with kill_switch(settings, POLICY):
        order = await ordered(nc, js, settings, shape=replace(SHAPE, hold=1.0), limits=IMPATIENT)
        task = asyncio.create_task(Drill(nc, js, order, lambda _: None).perform())
        await until_halted(board)
        await getattr(board, verb)("desk", reason="for real", by="bob")
        result = await task
    word = "halted" if verb == "halt_agent" else "resumed"
    assert await state(board) == ("halted" if verb == "halt_agent" else "running", "bob")
    assert not result.passed
    assert result.failures == [
        f"inconclusive: it was overtaken: agent.desk was {word} by bob (for real) meanwhile, which was left as it is"
    ]


async def test_a_halt_of_the_fleet_during_a_drill_makes_it_inconclusive(nc, js, board, settings) -> None:
    async with kill_switch(settings, POLICY):
        order = await ordered(nc, js, settings, shape=replace(SHAPE, hold=1.0), limits=IMPATIENT)
        task = asyncio.create_task(Drill(nc, js, order, lambda _: None).perform())
        await until_halted(board)
        await board.halt_fleet(reason="for real", by="bob")
        result = await task
    assert result.failures == ["inconclusive: it was overtaken: the fleet was halted meanwhile by bob"]
    assert (await board.read("fleet")).record().state == "halted"
    assert await state(board) == ("running", f"drill/{order.drill_id} ann")


async def test_a_drill_that_is_cancelled_restores_and_reports_before_it_ends(nc, js, board, settings) -> None:
    async with kill_switch(settings, POLICY):
        one = Drill(nc, js, await ordered(nc, js, settings, shape=replace(SHAPE, hold=30.0)), lambda _: None)
        task = asyncio.create_task(one.perform())
        await until_halted(board)
        await end([task], again=0.5)
        assert task.cancelled()
        assert (await state(board))[0] == "running"
        (result,) = await drilled(js)
    assert (result, result.restored) == (one.result, True)
    assert result.failures == ["inconclusive: it was interrupted; its tickets were not counted"]


async def test_a_drill_restores_once_a_server_that_went_away_is_back(nats_server, nc, js, board, settings) -> None:
    async with kill_switch(settings, POLICY):
        one = Drill(nc, js, await ordered(nc, js, settings, shape=replace(SHAPE, hold=2.0)), lambda _: None)
        task = asyncio.create_task(one.perform())
        await until_halted(board)
        nats_server.kill()
        await asyncio.wait([task], timeout=3)  # which passes: it cannot end while its halt stands
        assert not task.done()
        await nats_server.restart()
        result = await task
        assert (await drilled(js))[-1] == result
    assert (result.passed, result.restored) == (False, True)
    assert result.failures[0].startswith("inconclusive: it could not go on")
    assert (await state(board))[0] == "running"


# Refusals


async def refusal(nc: Client, js: JetStreamContext, **more: Any) -> str:
    with pytest.raises(NotReady) as error:
        await drill_check.check(nc, js, "desk", **({"without_instances": True} | more))
    return str(error.value)


async def test_an_agent_without_a_card_is_not_drilled(nc, js) -> None:
    assert "desk has no scope card" in await refusal(nc, js)


@pytest.mark.parametrize("verb", ["halt_agent", "halt_fleet"])
async def test_what_is_halted_already_is_not_drilled(nc, js, board, verb) -> None:
    scope = ["desk"] if verb == "halt_agent" else []
    await getattr(board, verb)(*scope, reason="wrong refunds", by="bob")
    assert "is halted already by bob (wrong refunds)" in await refusal(nc, js)


async def test_an_agent_of_which_no_instance_is_armed_is_not_drilled_unless_asked_for(nc, js, board, settings) -> None:
    async with kill_switch(settings, POLICY):
        assert "no instance of desk is armed" in await refusal(nc, js, without_instances=False)
        await Pod(js, "pod-1", applied={"fleet": 1}).say()
        assert "(pod-1: has not yet obeyed the last change of the switch)" in await refusal(
            nc, js, without_instances=False
        )
        assert (await drill_check.check(nc, js, "desk", without_instances=True)).armed == []


async def test_nothing_is_drilled_while_nobody_would_lift_the_halt(nc, js, board) -> None:
    assert "kill-switch does not run" in await refusal(nc, js)


@pytest.mark.parametrize(
    ("route", "words"),
    [
        (control.encode(Route(stage="shadow")), "at stage shadow"),
        (control.encode(Route(stage="canary", traffic=0.0)), "at stage canary"),
        (b"{", "cannot be read"),
    ],
)
async def test_an_agent_that_acts_on_nothing_is_not_drilled(nc, js, board, route, words) -> None:
    await js.publish(subjects.key_subject(subjects.ROUTES, "desk"), route)
    assert words in await refusal(nc, js)


async def test_one_agent_is_drilled_at_a_time(nc, js, board) -> None:
    await put(js, "agent.other", b'{"state":"halted","drill":true,"by":"drill/d bob"}')
    assert "other is being drilled just now" in await refusal(nc, js)


async def test_a_drill_calls_a_tool_that_reads_and_is_not_halted(nc, js, board, settings) -> None:
    async with kill_switch(settings, POLICY):
        assert (await drill_check.check(nc, js, "desk", without_instances=True)).tool == "look_up"
        await board.halt_tool("desk", "look_up", reason="r", by="bob")
        assert (await drill_check.check(nc, js, "desk", without_instances=True)).tool == "midwatch_drill"
