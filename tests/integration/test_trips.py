"""It trips by itself where the card says so, stays so until a person resumes it, and then counts anew."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from nats.js import JetStreamContext

from helpers import all_read, eventually
from kill_switch_helpers import WHY, Crash, kill_switch, publish, said, writes_read
from midwatch.contracts import codec, control, subjects
from midwatch.contracts.control import Card, SwitchRecord, SwitchRule, TripRule
from midwatch.contracts.governance import AlertRaised
from midwatch.runtime import faults, topology
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.outbox import Outbox, Outgoing
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Scope, Switchboard
from midwatch_services.kill_switch.policy import POLICY
from midwatch_services.kill_switch.store import PREFIX
from midwatch_services.kill_switch.trips import trip_store, tripping
from midwatch_services.kill_switch.trips.trip_store import Outcome


@pytest.fixture(autouse=True)
def _no_crash_left() -> Iterator[None]:
    yield
    faults.set_hook(None)


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tripping, "LOOK", 0.1)


@pytest.fixture
async def board(js: JetStreamContext) -> Switchboard:
    """The switch, with desk running."""
    board = Switchboard(js)
    await board.resume(Scope("desk"), **WHY)
    return board


async def apply(js: JetStreamContext, **trips: Any) -> None:
    card = Card(agent="desk", owner="o", purpose="p", can=["c"], switch=SwitchRule(trips=TripRule(**trips)))
    await js.publish(subjects.key_subject(subjects.AGENTS, "desk"), control.encode(card))


async def fail(js: JetStreamContext, failed: int, fine: int, prefix: str = "r") -> None:
    for n in range(failed + fine):
        await publish(js, "finished", f"{prefix}{n}", resolution="failed" if n < failed else "resolved")


async def page(
    js: JetStreamContext, rule: str = "budget_run", agent: str = "desk", id: str = "a1", severity: Any = "page",
    title: str = "too dear", at: datetime | None = None,
) -> None:  # fmt: skip
    data = AlertRaised(alert_id=id, rule=rule, severity=severity, title=title, agent=agent, dedupe_key=id)
    envelope = codec.envelope("alert", "raised", data, source="/services/cost-watchdog", id=id, time=at)
    await js.publish(subjects.alert(agent, "raised"), codec.encode(envelope))


async def stands(board: Switchboard, key: str = "agent.desk") -> SwitchRecord:
    record = (await board.read(key)).record()
    assert record is not None
    return record


async def halted(board: Switchboard, key: str = "agent.desk") -> SwitchRecord:
    async def look() -> SwitchRecord:
        record = await stands(board, key)
        assert record.state == "halted"
        return record

    return await eventually(look)  # type: ignore[no-any-return]


async def tripped(js: JetStreamContext, *events: str) -> list[Any]:
    """Data of the trips' alerts, once they are exactly `events`."""
    rules: dict[str, str] = {}

    async def look() -> list[Any]:
        found = []
        for event, data in await said(js, "alert"):
            rules.setdefault(data.alert_id, getattr(data, "rule", ""))
            if rules[data.alert_id] == "tripped":
                found.append((event, data))
        assert [event for event, _ in found] == list(events)
        return [[data for _, data in found]]

    (found,) = await eventually(look)
    return found  # type: ignore[no-any-return]


async def judged(js: JetStreamContext) -> None:
    """Waits until kill-switch has taken everything that was said so far, and has looked at the figures since."""
    await eventually(lambda: taken(js))
    looks: list[str] = []
    faults.set_hook(lambda point: looks.append(point) if point == "kill_switch.trips_judged" else None)
    await eventually(lambda: len(looks) > 1)


async def taken(js: JetStreamContext) -> bool:
    return (
        await all_read(js, subjects.GOVERNANCE, subjects.KILL_SWITCH_GOVERNANCE)
        and await all_read(js, subjects.RUNS, subjects.KILL_SWITCH)
        and await writes_read(js)
    )


