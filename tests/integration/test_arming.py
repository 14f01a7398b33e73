"""Armed, continuously: an agent whose instances would not all obey raises one page, and its end resolves it."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from nats.js import JetStreamContext

from helpers import eventually
from kill_switch_helpers import QUICK, Crash, Pod, alerts, kill_switch, publish, put, running_keys, said, writes_read
from midwatch.contracts import control, subjects
from midwatch.contracts.control import Card, SwitchRule
from midwatch.runtime import faults, topology
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.outbox import Outbox
from midwatch.runtime.settings import Settings
from midwatch_services.kill_switch import app, armed, view
from midwatch_services.kill_switch.alarms import Alarms, open_alarms
from midwatch_services.kill_switch.policy import Policy
from midwatch_services.kill_switch.store import PREFIX

T0 = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
LATER = T0 + timedelta(minutes=1)


@pytest.fixture(autouse=True)
def _no_crash_left() -> Iterator[None]:
    yield
    faults.set_hook(None)


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "TICK", 0.1)


@pytest.fixture
def a_second_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(armed, "FRESH", 1.0)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite:///{tmp_path}/alarms.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url").replace("postgresql://", "postgresql+psycopg://")
    migrate(url, subjects.KILL_SWITCH)
    opened = Database(url, name=subjects.KILL_SWITCH)
    yield opened
    opened.close()


async def test_an_alert_is_raised_once_counted_while_it_is_open_and_resolved_once(
    js: JetStreamContext, database: Database
) -> None:
    outbox = Outbox(database, PREFIX, js)
    alarms = Alarms(outbox)
    what = {"dedupe_key": "k", "rule": "not_armed", "severity": "page", "title": "t", "agent": "desk"}
    answers = [
        await database.write(work)
        for work in (
            lambda conn: alarms.raise_(conn, **what, now=T0),
            lambda conn: alarms.raise_(conn, **what, now=LATER),
            lambda conn: alarms.resolve(conn, "k", reason="all is well", now=LATER),
            lambda conn: alarms.resolve(conn, "k", reason="all is well", now=LATER),
        )
    ]
    assert answers == [True, False, True, False]
    await outbox.drain()
    (raised, alert), (resolved, end) = await said(js, "alert")
    assert (raised, alert.rule, alert.severity, alert.title, alert.agent) == (
        "raised", "not_armed", "page", "t", "desk",
    )  # fmt: skip
    assert (resolved, end.alert_id, end.reason, end.repeats) == ("resolved", alert.alert_id, "all is well", 1)


async def test_what_others_wrote_makes_no_title_of_many_lines_or_without_end(
    js: JetStreamContext, database: Database
) -> None:
    outbox = Outbox(database, PREFIX, js)
    what = {"dedupe_key": "k", "rule": "r", "severity": "page", "title": "a\n\x1b[2Jb" + "c" * 9000, "agent": "desk"}
    await database.write(lambda conn: Alarms(outbox).raise_(conn, **what, now=T0))
    await outbox.drain()
    ((_, alert),) = await said(js, "alert")
    assert alert.title == "a??[2Jb" + "c" * 492 + "…"


async def test_an_alert_that_comes_again_after_its_end_is_another(js: JetStreamContext, database: Database) -> None:
    outbox = Outbox(database, PREFIX, js)
    alarms = Alarms(outbox)
    what = {"dedupe_key": "k", "rule": "not_armed", "severity": "page", "title": "t", "agent": subjects.FLEET}
    await database.write(lambda conn: alarms.raise_(conn, **what, now=T0))
    await database.write(lambda conn: alarms.resolve(conn, "k", reason="over", now=T0))
    await database.write(lambda conn: alarms.raise_(conn, **what, now=LATER))
    await outbox.drain()
    first, _, second = [data for _, data in await said(js, "alert")]
    assert first.alert_id != second.alert_id
    assert [alarm.alert_id for alarm in await database.read(lambda conn: open_alarms(conn, "not_armed"))] == [
        second.alert_id
    ]


BEHIND = "has not yet obeyed the last change of the switch"
PROMPT = replace(QUICK, not_armed_after=timedelta(seconds=0.4))


@asynccontextmanager
async def alive(*pods: Pod, **more: Any) -> AsyncIterator[None]:
    """The pods speak, as the SDK does, until the end of the block."""

    over = asyncio.Event()  # the client may swallow a cancellation

    async def speak() -> None:
        while not over.is_set():
            for pod in pods:
                await pod.say(**more)
            await asyncio.sleep(0.1)

    task = asyncio.create_task(speak())
    try:
        yield
    finally:
        over.set()
        await asyncio.wait([task])


async def test_an_instance_that_falls_silent_is_paged_within_five_seconds_and_resolved_when_it_speaks(
    js: JetStreamContext, settings: Settings
) -> None:
    applied = await running_keys(js)
    first, second = Pod(js, "pod-1", applied=applied), Pod(js, "pod-2", applied=applied)
    async with kill_switch(settings, Policy(armed_for=timedelta(0))), alive(first):
        await second.say()
        fell_silent = time.monotonic()
        (alert,) = await alerts(js, "raised", within=20)
        took = time.monotonic() - fell_silent
        assert (alert.rule, alert.severity, alert.agent) == ("not_armed", "page", "desk")
        assert alert.title == "1 of 2 instances of desk is not armed: pod-2 silent for 4 s"
        assert took < 5
        async with alive(second):
            await alerts(js, "raised", "resolved")
    print(f"silent instance: paged after {took:.1f} s")


async def test_a_key_that_is_not_applied_is_paged_and_a_write_under_way_is_not(
    js: JetStreamContext, settings: Settings
) -> None:
    pod = Pod(js, applied=await running_keys(js))
    async with kill_switch(settings, replace(QUICK, not_armed_after=timedelta(seconds=1))), alive(pod):
        halt = await put(js, "agent.desk", b'{"state":"halted","reason":"r","by":"ann"}')
        await eventually(lambda: writes_read(js))
        pod.applied["agent.desk"] = halt
        later = await put(js, "agent.desk", b'{"state":"running"}')
        (alert,) = await alerts(js, "raised")
        assert alert.title == (
            "1 of 1 instance of desk is not armed: pod-1 has not yet obeyed the last change of the switch"
        )
        assert f"has applied agent.desk at epoch {halt}, which stands at {later}" in alert.evidence
        pod.applied["agent.desk"] = later
        _, end = await alerts(js, "raised", "resolved")
        assert end.reason == "every instance is armed, has signed off, or is long gone with its runs seen to"


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ({"control_age": 4.2}, "has not been able to read the switch for 4 s"),
        ({"lost_control": True, "without_control": "carry_on"}, "has lost control and carries on"),
    ],
)
async def test_an_instance_that_says_it_cannot_be_reached_by_the_switch_is_paged(
    js: JetStreamContext, settings: Settings, says: dict[str, Any], why: str
) -> None:
    pod = Pod(js, applied=await running_keys(js))
    async with kill_switch(settings, PROMPT), alive(pod, **says):
        (alert,) = await alerts(js, "raised")
        assert alert.title == f"1 of 1 instance of desk is not armed: pod-1 {why}"


@pytest.mark.parametrize("goodbye", [{}, {"written_off_by": "ann"}])
async def test_an_instance_that_signs_off_or_is_written_off_ends_the_alert(
    js: JetStreamContext, settings: Settings, goodbye: dict[str, Any]
) -> None:
    pod = Pod(js)  # it has applied nothing
    async with kill_switch(settings, PROMPT):
        async with alive(pod):
            await alerts(js, "raised")
        await pod.say(leaving=True, **goodbye)
        await alerts(js, "raised", "resolved")


async def test_an_instance_that_comes_and_goes_is_one_page(js: JetStreamContext, settings: Settings) -> None:
    applied = await running_keys(js)
    pod, ghost = Pod(js, applied=applied), Pod(js, "ghost", agent="mail")
    async with kill_switch(settings, replace(PROMPT, armed_for=timedelta(minutes=1))):
        for _ in range(2):
            async with alive(pod, control_age=9.0):
                await alerts(js, "raised")
            async with alive(pod):
                await asyncio.sleep(0.5)  # some looks
        async with alive(ghost):
            await alerts(js, "raised", "raised")  # the judge is awake, and has paged the other agent alone


async def test_a_killed_instance_need_not_be_armed_once_its_runs_are_seen_to_and_another_is(
    js: JetStreamContext, settings: Settings, a_second_is_long: None
) -> None:
    applied = await running_keys(js)
    heir, dead = Pod(js, "pod-2", applied=applied), Pod(js, applied=applied, lease=0.5)
    policy = replace(PROMPT, silent_after=timedelta(seconds=1), gone_after=timedelta(seconds=2))
    async with kill_switch(settings, policy):
        await dead.say(runs_in_flight=["r1"])
        await publish(js, "started", "r1")
        await alerts(js, "raised", within=20)
        await eventually(lambda: said_cases(js), within=20)
        assert len(await said(js, "alert")) == 1  # nobody else is armed
        async with alive(heir):
            await alerts(js, "raised", "resolved", within=20)
    patient = replace(policy, not_armed_after=timedelta(seconds=3))  # a start must not pass for the heir's silence
    async with alive(heir), kill_switch(settings, patient):  # nor does a restart page it anew
        await asyncio.sleep(4.3)  # longer than the fault has to last
        await alerts(js, "raised", "resolved")


async def said_cases(js: JetStreamContext) -> bool:
    return "opened" in [event for event, _ in await said(js, "case")]


async def test_an_instance_that_may_act_without_control_is_paged_however_long_it_is_silent(
    js: JetStreamContext, settings: Settings, a_second_is_long: None
) -> None:
    card = Card(agent="desk", owner="o", purpose="p", can=["c"], switch=SwitchRule(lost_control="carry_on"))
    await js.publish(subjects.key_subject(subjects.AGENTS, "desk"), control.encode(card))
    applied = await running_keys(js)
    dead = Pod(js, applied=applied, lease=0.1)
    policy = replace(PROMPT, silent_after=timedelta(seconds=2), gone_after=timedelta(seconds=0.1))
    async with kill_switch(settings, policy), alive(Pod(js, "pod-2", applied=applied)):
        await dead.say()
        await alerts(js, "raised", within=20)
        await asyncio.sleep(0.5)  # some looks
        await alerts(js, "raised")


async def test_a_drills_own_instance_that_died_is_no_page(js: JetStreamContext, settings: Settings) -> None:
    drills = Pod(js, "drill-20261122-a1b2c3", lease=0.3)
    async with kill_switch(settings, PROMPT):
        await drills.say()
        await asyncio.sleep(0.3)
        assert await view.read(js._nc, js) == ([], [])
        ghost = Pod(js, "ghost")
        async with alive(ghost):
            (alert,) = await alerts(js, "raised")
        assert alert.title == f"1 of 1 instance of desk is not armed: ghost {BEHIND}"


async def test_nonsense_in_one_presence_keeps_nobody_else_from_being_judged(
    js: JetStreamContext, settings: Settings
) -> None:
    mad, ghost = Pod(js, "mad", agent="mail"), Pod(js, "ghost")
    async with kill_switch(settings, PROMPT), alive(mad, control_age=1e300), alive(ghost):
        found = await alerts(js, "raised", "raised")
    assert {alert.title for alert in found} == {
        f"1 of 1 instance of desk is not armed: ghost {BEHIND}",
        "1 of 1 instance of mail is not armed: mad has not been able to read the switch for 86400 s",
    }


async def test_a_restart_raises_no_second_alert_and_resolves_the_first(
    js: JetStreamContext, settings: Settings
) -> None:
    pod = Pod(js)
    async with alive(pod):
        async with kill_switch(settings, PROMPT):
            await alerts(js, "raised")
        pod.applied |= await running_keys(js)
        async with kill_switch(settings, PROMPT):
            await alerts(js, "raised", "resolved")


async def test_a_crash_after_the_alert_was_saved_neither_forgets_nor_repeats_it(
    js: JetStreamContext, settings: Settings
) -> None:
    def crash(point: str) -> None:
        if point == "kill_switch.arming_saved":
            raise Crash

    async with alive(Pod(js)):
        faults.set_hook(crash)
        async with kill_switch(settings, PROMPT) as task:
            with pytest.raises(Crash):
                await asyncio.wait_for(asyncio.shield(task), 20)
        faults.set_hook(None)
        async with kill_switch(settings, PROMPT):
            await alerts(js, "raised")


async def test_nobody_is_silent_while_the_server_is_away(
    nats_server: NatsServer, js: JetStreamContext, settings: Settings, a_second_is_long: None
) -> None:
    pod = Pod(js, applied=await running_keys(js))
    policy = replace(QUICK, not_armed_after=timedelta(seconds=1.2))
    async with kill_switch(settings, policy):
        async with alive(pod):
            await eventually(lambda: writes_read(js))
        os.kill(nats_server.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(2)  # as long as the fault lasts
        finally:
            os.kill(nats_server.pid, signal.SIGCONT)
        async with alive(pod):
            ghost = Pod(js, "ghost")  # what it misses is paged: the judge is awake
            async with alive(ghost):
                (alert,) = await alerts(js, "raised", within=20)
        assert alert.title == f"1 of 2 instances of desk is not armed: ghost {BEHIND}"


async def test_the_clock_of_an_instance_does_not_matter(js: JetStreamContext, settings: Settings) -> None:
    applied = await running_keys(js)
    slow, ghost = Pod(js, "slow", applied=applied), Pod(js, "ghost")
    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)
    async with kill_switch(settings, PROMPT), alive(slow, control_read_at=an_hour_ago, control_age=0.3), alive(ghost):
        (alert,) = await alerts(js, "raised")
        assert alert.title == f"1 of 2 instances of desk is not armed: ghost {BEHIND}"


async def test_a_bucket_made_anew_disarms_nobody_who_has_read_it(js: JetStreamContext, settings: Settings) -> None:
    await running_keys(js)
    await put(js, "runs.desk", b"{}")
    pod = Pod(js, applied=await running_keys(js))
    async with kill_switch(settings, PROMPT):
        await eventually(lambda: writes_read(js))
    await js.delete_stream(subjects.key_stream(subjects.SWITCH))
    await topology.apply(js, settings)
    async with alive(pod), kill_switch(settings, PROMPT):
        (alert,) = await alerts(js, "raised")
        assert "which stands at" in alert.evidence
        pod.applied = await running_keys(js)
        await alerts(js, "raised", "resolved")
    async with alive(pod), kill_switch(settings, PROMPT):  # the old bucket's revisions are not taken up again
        await eventually(lambda: writes_read(js))
        ghost = Pod(js, "ghost")
        async with alive(ghost):
            *_, alert = await alerts(js, "raised", "resolved", "raised")
        assert alert.title == f"1 of 2 instances of desk is not armed: ghost {BEHIND}"
