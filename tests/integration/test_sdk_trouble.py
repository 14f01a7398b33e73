"""The SDK when the server is away, the process dies, or the host blocks."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import nats
import pytest
from nats.aio.msg import Msg
from nats.js import JetStreamContext

import midwatch
from helpers import eventually
from midwatch import Halted, Midwatch, testing
from midwatch.contracts import codec, control, subjects
from midwatch.contracts.codec import RunEvent
from midwatch.contracts.control import Presence, SwitchRule
from midwatch.runtime import topology
from midwatch.runtime.nats_server import NatsServer, start_nats
from midwatch.runtime.settings import Settings

RUNNING = b'{"state":"running"}'
HALTED = b'{"state":"halted","reason":"too many refunds","by":"eva"}'
LEASE = 1.0


async def apply(js: JetStreamContext, lost_control: str = "fall_back") -> None:
    """Makes agent `desk` ready to run with a lease of a second."""
    rule = SwitchRule(lease=LEASE, lost_control=lost_control)  # type: ignore[arg-type]
    card = control.encode(testing.card("desk", switch=rule, tools=testing.tools(look_up="read")))
    await js.publish(subjects.key_subject(subjects.AGENTS, "desk"), card)
    await js.publish(subjects.key_subject(subjects.SWITCH, "agent.desk"), RUNNING)


async def stored(js: JetStreamContext) -> list[RunEvent]:
    last = (await js.stream_info(subjects.RUNS)).state.last_seq
    found = [await js.get_msg(subjects.RUNS, seq) for seq in range(1, last + 1)]
    return [codec.decode_run(message.subject or "", message.data or b"") for message in found]


def to_person(handoff: midwatch.Handoff) -> str:
    return f"a person ({handoff.key})"


@pytest.fixture
async def mw(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Midwatch]:
    async with midwatch.connect(nats_server.url, home=tmp_path / "agent", instance="pod-7") as mw:
        yield mw


async def test_a_server_that_is_away_at_the_start_is_lost_control_and_costs_no_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("midwatch.switch.SwitchRule", partial(SwitchRule, lease=0.3))
    async with await start_nats(tmp_path / "nats") as server:
        await server.stop()
        async with midwatch.connect(server.url, home=tmp_path / "agent") as mw:
            began = time.monotonic()
            async with mw.agent("desk", version="1", fallback=to_person).run(input="x") as run:
                await run.tool("look_up", str)
            assert run.result == "a person (lease)"
            assert 0.25 < time.monotonic() - began < 2
            await server.start()
            nc = await nats.connect(server.url)
            await topology.apply(nc.jetstream(), Settings(home=tmp_path, nats_url=server.url))

            async def all_arrived() -> bool:
                return [event.event for event in await stored(nc.jetstream())] == ["started", "handed_off", "finished"]

            await eventually(all_arrived)
            await nc.close()


async def test_a_lost_server_ends_the_run_when_the_lease_lapses_and_returns_by_itself(
    mw: Midwatch, nats_server: NatsServer, js: JetStreamContext
) -> None:
    await apply(js)
    desk = mw.agent("desk", version="1", fallback=to_person)
    async with desk.run(input="x") as run:
        nats_server.kill()
        lost = time.monotonic()
        await run.tool("look_up", str)  # the lease still holds
        await asyncio.Event().wait()
    assert run.result == "a person (lease)"
    assert time.monotonic() - lost < LEASE + 0.8  # half a second of it to ask whose the case is
    await nats_server.restart()
    await topology.apply(js, Settings(nats_url=nats_server.url))
    await eventually(lambda: not desk.run(input="x").halted)
    async with desk.run(input="x") as after:
        await after.tool("look_up", str)
        after.finish()
    assert after.result is None


@pytest.mark.parametrize(
    ("lost_control", "does"), [("fall_back", "falls back"), ("carry_on", "carries on from the last reading")]
)
async def test_presence_and_log_say_what_is_done_without_control_and_when_it_is_back(
    mw: Midwatch, nats_server: NatsServer, js: JetStreamContext, caplog: pytest.LogCaptureFixture,
    lost_control: str, does: str,
) -> None:  # fmt: skip
    await apply(js, lost_control)
    heard: list[Presence] = []

    async def hear(msg: Msg) -> None:
        heard.append(msgspec.json.decode(msg.data, type=Presence))

    desk = mw.agent("desk", version="1", fallback=to_person)
    async with desk.run(input="x") as run:
        run.finish()
    nats_server.kill()
    await eventually(lambda: desk.engine.follow("desk", "1").lapsed)
    await nats_server.restart()
    await js._nc.subscribe("midwatch.presence.>", cb=hear)
    # Until its presence is taken by a stream, it has not got control back: there is none before `apply`.
    await eventually(lambda: any(presence.lost_control for presence in heard))
    await topology.apply(js, Settings(nats_url=nats_server.url))
    await eventually(lambda: heard and heard[-1].without_control is None)
    lost = [presence for presence in heard if presence.lost_control]
    assert lost and {presence.without_control for presence in lost} == {lost_control}
    assert (heard[-1].lost_control, (heard[-1].control_age or 9) < LEASE) == (False, True)
    said = [record.getMessage() for record in caplog.records if "the switch of agent desk" in record.getMessage()]
    assert len(said) == 2
    assert f"could not be read for 1 s: it {does}" in said[0]
    assert "is read again, after" in said[1]


async def test_carry_on_goes_on_without_the_server(mw: Midwatch, nats_server: NatsServer, js: JetStreamContext) -> None:
    await apply(js, "carry_on")
    async with mw.agent("desk", version="1", fallback=to_person).run(input="x") as run:
        nats_server.kill()
        await asyncio.sleep(LEASE + 0.3)
        await run.tool("look_up", str)
        run.finish("done")
    assert run.result is None


async def test_carry_on_does_not_carry_on_through_a_halt_that_was_seen(
    mw: Midwatch, nats_server: NatsServer, js: JetStreamContext
) -> None:
    await apply(js, "carry_on")
    desk = mw.agent("desk", version="1", fallback=to_person)
    async with desk.run(input="x") as run:
        halting = asyncio.create_task(js.publish(subjects.key_subject(subjects.SWITCH, "agent.desk"), HALTED))
        await asyncio.Event().wait()
    await halting
    nats_server.kill()
    await asyncio.sleep(LEASE + 0.3)
    async with desk.run(input="x") as run:
        await run.tool("look_up", str)
    assert run.result == "a person (agent.desk)"


async def test_presence_that_the_server_does_not_take_lets_the_lease_lapse(mw: Midwatch, js: JetStreamContext) -> None:
    await apply(js)
    async with mw.agent("desk", version="1", fallback=to_person).run(input="x") as run:
        await js.delete_stream(subjects.PRESENCE)
        await asyncio.wait_for(asyncio.Event().wait(), 20)
    assert run.result == "a person (lease)"


async def test_a_halt_written_while_the_connection_was_down_is_obeyed_on_reconnect(
    mw: Midwatch, nats_server: NatsServer, js: JetStreamContext
) -> None:
    await apply(js, "carry_on")
    async with mw.agent("desk", version="1", fallback=to_person).run(input="x") as run:
        await nats_server.stop()
        await nats_server.start()
        await topology.apply(js, Settings(nats_url=nats_server.url))
        await js.publish(subjects.key_subject(subjects.SWITCH, "agent.desk"), HALTED)
        written = time.monotonic()
        await asyncio.wait_for(asyncio.Event().wait(), 20)
    assert run.result == "a person (agent.desk)"
    assert time.monotonic() - written < 2


async def test_a_host_that_blocks_its_loop_stays_present(mw: Midwatch, js: JetStreamContext) -> None:
    await apply(js)
    async with mw.agent("desk", version="1").run(input="x") as run:
        before = (await js.get_last_msg(subjects.PRESENCE, "midwatch.presence.>")).seq
        time.sleep(LEASE * 1.5)
        run.check()
        assert (await js.get_last_msg(subjects.PRESENCE, "midwatch.presence.>")).seq > before
        run.finish()


async def test_what_could_not_be_flushed_at_the_end_is_sent_by_the_next_process(
    nats_server: NatsServer, tmp_path: Path, js: JetStreamContext
) -> None:
    await apply(js)
    async with midwatch.connect(nats_server.url, home=tmp_path / "agent") as mw:
        async with mw.agent("desk", version="1").run(input="x", run_id="r1") as run:
            await nats_server.stop()
            run.finish("on its way")
        closing = time.monotonic()
    assert time.monotonic() - closing < 6
    await nats_server.start()
    async with midwatch.connect(nats_server.url, home=tmp_path / "agent"):

        async def whole() -> bool:
            return [event.event for event in await stored(js)] == ["started", "finished"]

        await eventually(whole)


AGENT = """
import os, sys, time, asyncio, midwatch
async def main():
    connection = midwatch.connect(sys.argv[1], home=sys.argv[2])
    mw = await connection.__aenter__()
    run = mw.agent("desk", version="1").run(input="x", run_id="r1")
    await run.__aenter__()
    run.say("agent", "recorded")
    print("recorded", flush=True)
    if sys.argv[3] == "hang":
        time.sleep(60)
    return mw, run