async def test_a_share_of_failed_runs_halts_the_agent_and_pages(
    js: JetStreamContext, settings: Settings, board: Switchboard
) -> None:
    await apply(js, mode="act")
    async with kill_switch(settings):
        await fail(js, failed=6, fine=4)
        record = await halted(board)
        assert (record.by, record.expires_at) == ("kill-switch/failed_runs", None)
        assert record.reason == "6 of 10 runs that finished within an hour failed (60 %); its card's limit is 50 %"
        (alert,) = await tripped(js, "raised")
    assert (alert.severity, alert.agent, alert.action_taken) == ("page", "desk", "halted_agent")
    assert alert.title == f"desk is halted until a person resumes it: {record.reason}"


async def test_runs_halted_one_by_one_halt_the_agent_but_not_those_that_kill_switch_halted(
    js: JetStreamContext, settings: Settings, board: Switchboard
) -> None:
    await apply(js, mode="act")
    async with kill_switch(settings):
        for n in range(5):
            await board.halt_run("desk", f"r{n}", reason="swept up", by="kill-switch")
        for n in range(2):
            await board.halt_run("desk", f"s{n}", reason="loop", by="cost-watchdog/loop_no_new_state")
        await eventually(lambda: writes_read(js))
        await board.halt_run("desk", "s2", reason="loop", by="cost-watchdog/loop_no_new_state")
        record = await halted(board)
    assert record.by == "kill-switch/halted_runs"
    assert record.reason == "3 runs were halted one by one within an hour; its card's limit is 3"


async def test_a_page_of_a_named_rule_halts_the_agent(
    js: JetStreamContext, settings: Settings, board: Switchboard
) -> None:
    await apply(js, mode="act", alerts=["budget_run"])
    async with kill_switch(settings):
        await page(js, "loop_no_new_state", id="a0")
        await page(js, "budget_run", id="a1")
        record = await halted(board)
    assert (record.by, record.reason) == ("kill-switch/alerts", "the alert budget_run was raised: too dear")


async def test_observe_says_once_what_it_would_have_done_and_halts_nothing(
    js: JetStreamContext, settings: Settings, board: Switchboard
) -> None:
    await apply(js, alerts=["budget_run"])
    async with kill_switch(settings):
        await page(js, id="a1")
        await page(js, id="a2")
        (first,) = await tripped(js, "raised")
        await fail(js, failed=10, fine=0)
        _, second = await tripped(js, "raised", "raised")
        await fail(js, failed=10, fine=0, prefix="s")
    async with kill_switch(settings):
        await judged(js)
        await tripped(js, "raised", "raised")
    assert (first.severity, first.action_taken) == ("ticket", "would_halt_agent")
    assert first.title == "desk would have been halted: the alert budget_run was raised: too dear"
    assert second.title.startswith("desk would have been halted: 10 of 10 runs")
    assert (await stands(board)).state == "running"


async def test_it_stays_halted_until_a_person_resumes_it_and_then_counts_anew(
    js: JetStreamContext, settings: Settings, board: Switchboard
) -> None:
    await apply(js, mode="act")
    async with kill_switch(settings):
        await fail(js, failed=10, fine=0)
        await halted(board)
        await fail(js, failed=5, fine=0, prefix="s")
        await tripped(js, "raised")
        await eventually(lambda: writes_read(js))
        await board.resume(Scope("desk"), **WHY)
        _, end = await tripped(js, "raised", "resolved")
        assert end.reason == "it was resumed"
    async with kill_switch(settings):  # nor does a restart bring the old figures back
        await fail(js, failed=9, fine=0, prefix="t")
        await judged(js)
        assert (await stands(board)).state == "running"
        await fail(js, failed=1, fine=0, prefix="u")
        assert (await halted(board)).reason.startswith("10 of 10 runs")


