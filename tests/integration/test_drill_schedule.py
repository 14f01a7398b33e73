"""Drills that begin by themselves, each once for one due date, and the alert of those that do not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace as replaced
from nats.js import JetStreamContext

import midwatch
from drill_helpers import LONG_AGO, apply_card, drilled, state
from helpers import all_read, eventually
from kill_switch_helpers import Crash, kill_switch, put, said
from midwatch.contracts import subjects
from midwatch.contracts.governance import SwitchDrilled
from midwatch.runtime import faults
from midwatch.runtime.database import Database
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Switchboard
from midwatch_services.kill_switch.drills import drill, drill_store
from midwatch_services.kill_switch.drills.drill_plan import RULE, SHAPE
from midwatch_services.kill_switch.drills.drill_store import Drill
from midwatch_services.kill_switch.policy import POLICY

ALL_DAY = {"drill": "weekly", "drill_hours": "00:00-00:00"}
SOON = replace(
    POLICY, drill=replace(SHAPE, before=0.3, hold=0.3, after=0.1), drill_look=timedelta(seconds=0.1)
)  # fmt: skip


@pytest.fixture
async def board(js: JetStreamContext) -> Switchboard:
    await put(js, "agent.desk", b'{"state":"running"}')
    return Switchboard(js)


@asynccontextmanager
async def instance(settings: Settings, home: Path) -> AsyncIterator[None]:
    async with midwatch.connect(settings.url, home=home, instance="pod-1") as mw:
        mw.agent("desk", version="1")
        yield


@asynccontextmanager
async def tables(settings: Settings) -> AsyncIterator[Database]:
    database = Database(settings.database_for(subjects.KILL_SWITCH))
    try:
        yield database
    finally:
        database.close()


async def alerts(js: JetStreamContext) -> list[tuple[str, Any]]:
    return [(event, data) for event, data in await said(js, "alert") if getattr(data, "rule", RULE) == RULE]


@pytest.fixture
def crash_at() -> Any:
    """Makes the service crash at a point, once."""

    def set_up(point: str) -> None:
        def hook(reached: str) -> None:
            if reached == point:
                faults.set_hook(None)
                raise Crash(point)

        faults.set_hook(hook)

    yield set_up
    faults.set_hook(None)


async def test_a_drill_that_is_due_runs_by_itself_and_once(js, board, settings, tmp_path) -> None:
    await apply_card(js, applied_at=LONG_AGO, **ALL_DAY)
    async with instance(settings, tmp_path / "pod"):
        async with kill_switch(settings, SOON):
            (result,) = await eventually(lambda: drilled(js), within=20)

            async def stored() -> bool:
                async with tables(settings) as database:
                    known = await database.read(lambda conn: drill_store.find(conn, result.drill_id))
                return known is not None and known.result == result

            await eventually(stored)
        async with kill_switch(settings, SOON):  # which runs through its schedule, and waits for presence, again
            await js.publish(*message_of(result, "again"))
            await eventually(lambda: everything_heard(js))
    assert result.passed, result.failures
    assert (result.scheduled, result.by, result.signed_off_by) == (True, "kill-switch (scheduled)", "")
    assert await state(board) == ("running", f"drill/{result.drill_id} kill-switch (scheduled)")
    assert {one.drill_id for one in await drilled(js)} == {result.drill_id}


def message_of(result: SwitchDrilled, kind: str) -> tuple[str, bytes]:
    said = drill.message(result, kind)
    return said.subject, said.body


async def everything_heard(js: JetStreamContext) -> bool:
    return await all_read(js, subjects.GOVERNANCE, subjects.KILL_SWITCH_GOVERNANCE)


async def test_a_drill_whose_kill_switch_died_after_the_claim_is_not_run_again(
    js, board, settings, tmp_path, crash_at
) -> None:
    await apply_card(js, applied_at=LONG_AGO, **ALL_DAY)
    crash_at("kill_switch.drill_claimed")
    async with instance(settings, tmp_path / "pod"), kill_switch(settings, SOON) as task:
        with pytest.raises(Crash):
            await asyncio.wait_for(task, 20)
    again = Drill("drill-2", "desk", "k", True, datetime.now(UTC))
    async with tables(settings) as database:
        (claimed,) = await database.read(drill_store.running)
        assert not await database.write(lambda conn: drill_store.claim(conn, again, None))
    assert (claimed.agent, claimed.scheduled) == ("desk", True)
    assert await drilled(js) == []
    assert (await state(board))[0] == "running"


async def test_a_claim_that_never_halted_anything_is_kept_as_a_drill_that_failed(js, board, settings) -> None:
    begun = datetime.now(UTC) - timedelta(minutes=5)
    async with kill_switch(settings, SOON), tables(settings) as database:
        await database.write(lambda conn: drill_store.add(conn, Drill("drill-1", "desk", "k", True, begun)))
        (result,) = await eventually(lambda: drilled(js), within=20)
    assert (result.drill_id, result.passed, result.scheduled) == ("drill-1", False, True)
    assert result.failures == ["did not report; it has halted nothing"]


async def test_a_drill_that_is_overdue_raises_a_ticket_until_one_passes(js, board, settings) -> None:
    await apply_card(js, applied_at=LONG_AGO, drill="monthly")
    failed = SwitchDrilled(drill_id="drill-1", agent="desk", by="ann", started_at=LONG_AGO, passed=False)
    passed = replaced(failed, drill_id="drill-2", started_at=datetime.now(UTC), passed=True)
    async with kill_switch(settings, SOON):
        ((event, alert),) = await eventually(lambda: alerts(js))
        await drill.publish(js, failed, "result")
        await eventually(lambda: everything_heard(js))
        assert len(await alerts(js)) == 1
        await drill.publish(js, passed, "result")
        _, resolved = await eventually(lambda: two(js))
    assert (event, alert.rule, alert.severity, alert.agent) == ("raised", "drill_overdue", "ticket", "desk")
    assert alert.title == "the monthly drill of desk is 70 days overdue; none was ever run"
    assert resolved[0] == "resolved"
    assert resolved[1].reason == "a drill has passed"


async def two(js: JetStreamContext) -> list[tuple[str, Any]]:
    found = await alerts(js)
    return found if len(found) == 2 else []


async def test_where_drills_are_off_none_begins_and_the_overdue_one_is_still_told(
    js, board, settings, tmp_path
) -> None:
    await apply_card(js, applied_at=LONG_AGO, **ALL_DAY)
    off = settings.model_copy(update={"drills": False})
    async with instance(settings, tmp_path / "pod"), kill_switch(off, SOON):
        await eventually(lambda: alerts(js))
        async with tables(settings) as database:
            assert await database.read(drill_store.running) == []
    assert await drilled(js) == []


async def test_a_card_that_asks_for_no_drill_any_more_takes_its_alert_back(js, board, settings) -> None:
    await apply_card(js, applied_at=LONG_AGO)
    async with kill_switch(settings, SOON):
        await eventually(lambda: alerts(js))
    await apply_card(js, applied_at=LONG_AGO, drill="never")
    async with kill_switch(settings, SOON):
        _, (event, data) = await eventually(lambda: two(js))
    assert (event, data.reason) == ("resolved", "its card asks for no drill")


async def test_a_card_that_asks_for_fewer_drills_takes_back_the_alert_of_one_that_is_not_due_any_more(
    js, board, settings
) -> None:
    applied_at = datetime.now(UTC) - timedelta(days=20)
    await apply_card(js, applied_at=applied_at, drill="weekly")
    async with kill_switch(settings, SOON):
        await eventually(lambda: alerts(js))
    await apply_card(js, applied_at=applied_at, drill="monthly")
    async with kill_switch(settings, SOON):
        _, (event, data) = await eventually(lambda: two(js))
    assert (event, data.reason) == ("resolved", "it is not due any more")


async def test_the_sign_off_of_an_old_drill_is_no_drill(js, board, settings) -> None:
    await apply_card(js, applied_at=LONG_AGO, drill="monthly")
    old = SwitchDrilled(
        drill_id="drill-1", agent="desk", by="k", started_at=LONG_AGO, passed=True, signed_off_by="ann"
    )  # fmt: skip
    async with kill_switch(settings, SOON):
        await eventually(lambda: alerts(js))
        await drill.publish(js, old, "signed")
        await eventually(lambda: everything_heard(js))
        assert [event for event, _ in await alerts(js)] == ["raised"]


async def test_a_card_that_is_applied_again_and_again_puts_its_first_drill_off_no_further(js, board, settings) -> None:
    await apply_card(js, applied_at=LONG_AGO, drill="never")
    async with kill_switch(settings, SOON):
        pass
    await apply_card(js, applied_at=datetime.now(UTC))
    async with kill_switch(settings, SOON):
        ((event, _),) = await eventually(lambda: alerts(js))
    assert event == "raised"
