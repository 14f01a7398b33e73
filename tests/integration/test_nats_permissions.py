"""The server configuration that we ship, in a real server: each role can do its own work and nothing else."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import nats
import nats.js.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

import midwatch
import shipped_server
from budget_helpers import Model, apply, spend, watchdog
from eval_replay_helpers import case, outcomes
from helpers import eventually, hears_offers
from midwatch.contracts import codec, control, runs, subjects
from midwatch.contracts.envelope import utc_now
from midwatch.contracts.governance import CaseOffered, CaseOpened
from midwatch.runtime import topology
from midwatch.runtime.service import run_services
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Switchboard
from midwatch_services import registry
from shipped_server import AGENT, CONFIG, KEYS, Connect

# Fixtures of this file
server, connect, declared = shipped_server.server, shipped_server.connect, shipped_server.declared


@pytest.mark.usefixtures("declared")
async def test_an_agent_publishes_its_own_run_events_and_its_presence(connect: Connect) -> None:
    async with connect(AGENT) as agent:
        js = agent.nc.jetstream()
        for event in subjects.RUN_EVENTS:
            assert (await js.publish(subjects.run(AGENT, event), b"{}")).stream == subjects.RUNS
        assert (await js.publish(subjects.presence(AGENT, "pod-1"), b"{}")).stream == subjects.PRESENCE


@pytest.mark.usefixtures("declared")
async def test_an_agent_reads_its_own_keys_by_direct_get(connect: Connect) -> None:
    async with connect(AGENT) as agent:
        for bucket, key in KEYS:
            assert await agent.request(subjects.direct_get(bucket, key)) == b"{}"


async def test_an_agent_hears_the_nudges_of_its_own_keys(connect: Connect) -> None:
    async with connect(AGENT) as agent:
        for key in subjects.switch_keys(AGENT):
            assert await agent.may_subscribe(subjects.control(key))
        assert await agent.may_subscribe(subjects.control_card(AGENT))
        assert await agent.may_subscribe(subjects.control_route(AGENT))


NOT_TO_PUBLISH = [
    *(subjects.key_subject(subjects.SWITCH, key) for key in subjects.switch_keys(AGENT)),
    subjects.key_subject(subjects.AGENTS, AGENT),
    subjects.key_subject(subjects.ROUTES, AGENT),
    subjects.run("other", "finished"),
    subjects.presence("other", "pod-1"),
    subjects.budget("other", "reserve"),
    subjects.budget("other", "commit"),
    subjects.trial(AGENT),
    subjects.trial("other"),
    subjects.alert(AGENT, "raised"),
    subjects.switch(AGENT, "contained"),
    subjects.review(AGENT, "judged"),
    subjects.evaluated(AGENT, "completed"),
    *(subjects.claim(agent, verb) for agent in (AGENT, subjects.FLEET) for verb in ("take", "extend", "release")),
    subjects.dead("logger"),
    subjects.control(subjects.FLEET_KEY),
    subjects.direct_get(subjects.SWITCH, "agent.other"),
    subjects.direct_get(subjects.AGENTS, "other"),
    "$JS.API.DIRECT.GET.KV_MIDWATCH_SWITCH",
    "$JS.API.STREAM.INFO.MIDWATCH_RUNS",
    "$JS.API.STREAM.MSG.GET.KV_MIDWATCH_SWITCH",
    "$JS.API.STREAM.PURGE.MIDWATCH_RUNS",
    "$JS.API.CONSUMER.CREATE.MIDWATCH_RUNS",
    "$JS.API.CONSUMER.INFO.MIDWATCH_RUNS.logger",
    "$JS.API.CONSUMER.MSG.NEXT.MIDWATCH_RUNS.logger",
    "$JS.API.CONSUMER.DELETE.MIDWATCH_RUNS.logger",
    "_INBOX.operator.x",
]
NOT_TO_HEAR = [
    "midwatch.run.>",
    "midwatch.presence.>",
    "midwatch.budget.>",
    subjects.budget(AGENT, "*"),
    "midwatch.claim.>",
    "midwatch.review.>",
    "midwatch.control.>",
    subjects.control(subjects.agent_key("other")),
    subjects.trial("other"),
    "midwatch.trial.>",
    "_INBOX.>",
    "_INBOX.operator.>",
    "$KV.>",
    ">",
]


async def test_an_agent_publishes_nothing_else(connect: Connect) -> None:
    async with connect(AGENT) as agent:
        assert [subject for subject in NOT_TO_PUBLISH if await agent.may_publish(subject)] == []


async def test_an_agent_hears_nothing_of_others(connect: Connect) -> None:
    async with connect(AGENT) as agent:
        assert [subject for subject in NOT_TO_HEAR if await agent.may_subscribe(subject)] == []


async def test_a_run_of_the_sdk_needs_no_more_than_an_agent_may(
    connect: Connect, server: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    card = control.Card(agent=AGENT, owner="Tester", purpose="Tests.", can=["Test"])
    async with connect("admin") as admin:
        js = admin.nc.jetstream()
        await topology.apply(js, Settings())
        await js.publish(subjects.key_subject(subjects.AGENTS, AGENT), control.encode(card))
        await Switchboard(js).resume_agent(AGENT, reason="test", by="tester")
        url = f"nats://{AGENT}:pw-agent@{server}"
        async with midwatch.connect(url, home=tmp_path / "home") as mw:
            desk = mw.agent(AGENT, version="1", fallback=lambda handoff: "a person")
            async with desk.run(input="Hello") as run:
                await run.tool("look", lambda: "found")
                run.finish("Done")
            await Switchboard(js).halt_agent(AGENT, reason="test", by="tester")
            async with desk.run(input="Hello again") as refused:
                await eventually(lambda: refused.halted)
                refused.check()
            assert refused.result == "a person"
        seen = [(await js.get_msg(subjects.RUNS, seq)).subject.rsplit(".", 1)[1] for seq in range(1, 7)]
        assert seen == ["started", "tool_called", "finished", "started", "handed_off", "finished"]
        presence = await js.get_last_msg(subjects.PRESENCE, subjects.presence(AGENT, mw.instance))
        assert msgspec.json.decode(presence.data or b"", type=control.Presence).leaving
    assert "violation" not in caplog.text.lower()  # a denial shows nowhere else


async def test_an_agent_claims_and_takes_cases_with_no_more_than_it_may(
    connect: Connect, server: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    card = control.Card(agent=AGENT, owner="Tester", purpose="Tests.", can=["Test"])
    case = CaseOpened(
        case_id="case-1", agent="other", run_id="r1", to=f"agent:{AGENT}", reason="test", opened_by="kill-switch"
    )
    offer = CaseOffered(
        taker=AGENT, offer_key=subjects.offer_key(AGENT, "other", "r1"), until=utc_now(), within=5.0, case=case
    )
    offered = codec.encode(codec.envelope("case", "offered", offer, source="/services/kill-switch"))
    async with connect("admin") as admin:
        js = admin.nc.jetstream()
        await topology.apply(js, Settings())
        await js.publish(subjects.key_subject(subjects.AGENTS, AGENT), control.encode(card))
        await Switchboard(js).resume_agent(AGENT, reason="test", by="tester")
        async with midwatch.connect(f"nats://{AGENT}:pw-agent@{server}", home=tmp_path / "home") as mw:
            sole: list[bool] = []
            desk = mw.agent(AGENT, version="1", fallback=lambda handoff: sole.append(handoff.sole))
            desk.takes(lambda taken, run: taken.case_id)
            taken = await js.subscribe(subjects.case(AGENT, "accepted"))
            await hears_offers(mw, AGENT)
            await js.publish(subjects.case(AGENT, "offered"), offered)
            assert codec.decode(*await said_on(taken)).data.case_id == "case-1"
            await Switchboard(js).halt_agent(AGENT, reason="test", by="tester")
            async with desk.run(input="Hello again", run_id="halted") as refused:
                await eventually(lambda: refused.halted)
                refused.check()
        assert sole == [True]
    async with connect(AGENT) as agent:
        own = subjects.key_subject(subjects.CASES, subjects.case_key(AGENT, "halted"))
        for operation in ({}, {"KV-Operation": "DEL"}, {"Nats-Rollup": "sub"}):
            with pytest.raises(nats.js.errors.APIError):  # it was created: nothing changes or frees it
                await agent.nc.jetstream().publish(own, b"", headers=operation)
        assert not await agent.may_publish(subjects.key_subject(subjects.CASES, subjects.case_key("other", "r1")))
        assert not await agent.may_publish(subjects.case(AGENT, "opened"))
        assert not await agent.may_subscribe(subjects.case("other", "offered"))
    assert "violation" not in caplog.text.lower()


async def test_an_agent_is_answered_for_its_budgets_and_the_services_need_no_more_than_they_may(
    connect: Connect, server: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect("admin") as admin:
        await topology.apply(admin.nc.jetstream(), Settings())
        await apply(admin.nc.jetstream(), AGENT, run="1", ticket="1", reserve=True)
    services = Settings(home=tmp_path / "home", nats_url=f"nats://services:pw-services@{server}", http_port=0)
    model = Model()
    async with watchdog(services):
        async with midwatch.connect(f"nats://{AGENT}:pw-agent@{server}", home=tmp_path / "agent") as mw:
            desk = mw.agent(AGENT, version="1", fallback=lambda handoff: handoff.key)
            runs = await asyncio.gather(*(spend(desk, model, ceiling="0.18") for _ in range(3)))
        async with connect("services") as service:
            assert not await service.may_publish(f"_INBOX.{AGENT}.x")  # only where it was asked
            assert not await service.may_publish(subjects.budget(AGENT, "reserve"))
        async with connect("drill") as drill:
            assert not await drill.may_publish(subjects.budget(AGENT, "reserve"))  # a drill spends no live budget
    assert (str(model.billed), {run.result for run in runs}) == ("0.90", {"budget"})
    assert "violation" not in caplog.text.lower()


async def said_on(subscription: Any) -> tuple[str, bytes]:
    message = await subscription.next_msg(timeout=5)
    return message.subject, message.data


@pytest.mark.usefixtures("declared")
async def test_the_operator_halts_and_takes_on_an_alert_but_says_nothing_in_an_agents_name(connect: Connect) -> None:
    async with connect("operator") as operator:
        js = operator.nc.jetstream()
        await js.publish(subjects.key_subject(subjects.SWITCH, subjects.FLEET_KEY), b"{}")
        await js.publish(subjects.alert(AGENT, "acknowledged"), b"{}")
        assert (await js.stream_info(subjects.RUNS)).config.name == subjects.RUNS
        assert not await operator.may_publish(subjects.run(AGENT, "finished"))
        assert not await operator.may_publish(subjects.alert(AGENT, "raised"))
        assert not await operator.may_publish(f"$JS.API.STREAM.DELETE.{subjects.RUNS}")


async def test_an_agent_answers_a_replay_that_the_operator_asks_for(connect: Connect, server: str) -> None:
    async with connect(AGENT) as agent:

        async def answer(msg: Msg) -> None:
            await msg.respond(b'{"say": "It is on its way."}')

        await agent.nc.subscribe(subjects.trial(AGENT), cb=answer)
        await agent.nc.flush()
        found = await outcomes([case()], "nats", nats_url=f"nats://operator:pw-operator@{server}")
        assert (found["twice"].said, found["twice"].error) == (["It is on its way."], None)
        assert agent.denied == []


async def test_the_operators_commands_need_no_more_than_the_operator_may(
    connect: Connect, server: str, tmp_path: Path
) -> None:
    async with connect("admin") as admin:
        await topology.apply(admin.nc.jetstream(), Settings())
    environment = os.environ | {"NATS_URL": f"nats://operator:pw-operator@{server}", "MIDWATCH_HOME": str(tmp_path)}
    card = CONFIG.parents[2] / "agents" / "refund-desk.yaml"
    for command in (
        ["apply", str(card)],
        ["halt", AGENT, "--reason", "test", "--wait", "5"],
        ["resume", AGENT, "--reason", "test"],
        ["switch"],
    ):
        words = [sys.executable, "-m", "midwatch_services.cli", *command]
        done = await asyncio.to_thread(subprocess.run, words, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (command, done.stdout, done.stderr)


async def test_the_services_run_with_no_more_than_they_may(
    connect: Connect, server: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect("admin") as admin:
        await topology.apply(admin.nc.jetstream(), Settings())
    settings = Settings(
        home=tmp_path / "home", nats_url=f"nats://services:pw-services@{server}", http_port=0, console_port=0
    )
    started = asyncio.Event()
    services = [registry.load(name) for name in registry.NAMES]
    running = asyncio.create_task(run_services(services, settings, started=lambda _: started.set(), restart=False))
    try:
        async with asyncio.timeout(60):
            await started.wait()
        async with connect("operator") as operator:
            js = operator.nc.jetstream()
            heard = await operator.nc.subscribe(subjects.switch(AGENT, "halted"))
            await Switchboard(js).halt_agent(AGENT, reason="test", by="tester")
            await heard.next_msg(timeout=5)
            async with connect("help-desk") as desk, connect(AGENT) as agent:
                opened = await desk.nc.subscribe(subjects.case(AGENT, "opened"))
                await desk.nc.flush()
                await leave_case(agent.nc)
                assert b"wrong refunds" in (await opened.next_msg(timeout=5)).data
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert "violation" not in caplog.text.lower()


async def leave_case(nc: Client) -> None:
    """A run that was stopped, as its agent says it."""
    common: dict[str, Any] = {"run_id": "r1", "agent": AGENT, "version": "1", "mode": "live"}
    for data in (
        runs.Started(**common, seq=0, input="Where is my refund?"),
        runs.HandedOff(**common, seq=1, to="human", reason="wrong refunds", key=f"agent.{AGENT}"),
    ):
        event = "started" if data.seq == 0 else "handed_off"
        body = codec.encode(codec.envelope("run", event, data, source=f"/agents/{AGENT}/pod-1"))
        await nc.jetstream().publish(subjects.run(AGENT, event), body)


@pytest.mark.usefixtures("declared")
async def test_the_services_read_their_consumers_and_forge_no_run(connect: Connect) -> None:
    async with connect(AGENT) as agent:
        await agent.nc.jetstream().publish(subjects.run(AGENT, "started"), b"{}")
    async with connect("services") as services:
        js = services.nc.jetstream()
        reader = await js.pull_subscribe_bind(subjects.LOGGER, stream=subjects.RUNS)
        (message,) = await reader.fetch(1, timeout=2)
        await message.ack_sync()
        await js.publish(subjects.alert(AGENT, "raised"), b"{}")
        await js.publish(subjects.key_subject(subjects.SWITCH, subjects.runs_key(AGENT)), b"{}")
        assert not await services.may_publish(subjects.run(AGENT, "finished"))
        assert not await services.may_publish(f"$JS.API.STREAM.UPDATE.{subjects.RUNS}")
        assert not await services.may_publish(f"$JS.API.CONSUMER.DELETE.{subjects.RUNS}.{subjects.LOGGER}")


@pytest.mark.usefixtures("declared")
async def test_the_services_make_the_presence_stream_anew_and_no_other(connect: Connect) -> None:
    async with connect("admin") as admin:
        await admin.nc.jetstream().delete_stream(subjects.PRESENCE)
    async with connect("services") as services:
        await topology.restore(services.nc.jetstream(), Settings())
        assert not await services.may_publish("$JS.API.STREAM.CREATE.OTHER")
    async with connect("admin") as admin:
        assert (await admin.nc.jetstream().stream_info(subjects.PRESENCE)).config.max_msgs_per_subject == 1


@pytest.mark.parametrize("claim", [{}, {"user": "operator", "pass": "wrong"}])
async def test_no_one_is_let_in_without_a_password(server: str, claim: dict[str, str]) -> None:
    host, port = server.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    assert json.loads((await reader.readline()).removeprefix(b"INFO "))["auth_required"]
    writer.write(b"CONNECT " + json.dumps({**claim, "verbose": False}).encode() + b"\r\nPING\r\n")
    assert await reader.readline() == b"-ERR 'Authorization Violation'\r\n"
    writer.close()
    await writer.wait_closed()