kept = asyncio.run(main())
"""


async def ended(js: JetStreamContext, nats_server: NatsServer, home: Path, how: str) -> list[RunEvent]:
    """The events of an agent's process that ended in this way."""
    await apply(js)
    process = subprocess.Popen(
        [sys.executable, "-c", AGENT, nats_server.url, str(home), how], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert await asyncio.to_thread(process.stdout.readline) == "recorded\n"
        if how == "hang":
            process.kill()
        await asyncio.to_thread(process.wait, 20)
    finally:
        process.kill()
        process.stdout.close()
    assert process.returncode == (-signal.SIGKILL if how == "hang" else 0)
    return await stored(js)


async def test_a_process_that_ends_inside_a_run_leaves_it_abandoned(
    nats_server: NatsServer, tmp_path: Path, js: JetStreamContext
) -> None:
    events = await ended(js, nats_server, tmp_path / "agent", "exit")
    assert [event.event for event in events] == ["started", "said", "finished"]
    last: Any = events[-1].data
    assert last.resolution == "abandoned"
    presence = await js.get_last_msg(subjects.PRESENCE, "midwatch.presence.>")
    assert msgspec.json.decode(presence.data or b"", type=Presence).leaving


async def test_what_a_killed_process_recorded_is_sent_by_the_next(
    nats_server: NatsServer, tmp_path: Path, js: JetStreamContext
) -> None:
    await ended(js, nats_server, tmp_path / "agent", "hang")
    async with midwatch.connect(nats_server.url, home=tmp_path / "agent"):

        async def whole() -> bool:
            return [event.event for event in await stored(js)] == ["started", "said"]

        await eventually(whole)


async def test_a_halt_seen_is_kept_for_the_next_process(
    nats_server: NatsServer, tmp_path: Path, js: JetStreamContext
) -> None:
    await apply(js)
    async with midwatch.connect(nats_server.url, home=tmp_path / "agent") as mw:
        with pytest.raises(Halted):
            async with mw.agent("desk", version="1").run(input="x"):
                await js.publish(subjects.key_subject(subjects.SWITCH, "agent.desk"), HALTED)
                await asyncio.Event().wait()
    await nats_server.stop()
    async with midwatch.connect(nats_server.url, home=tmp_path / "agent") as mw:
        halted = mw.agent("desk", version="1").run(input="x")
        with pytest.raises(Halted, match="halted by eva"):
            halted.check()


def test_importing_midwatch_is_light() -> None:
    heavy = "{'asyncio', 'nats', 'pydantic', 'sqlalchemy', 'faststream', 'opentelemetry', 'typer'}"
    code = (
        "import sys, midwatch\n"
        f"assert not {heavy} & set(sys.modules), 'import midwatch'\n"
        "from midwatch import connect, Halted\n"
        f"assert not ({heavy} - {{'asyncio', 'nats'}}) & set(sys.modules), 'connect'\n"
        "assert not {'midwatch.blocking', 'midwatch.testing'} & set(sys.modules), 'lazy'\n"
        "assert midwatch.blocking.connect and midwatch.testing.midwatch\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
