"""The router's process dies between every two steps, and the server goes away: no case is lost, none is doubled."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from nats.js import JetStreamContext

from helpers import all_read, eventually
from kill_switch_helpers import Crash, Pod, kill_switch
from midwatch.contracts import subjects
from midwatch.runtime import faults
from midwatch.runtime.database import Database
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.settings import Settings
from midwatch_services.kill_switch.cases import case_store
from router_helpers import HASTY, Cases, arm, begin, claim, create, stop

OFFER = subjects.offer_key("helper", "desk", "r1")


@pytest.fixture
def cases(js: JetStreamContext, settings: Settings) -> Iterator[Cases]:
    database = Database(settings.database_for("kill-switch"))
    yield Cases(js, database)
    database.close()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def both(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """Settings on either database."""
    if request.param == "sqlite":
        return settings
    return settings.model_copy(update={"database_url": request.getfixturevalue("postgres_url")})


def die_once_at(point: str) -> None:
    def die(reached: str) -> None:
        if reached == point:
            faults.set_hook(None)
            raise Crash(point)

    faults.set_hook(die)


async def crashed(running: "asyncio.Task[None]") -> None:
    """Waits for the service to die."""
    with pytest.raises(Crash):
        await asyncio.wait_for(asyncio.shield(running), 20)


@pytest.fixture(autouse=True)
def _no_hook() -> Iterator[None]:
    yield
    faults.set_hook(None)


POINTS = ["kill_switch.case_claimed", "kill_switch.case_saved", "outbox.read", "outbox.published", "delivery.handled"]


@pytest.mark.parametrize("point", POINTS)
async def test_a_crash_while_a_case_is_opened_loses_and_doubles_nothing(
    js: JetStreamContext, both: Settings, point: str
) -> None:
    database = Database(both.database_for("kill-switch"))
    cases = Cases(js, database)
    async with kill_switch(both, HASTY) as running:
        await begin(js)
        await begin(js, "r2")
        await eventually(lambda: all_read(js, subjects.RUNS, subjects.KILL_SWITCH))
        die_once_at(point)
        await stop(js)
        await stop(js, "r2")
        await crashed(running)
    async with kill_switch(both, HASTY):
        await cases.until("open")
        await cases.until("open", run_id="r2")
        await eventually(lambda: all_read(js, subjects.RUNS, subjects.KILL_SWITCH))
        first, second = await cases.said("opened", "opened")
        assert {first.run_id, second.run_id} == {"r1", "r2"}
        assert [event["event"] for event in first.events][:3] == ["started", "tool_called", "handed_off"]
    database.close()


@pytest.mark.parametrize("point", ["kill_switch.case_claimed", "kill_switch.case_saved"])
async def test_a_crash_while_the_cases_of_a_vanished_instance_are_opened_loses_none(
    js: JetStreamContext, settings: Settings, cases: Cases, point: str
) -> None:
    pod = Pod(js, lease=0.5)
    async with kill_switch(settings, HASTY) as running:
        await begin(js)
        die_once_at(point)
        await pod.say(runs_in_flight=["r1"])
        await crashed(running)
    await pod.say(leaving=True)  # nothing but the claim tells of the run any more
    async with kill_switch(settings, HASTY):
        await cases.until("open")
        (opened,) = await cases.said("opened")
        assert opened.events[0]["event"] == "started"


async def test_a_crash_after_an_offer_was_taken_back_leaves_it_to_people(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    async with kill_switch(settings, HASTY) as running:
        await arm(js, "helper")
        await begin(js)
        die_once_at("kill_switch.offer_withdrawn")
        await stop(js, to="agent:helper")
        await crashed(running)
    async with kill_switch(settings, HASTY):
        await cases.until("open")
        await cases.said("offered", "opened")


async def test_an_offer_that_was_accepted_while_nobody_watched_is_the_agents(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    async with kill_switch(settings, HASTY):
        await arm(js, "helper")
        await begin(js)
        await stop(js, to="agent:helper")
        await cases.until("offered")
    await create(js, OFFER, by="helper-1", to="agent:helper")
    await asyncio.sleep(0.6)  # the offer's time is over
    async with kill_switch(settings, HASTY):
        await cases.until("taken")
        await cases.said("offered")


async def test_a_claim_of_a_router_that_died_is_opened_by_the_next_one(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    await begin(js)
    await claim(js, by="kill-switch", to="human")
    async with kill_switch(settings, HASTY):
        case = await cases.until("open")
        (opened,) = await cases.said("opened")
    assert (case["opened_by"], len(opened.events)) == ("kill-switch", 2)


async def test_what_was_heard_since_the_last_save_is_read_again(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    async with kill_switch(settings, HASTY) as running:
        await begin(js, "r0")
        await eventually(lambda: saved(cases, 2), within=20)
        await begin(js)
        await eventually(lambda: all_read(js, subjects.RUNS, subjects.KILL_SWITCH))
        die_once_at("kill_switch.case_saved")
        await stop(js, "r0")
        await crashed(running)
    async with kill_switch(settings, replace(HASTY, lookback=timedelta(0))):
        await stop(js)
        await cases.until("open")
        *_, opened = await cases.said("opened", "opened")
    assert [event["event"] for event in opened.events][:2] == ["started", "tool_called"]


async def test_what_is_read_again_has_the_time_at_which_it_was_stored(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    async with kill_switch(settings, HASTY) as running:
        await begin(js, "r0")
        await eventually(lambda: saved(cases, 2), within=20)
        await begin(js)
        began = (await js.get_last_msg(subjects.RUNS, subjects.run("desk", "started"))).time
        await eventually(lambda: all_read(js, subjects.RUNS, subjects.KILL_SWITCH))
        die_once_at("kill_switch.case_saved")
        await stop(js, "r0")
        await crashed(running)
    async with kill_switch(settings, HASTY):
        await eventually(lambda: saved(cases, 6), within=20)
        _, flights = await cases.database.read(case_store.flights)
    assert flights["desk", "r1"].at == began


async def saved(cases: Cases, seq: int) -> bool:
    at, _ = await cases.database.read(case_store.flights)
    return at >= seq


async def test_a_server_that_goes_away_while_cases_are_opened_gets_them_all_afterwards(
    js: JetStreamContext, settings: Settings, cases: Cases, nats_server: NatsServer
) -> None:
    runs = [f"r{number}" for number in range(20)]
    async with kill_switch(settings, HASTY):
        for run_id in runs:
            await begin(js, run_id)
        await asyncio.gather(*(stop(js, run_id) for run_id in runs))
        nats_server.kill()
        await nats_server.restart()
        for run_id in runs:
            await cases.until("open", run_id=run_id, within=20)
        assert len({case.run_id for case in await cases.said(*["opened"] * len(runs))}) == len(runs)
