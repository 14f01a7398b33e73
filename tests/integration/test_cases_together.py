"""SDK and kill-switch together: what a halted run leaves reaches exactly one who answers."""

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from nats.js import JetStreamContext

import midwatch
from helpers import all_read, eventually, hears_offers
from kill_switch_helpers import kill_switch, names, said
from midwatch import Case, Halted, Handoff, Midwatch, testing
from midwatch.contracts import control, subjects
from midwatch.contracts.control import Presence, SwitchRule
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.settings import Settings

RUNNING = b'{"state":"running"}'
HALTED = b'{"state":"halted","reason":"too many refunds","by":"eva"}'
RUNS = 40
CONSUMERS = [
    (subjects.RUNS, subjects.KILL_SWITCH),
    (subjects.key_stream(subjects.CASES), subjects.KILL_SWITCH_CASES),
]


async def give_card(js: JetStreamContext, agent: str, fallback: str = "human") -> None:
    card = control.encode(testing.card(agent, fallback=fallback, switch=SwitchRule(lease=2.0)))
    await js.publish(subjects.key_subject(subjects.AGENTS, agent), card)
    await js.publish(subjects.key_subject(subjects.SWITCH, subjects.agent_key(agent)), RUNNING)


@pytest.fixture
async def mw(
    nats_server: NatsServer, js: JetStreamContext, settings: Settings, tmp_path: Path
) -> AsyncIterator[Midwatch]:
    await give_card(js, "desk", "agent:simple")
    await give_card(js, "simple")
    async with kill_switch(settings), midwatch.connect(nats_server.url, home=tmp_path / "agent") as mw:
        yield mw


async def halted_runs(mw: Midwatch, js: JetStreamContext, desk: midwatch.Agent) -> set[str]:
    """Runs of `desk`, all halted at once; their names."""
    begun = asyncio.Semaphore(0)

    async def serve(number: int) -> None:
        try:
            async with desk.run(input="Where?", run_id=f"r{number}"):
                begun.release()
                await asyncio.Event().wait()
        except Halted:
            pass

    serving = [asyncio.create_task(serve(number)) for number in range(RUNS)]
    for _ in range(RUNS):
        await begun.acquire()
    await js.publish(subjects.key_subject(subjects.SWITCH, "agent.desk"), HALTED)
    await asyncio.gather(*serving)
    return {f"r{number}" for number in range(RUNS)}


async def armed(mw: Midwatch, js: JetStreamContext, agent: str) -> None:
    """Waits until an instance of the agent says that it obeys its switch, and hears offers."""
    await hears_offers(mw, agent)

    async def reported() -> bool:
        last = await js.get_last_msg(subjects.PRESENCE, subjects.presence(agent, mw.instance))
        applied = msgspec.json.decode(last.data or b"", type=Presence).applied
        return bool(applied.get(subjects.FLEET_KEY) and applied.get(subjects.agent_key(agent)))

    await eventually(reported)


async def test_each_case_is_answered_once_by_the_agent_that_the_card_names(mw: Midwatch, js: JetStreamContext) -> None:
    answered: Counter[str] = Counter()

    @mw.agent("simple", version="1").takes
    async def answer(case: Case, run: midwatch.Run) -> str:
        answered[case.run_id] += 1
        return "We look into it."

    await armed(mw, js, "simple")
    runs = await halted_runs(mw, js, mw.agent("desk", version="1"))

    async def closed() -> bool:
        return names(await said(js, "case")).count("closed") == RUNS

    await eventually(closed, 15)
    assert answered == dict.fromkeys(runs, 1)
    spoken = Counter(names(await said(js, "case")))
    assert spoken == {"offered": RUNS, "accepted": RUNS, "closed": RUNS}


async def test_the_programs_own_fallback_answers_and_no_case_is_opened(mw: Midwatch, js: JetStreamContext) -> None:
    answered: Counter[str] = Counter()

    def to_queue(handoff: Handoff) -> None:
        answered[handoff.run_id] += 1

    runs = await halted_runs(mw, js, mw.agent("desk", version="1", fallback=to_queue))
    assert answered == dict.fromkeys(runs, 1)
    for stream, consumer in CONSUMERS:
        await eventually(lambda stream=stream, consumer=consumer: all_read(js, stream, consumer))
    assert await said(js, "case") == []