async def test_an_alert_from_before_the_resume_does_not_halt_again(
    js: JetStreamContext, settings: Settings, board: Switchboard
) -> None:
    await apply(js, mode="act", alerts=["budget_run"])
    await page(js)
    await board.halt(Scope("desk"), **WHY)
    async with kill_switch(settings):
        await eventually(lambda: writes_read(js))
    await board.resume(Scope("desk"), **WHY)
    await js.delete_consumer(subjects.GOVERNANCE, subjects.KILL_SWITCH_GOVERNANCE)
    await topology.apply(js, settings)  # everything is delivered again
    async with kill_switch(settings):
        await judged(js)
        await tripped(js)
    assert (await stands(board)).state == "running"


async def test_an_alert_that_is_published_again_after_the_resume_does_not_halt_again(
    js: JetStreamContext, settings: Settings, board: Switchboard
) -> None:
    raised_at = datetime.now(UTC) - timedelta(minutes=5)
    await apply(js, mode="act", alerts=["budget_run"])
    await board.halt(Scope("desk"), **WHY)
    await board.resume(Scope("desk"), **WHY)
    async with kill_switch(settings):
        await page(js, at=raised_at)  # as `midwatch dead retry` does
        await judged(js)
        await tripped(js)
    assert (await stands(board)).state == "running"


async def test_an_agent_that_is_halted_already_is_left_as_it_is(
    js: JetStreamContext, settings: Settings, board: Switchboard
) -> None:
    await apply(js, mode="act", alerts=["budget_run"])
    await board.halt(Scope("desk"), **WHY)
    async with kill_switch(settings):
        await eventually(lambda: writes_read(js))
        await page(js)
        await fail(js, failed=10, fine=0)
        await judged(js)
        await tripped(js)
    assert (await stands(board)).by == "ann"


async def test_a_run_counts_once_however_often_and_late_it_finishes(
    js: JetStreamContext, settings: Settings, board: Switchboard
) -> None:
    await apply(js, mode="act")
    async with kill_switch(settings):
        for _ in range(3):
            await fail(js, failed=9, fine=0)
        await publish(js, "finished", "drilled", mode="drill", resolution="failed")
        await judged(js)
    async with kill_switch(settings):
        await fail(js, failed=9, fine=0)
        await judged(js)
        assert (await stands(board)).state == "running"
        await publish(js, "finished", "tenth")
        assert (await halted(board)).reason.startswith("9 of 10 runs")


@pytest.mark.parametrize("point", ["kill_switch.trip_saved", "kill_switch.tripped", "outbox.read", "outbox.published"])
async def test_a_crash_neither_forgets_nor_repeats_the_halt(
    js: JetStreamContext, settings: Settings, board: Switchboard, point: str
) -> None:
    await apply(js, mode="act", alerts=["budget_run"])

    def crash(reached: str) -> None:
        if reached == point:
            raise Crash

    async with kill_switch(settings) as task:
        await judged(js)
        faults.set_hook(crash)
        await page(js)
        with pytest.raises(Crash):
            await asyncio.wait_for(asyncio.shield(task), 20)
    faults.set_hook(None)
    async with kill_switch(settings):
        await halted(board)
        await tripped(js, "raised")
    entry = await board.read("agent.desk")
    writes = [entry.key for entry in await board.writes(0)].count("agent.desk")
    assert writes == 2  # desk was set running, and halted once
    assert entry.revision == max(entry.revision for entry in await board.entries())


async def test_a_person_who_resumes_before_the_halt_was_written_has_the_last_word(
    js: JetStreamContext, settings: Settings, board: Switchboard
) -> None:
    await apply(js, mode="act", alerts=["budget_run"])

    def crash(reached: str) -> None:
        if reached == "kill_switch.trip_saved":
            raise Crash

    async with kill_switch(settings) as task:
        faults.set_hook(crash)
        await page(js)
        with pytest.raises(Crash):
            await asyncio.wait_for(asyncio.shield(task), 20)
    faults.set_hook(None)
    await board.halt(Scope("desk"), **WHY)
    await board.resume(Scope("desk"), **WHY)
    async with kill_switch(settings):
        await tripped(js, "raised", "resolved")
    assert (await stands(board)).state == "running"


