"""Cases on a real server: each halted run has one taker, whatever is lost on the way."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nats.js import JetStreamContext

import midwatch
from case_helpers import LEASE, apply, claims, finished, halt, lose_first_answer, stored
from helpers import eventually
from midwatch import Halted, Handoff, Midwatch
from midwatch.cases import Claims
from midwatch.contracts import subjects
from midwatch.runtime.nats_server import NatsServer

RUNS = 200


@pytest.fixture
async def mw(nats_server: NatsServer, js: JetStreamContext, tmp_path: Path) -> AsyncIterator[Midwatch]:
    for agent in ("desk", "desk-2"):
        await apply(js, agent)
    async with midwatch.connect(nats_server.url, home=tmp_path / "agent", instance="pod-7") as mw:
        yield mw


async def test_two_hundred_runs_halted_at_once_are_each_claimed_once_in_well_under_a_second(
    mw: Midwatch, js: JetStreamContext, record_property: Any
) -> None:
    await apply(js, "desk", lease=5.0)
    answered: list[tuple[float, Handoff]] = []
    desk = mw.agent("desk", version="1", fallback=lambda handoff: answered.append((time.monotonic(), handoff)))
    begun = asyncio.Semaphore(0)

    async def serve(number: int) -> None:
        async with desk.run(input="x", run_id=f"r{number}"):
            begun.release()
            await asyncio.Event().wait()

    serving = [asyncio.create_task(serve(number)) for number in range(RUNS)]
    for _ in range(RUNS):
        await begun.acquire()
    halted_at = time.monotonic()
    await halt(js)
    await asyncio.gather(*serving)
    waited = sorted(at - halted_at for at, _ in answered)
    record_property("figure", f"halt to the last of {RUNS} own fallbacks: {waited[-1]:.3f} s")
    names = {f"r{number}" for number in range(RUNS)}
    assert {handoff.run_id for _, handoff in answered} == names
    assert all(handoff.sole for _, handoff in answered)
    taken = await claims(js)
    assert (len(taken), {claim.run_id for claim in taken}) == (RUNS, names)
    assert {(claim.by, claim.to, claim.key) for claim in taken} == {("pod-7", "own", "agent.desk")}
    assert {end.resolution for end in await finished(js, RUNS)} == {"fell_back"}
    assert waited[-1] < 1


async def test_a_case_that_somebody_else_opened_is_left_alone(mw: Midwatch, js: JetStreamContext) -> None:
    await js.publish(subjects.key_subject(subjects.CASES, subjects.case_key("desk", "r1")), b"{}")
    called: list[Handoff] = []
    with pytest.raises(Halted, match="too many refunds"):
        async with mw.agent("desk", version="1", fallback=called.append).run(input="x", run_id="r1"):
            await halt(js)
            await asyncio.Event().wait()
    (end,) = await finished(js, 1)
    assert (called, end.resolution) == ([], "halted")
    assert end.error == "somebody else has its case: kill-switch, or another process with a run of this name"
    assert [event.event for event in await stored(js)] == ["started", "finished"]


async def test_without_a_server_the_fallback_is_called_all_the_same_within_the_lease_and_a_second(
    mw: Midwatch, nats_server: NatsServer
) -> None:
    handoffs: list[Handoff] = []
    async with mw.agent("desk", version="1", fallback=handoffs.append).run(input="x"):
        nats_server.kill()
        lost = time.monotonic()
        await asyncio.Event().wait()
    assert time.monotonic() - lost < LEASE + 1
    assert [(handoff.key, handoff.sole) for handoff in handoffs] == [("lease", False)]


async def test_without_the_bucket_the_fallback_is_called_all_the_same(mw: Midwatch, js: JetStreamContext) -> None:
    await js.delete_stream(subjects.key_stream(subjects.CASES))
    handoffs: list[Handoff] = []
    async with mw.agent("desk", version="1", fallback=handoffs.append).run(input="x"):
        await halt(js)
        await asyncio.wait_for(asyncio.Event().wait(), 20)
    assert [(handoff.key, handoff.sole) for handoff in handoffs] == [("agent.desk", False)]


async def test_a_claim_whose_answer_was_lost_is_still_ours(
    nats_server: NatsServer, js: JetStreamContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = lose_first_answer(monkeypatch)
    await apply(js, "desk")
    handoffs: list[Handoff] = []
    async with (
        midwatch.connect(nats_server.url, home=tmp_path / "agent") as mw,
        mw.agent("desk", version="1", fallback=handoffs.append).run(input="x"),
    ):
        await halt(js)
        await asyncio.Event().wait()
    assert lost
    assert [handoff.sole for handoff in handoffs] == [True]
    assert len(await claims(js)) == 1


async def test_a_claim_made_as_the_server_is_killed_is_ours_once_it_is_back_in_time(
    mw: Midwatch, nats_server: NatsServer, js: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("midwatch.cases.CLAIM_WITHIN", 10.0)
    handoffs: list[Handoff] = []
    asked = asyncio.Event()
    publish, loop = Claims._publish, asyncio.get_running_loop()

    async def first_kills(self: Claims, *args: Any) -> None:
        if not asked.is_set():
            nats_server.kill()
            loop.call_soon_threadsafe(asked.set)
        await publish(self, *args)

    monkeypatch.setattr(Claims, "_publish", first_kills)

    async def back() -> None:
        await asked.wait()
        await nats_server.restart()

    restarting = asyncio.create_task(back())
    async with mw.agent("desk", version="1", fallback=handoffs.append).run(input="x"):
        await halt(js)
        await asyncio.Event().wait()
    await restarting
    assert [handoff.sole for handoff in handoffs] == [True]
    assert len(await claims(js)) == 1


AGENT = """
import sys, time, midwatch
def fallback(handoff):
    print("called", handoff.sole, flush=True)
    time.sleep(60)