async def test_where_the_own_fallback_fails_people_get_the_case_with_a_doubt(
    mw: Midwatch, js: JetStreamContext
) -> None:
    def broken(handoff: Handoff) -> None:
        raise ValueError("no such queue")

    desk = mw.agent("desk", version="1", fallback=broken)
    with pytest.raises(ValueError, match="no such queue"):
        async with desk.run(input="Where?", run_id="r1"):
            await js.publish(subjects.key_subject(subjects.SWITCH, "agent.desk"), HALTED)
            await asyncio.Event().wait()

    async def opened() -> bool:
        return names(await said(js, "case")) == ["opened"]

    await eventually(opened)
    ((_, case),) = await said(js, "case")
    assert (case.run_id, case.to, case.input) == ("r1", "human", "Where?")
    assert "may have answered" in case.doubt


async def test_an_agent_that_cannot_take_a_case_leaves_it_to_people(mw: Midwatch, js: JetStreamContext) -> None:
    @mw.agent("simple", version="1").takes
    async def answer(case: Case, run: midwatch.Run) -> str:
        raise ValueError("not my trade")

    await armed(mw, js, "simple")
    with pytest.raises(Halted):
        async with mw.agent("desk", version="1").run(input="Where?", run_id="r1"):
            await js.publish(subjects.key_subject(subjects.SWITCH, "agent.desk"), HALTED)
            await asyncio.Event().wait()

    async def opened() -> bool:
        return names(await said(js, "case")) == ["offered", "accepted", "opened"]

    await eventually(opened)


AGENT = """
import sys, time, midwatch
def fallback(handoff):
    print("in its fallback", flush=True)
    time.sleep(60)
with midwatch.blocking.connect(sys.argv[1], home=sys.argv[2], instance="pod-1") as mw:
    with mw.agent("desk", version="1", fallback=fallback).run(input="Where?", run_id="r1") as run:
        run.say("agent", "I look.")
        while True:
            run.check()
            print("at work", flush=True)
            time.sleep(0.1)
"""


@pytest.mark.parametrize(
    ("killed", "doubt"),
    [
        ("at work", "the agent's program has a fallback of its own, which may have answered before it vanished"),
        (
            "in its fallback",
            "the agent's program vanished while its own fallback had the case, and may have answered",
        ),
    ],
)
async def test_people_get_the_case_of_a_process_that_is_killed(
    nats_server: NatsServer, js: JetStreamContext, settings: Settings, tmp_path: Path, killed: str, doubt: str
) -> None:
    await give_card(js, "desk")
    async with kill_switch(settings):
        words = [sys.executable, "-c", AGENT, nats_server.url, str(tmp_path / "killed")]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            assert await asyncio.to_thread(process.stdout.readline) == "at work\n"
            await eventually(lambda: known(js))
            if killed == "in its fallback":
                await js.publish(subjects.key_subject(subjects.SWITCH, "agent.desk"), HALTED)
            while await asyncio.to_thread(process.stdout.readline) != f"{killed}\n":
                pass
        finally:
            process.kill()
            await asyncio.to_thread(process.wait)
            process.stdout.close()

        async def opened() -> bool:
            return names(await said(js, "case")) == ["opened"]

        await eventually(opened, 20)
        ((_, case),) = await said(js, "case")
    assert (case.run_id, case.to, case.input, case.doubt) == ("r1", "human", "Where?", doubt)
    assert [event["event"] for event in case.events][:2] == ["started", "said"]


async def known(js: JetStreamContext) -> bool:
    """Whether the server has what the run recorded, and a presence that lists it."""
    recorded = (await js.stream_info(subjects.RUNS, subjects_filter=subjects.run("*", "said"))).state.subjects
    last = await js.get_last_msg(subjects.PRESENCE, subjects.presence("desk", "pod-1"))
    return bool(recorded) and "r1" in msgspec.json.decode(last.data or b"", type=Presence).runs_in_flight
