"""Who ended before kill-switch began, or just before it ends: whom a restart pages."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from nats.js import JetStreamContext

from kill_switch_helpers import QUICK, Pod, alerts, kill_switch, running_keys
from midwatch.contracts import control, subjects
from midwatch.contracts.control import Card, SwitchRule
from midwatch.runtime.broker import round_trip
from midwatch.runtime.database import Database
from midwatch.runtime.settings import Settings
from midwatch_services.kill_switch import app, armed, store

PROMPT = replace(QUICK, not_armed_after=timedelta(seconds=0.4))


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "TICK", 0.1)


@pytest.fixture
def a_second_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(armed, "FRESH", 1.0)


@pytest.mark.parametrize(
    ("running", "lost_control", "pages"), [((), "fall_back", 0), (("r1",), "fall_back", 1), ((), "carry_on", 1)]
)
async def test_who_ended_before_kill_switch_began_is_paged_only_where_it_was_or_may_be_at_work(
    js: JetStreamContext,
    settings: Settings,
    running: tuple[str, ...],
    lost_control: str,
    pages: int,
    a_second_is_long: None,
) -> None:
    rule = SwitchRule(lost_control=lost_control)  # type: ignore[arg-type]
    card = Card(agent="desk", owner="o", purpose="p", can=["c"], switch=rule)
    await js.publish(subjects.key_subject(subjects.AGENTS, "desk"), control.encode(card))
    applied = await running_keys(js)
    patient = replace(PROMPT, not_armed_after=timedelta(minutes=1))
    async with kill_switch(settings, patient):
        await Pod(js, applied=applied, lease=0.1).say(runs_in_flight=list(running))
        await asyncio.sleep(0.2)  # it is heard; the lease is over
    keys = {"fleet": applied["fleet"], "agent.mail": 0, "tools.mail": 0, "runs.mail": 0}
    async with kill_switch(settings, PROMPT):
        await Pod(js, agent="mail", applied=keys).say()  # it falls silent later, and so is paged later
        found = await alerts(js, *["raised"] * (pages + 1))
    assert sorted(alert.agent for alert in found) == ["desk", "mail"][1 - pages :]


async def test_who_signs_off_just_before_the_service_ends_has_signed_off(
    js: JetStreamContext, settings: Settings
) -> None:
    pod = Pod(js, applied=await running_keys(js))
    async with kill_switch(settings, PROMPT):
        await pod.say()
        await pod.say(leaving=True)
        await round_trip(js._nc, 1.0)
    kept = Database(settings.database_for(subjects.KILL_SWITCH))
    assert [one.left for one in await kept.read(store.instances)] == [True]
    kept.close()