with midwatch.blocking.connect(sys.argv[1], home=sys.argv[2], instance="pod-1") as mw:
    with mw.agent("desk", version="1", fallback=fallback).run(input="x", run_id="r1") as run:
        print("begun", flush=True)
        while True:
            run.check()
            time.sleep(0.01)
"""


async def test_a_process_killed_in_its_fallback_leaves_its_claim_and_nobody_else_answers(
    mw: Midwatch, nats_server: NatsServer, js: JetStreamContext, tmp_path: Path
) -> None:
    words = [sys.executable, "-c", AGENT, nats_server.url, str(tmp_path / "other")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert await asyncio.to_thread(process.stdout.readline) == "begun\n"
        await halt(js)
        assert await asyncio.to_thread(process.stdout.readline) == "called True\n"
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)
        process.stdout.close()
    assert process.returncode == -signal.SIGKILL
    assert [(claim.by, claim.run_id) for claim in await claims(js)] == [("pod-1", "r1")]
    called: list[Handoff] = []
    desk = mw.agent("desk", version="1", fallback=called.append)
    with pytest.raises(Halted):
        async with desk.run(input="x", run_id="r1") as run:
            await eventually(lambda: run.halted)
            run.check()
    assert called == []


async def test_a_process_that_ends_in_order_hands_its_halted_runs_to_the_router(
    nats_server: NatsServer, js: JetStreamContext, tmp_path: Path
) -> None:
    await apply(js, "desk")
    async with midwatch.connect(nats_server.url, home=tmp_path / "agent") as mw:
        entered = asyncio.Event()

        async def never_done(handoff: Handoff) -> None:
            entered.set()
            await asyncio.Event().wait()

        async def serve() -> None:
            async with mw.agent("desk", version="1", fallback=never_done).run(input="x"):
                await asyncio.Event().wait()

        task = asyncio.create_task(serve())
        await halt(js)
        await asyncio.wait_for(entered.wait(), 20)
    events = [(event.event, getattr(event.data, "own", None)) for event in await stored(js)]
    assert events == [("started", None), ("handed_off", True), ("handed_off", False), ("finished", None)]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