async def test_a_trip_makes_a_drills_halt_lasting(js: JetStreamContext, settings: Settings, board: Switchboard) -> None:
    await apply(js, mode="act", alerts=["budget_run"])
    drill = SwitchRecord(state="halted", reason="drill", by="kill-switch/drill", drill=True)
    await js.publish(subjects.key_subject(subjects.SWITCH, "agent.desk"), control.encode(drill))
    async with kill_switch(settings):
        await eventually(lambda: writes_read(js))
        await page(js)

        async def lasting() -> bool:
            return not (await stands(board)).drill

        await eventually(lasting)
        assert (await stands(board)).by == "kill-switch/alerts"


async def test_the_end_of_a_drill_is_no_resume_that_a_trip_gives_way_to(board: Switchboard) -> None:
    met_at = datetime.now(UTC)
    written = await board.halt(Scope("desk"), reason="a drill", by="drill/drill-20261122-a1b2c3 ann", drill=True)
    await board.restore(Scope("desk"), written, by="drill/drill-20261122-a1b2c3 ann", reason="the drill is over")
    order = tripping.Order("desk", "too dear", "kill-switch/alerts", met_at)
    await tripping.obey(board, Outgoing("1", subjects.SWITCH, msgspec.json.encode(order), tripping.HALT))
    assert (await stands(board)).by == "kill-switch/alerts"


async def test_what_is_an_hour_old_is_neither_said_again_nor_comes_and_goes(
    js: JetStreamContext, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/trips.db"
    migrate(url, subjects.KILL_SWITCH)
    database = Database(url, name=subjects.KILL_SWITCH)
    now = datetime(2026, 11, 22, 12, 0, 50, tzinfo=UTC)
    some = [Outcome("desk", f"r{n}", now, failed=True) for n in range(10)]
    await database.write(lambda conn: trip_store.add_outcomes(conn, some))
    now += timedelta(seconds=1)
    trips = tripping.Tripping(
        database, Outbox(database, PREFIX, js), SimpleNamespace(halts={}),  # type: ignore[arg-type]
        SimpleNamespace(get=lambda agent: Card(agent=agent, owner="o", purpose="p", can=[])),  # type: ignore[arg-type]
        lambda: now, POLICY, "observe",
    )  # fmt: skip
    await trips.load()
    await trips.look()
    await tripped(js, "raised")
    now += timedelta(hours=1, seconds=1)
    for _ in range(3):
        await trips.look()
    await tripped(js, "raised", "resolved")
    database.close()


async def test_the_page_of_a_trip_and_its_halt_are_one_line_whatever_the_cause_says(
    js: JetStreamContext, settings: Settings, board: Switchboard
) -> None:
    await apply(js, mode="act", alerts=["budget_run"])
    async with kill_switch(settings):
        await page(js, title="too dear\n\x1b[2J" + "x" * 5000)
        record = await halted(board)
        (alert,) = await tripped(js, "raised")
    assert record.reason.startswith("the alert budget_run was raised: too dear??[2Jxx")
    assert (len(record.reason), len(alert.title)) == (300, 500)


@pytest.mark.parametrize("mode", ["observe", "act"])
async def test_the_fleets_day_budget_halts_the_fleet_only_where_the_setting_says_so(
    js: JetStreamContext, settings: Settings, board: Switchboard, mode: Any
) -> None:
    async with kill_switch(settings.model_copy(update={"fleet_trip": mode})):
        await page(js, "budget_fleet_day", subjects.FLEET)
        (alert,) = await tripped(js, "raised")
        assert alert.agent == subjects.FLEET
        if mode == "observe":
            assert (alert.severity, alert.title) == ("ticket", "the fleet would have been halted: too dear")
            assert (await stands(board, "fleet")).state == "running"
        else:
            record = await halted(board, "fleet")
            assert (record.by, record.reason) == ("kill-switch/fleet_budget", "too dear")
