"""Cases on a real server: each halted run has one taker, whatever is lost on the way."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats.aio.msg import Msg
from nats.js import JetStreamContext

import midwatch
from helpers import eventually, hears_offers
from midwatch import Case, Halted, Handoff, Midwatch, testing
from midwatch.cases import Claims
from midwatch.contracts import codec, control, subjects
from midwatch.contracts.codec import RunEvent
from midwatch.contracts.control import CaseClaim, SwitchRule
from midwatch.contracts.governance import CaseOffered, CaseOpened
from midwatch.runtime import topology
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.settings import Settings

RUNNING = b'{"state":"running"}'
HALTED = b'{"state":"halted","reason":"too many refunds","by":"eva"}'
LEASE = 1.0
RUNS = 200


async def apply(js: JetStreamContext, agent: str, lease: float = LEASE) -> None:
    card = control.encode(testing.card(agent, switch=SwitchRule(lease=lease)))
    await js.publish(subjects.key_subject(subjects.AGENTS, agent), card)
    await js.publish(subjects.key_subject(subjects.SWITCH, subjects.agent_key(agent)), RUNNING)


async def halt(js: JetStreamContext, agent: str = "desk") -> None:
    await js.publish(subjects.key_subject(subjects.SWITCH, subjects.agent_key(agent)), HALTED)


async def claims(js: JetStreamContext) -> list[CaseClaim]:
    """Every claim that the server took, oldest first."""
    bucket = subjects.key_stream(subjects.CASES)
    count = (await js.stream_info(bucket)).state.last_seq
    found = [await js.get_msg(bucket, seq) for seq in range(1, count + 1)]
    return [msgspec.json.decode(message.data or b"", type=CaseClaim) for message in found]


async def stored(js: JetStreamContext) -> list[RunEvent]:
    count = (await js.stream_info(subjects.RUNS)).state.last_seq
    found = [await js.get_msg(subjects.RUNS, seq) for seq in range(1, count + 1)]
    return [codec.decode_run(message.subject or "", message.data or b"") for message in found]


async def finished(js: JetStreamContext, count: int) -> list[Any]:
    """What runs said as they ended, once `count` of them have."""

    async def look() -> list[Any]:
        ends = [event.data for event in await stored(js) if event.event == "finished"]
        assert len(ends) == count
        return ends

    return await eventually(look, 10)


@pytest.fixture
async def mw(nats_server: NatsServer, js: JetStreamContext, tmp_path: Path) -> AsyncIterator[Midwatch]:
    for agent in ("desk", "desk-2"):
        await apply(js, agent)
    async with midwatch.connect(nats_server.url, home=tmp_path / "agent", instance="pod-7") as mw:
        yield mw


# Claims.


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
        await asyncio.wait_for(asyncio.Event().wait(), 3)
    assert [(handoff.key, handoff.sole) for handoff in handoffs] == [("agent.desk", False)]


def lose_first_answer(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The first answer to each claim never reaches us."""
    lost: list[bytes] = []
    heard = Claims._answered
    seen: set[str] = set()

    async def answered(self: Claims, msg: Msg) -> None:
        if msg.subject in seen:
            await heard(self, msg)
        else:
            seen.add(msg.subject)
            lost.append(msg.data)

    monkeypatch.setattr(Claims, "_answered", answered)
    return lost


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
        await asyncio.wait_for(entered.wait(), 5)
    events = [(event.event, getattr(event.data, "own", None)) for event in await stored(js)]
    assert events == [("started", None), ("handed_off", True), ("handed_off", False), ("finished", None)]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# Offers.


async def offer(js: JetStreamContext, run_id: str, within: float = 5.0) -> None:
    """What the router publishes."""
    case = CaseOpened(
        case_id=subjects.case_id("desk", run_id), agent="desk", run_id=run_id, to="agent:desk-2", reason="too many",
        opened_by="kill-switch", ticket="T-1", input="Where?", events=[{"event": "started"}], chain=["desk-0"],
        doubt="its program may have answered",
    )  # fmt: skip
    offered = CaseOffered(
        taker="desk-2", offer_key=subjects.offer_key("desk-2", "desk", run_id), within=within, case=case,
        until=datetime.now(UTC) + timedelta(seconds=within),
    )  # fmt: skip
    body = codec.encode(codec.envelope("case", "offered", offered, source="/services/kill-switch"))
    await js.publish(subjects.case("desk-2", "offered"), body)


async def accepted(js: JetStreamContext) -> list[Any]:
    """Every acceptance on the wire, in order."""
    count = (await js.stream_info(subjects.GOVERNANCE)).state.last_seq
    found = [await js.get_msg(subjects.GOVERNANCE, seq) for seq in range(1, count + 1)]
    said = [codec.decode(message.subject or "", message.data or b"") for message in found]
    return [envelope.data for envelope in said if envelope.type == "midwatch.case.accepted.v1"]


async def test_an_offered_case_is_accepted_on_the_wire_and_handled_in_a_run_of_its_own(
    mw: Midwatch, js: JetStreamContext
) -> None:
    seen: list[Case] = []

    @mw.agent("desk-2", version="1").takes
    async def answer(case: Case, run: midwatch.Run) -> str:
        seen.append(case)
        run.say("agent", "We look into it.")
        return "done"

    await hears_offers(mw, "desk-2")
    await offer(js, "r1")
    (end,) = await finished(js, 1)
    (case,), (claim,), (said,) = seen, await claims(js), await accepted(js)
    assert (case.ticket, case.input, case.reason, case.chain) == ("T-1", "Where?", "too many", ("desk-0",))
    assert (case.events, case.doubt) == ([{"event": "started"}], "its program may have answered")
    assert (claim.agent, claim.run_id, claim.by, claim.to) == ("desk", "r1", "pod-7", "agent:desk-2")
    assert (said.case_id, said.by) == (case.case_id, "pod-7")
    events = await stored(js)
    assert [event.event for event in events] == ["started", "said", "finished"]
    assert {(event.agent, event.data.ticket) for event in events} == {("desk-2", "T-1")}
    assert {event.data.labels["midwatch.case"] for event in events} == {case.case_id}
    assert (end.resolution, end.output) == ("resolved", "done")


async def test_of_two_instances_one_takes_each_case(
    mw: Midwatch, nats_server: NatsServer, js: JetStreamContext, tmp_path: Path
) -> None:
    taken: list[tuple[str, str]] = []
    async with midwatch.connect(nats_server.url, home=tmp_path / "second", instance="pod-8") as second:
        for one in (mw, second):
            one.agent("desk-2", version="1").takes(
                lambda case, run, name=one.instance: taken.append((name, case.run_id))
            )
            await hears_offers(one, "desk-2")
        cases = [f"r{number}" for number in range(30)]
        for run_id in cases:
            await offer(js, run_id)
        await finished(js, len(cases))
    assert sorted(run_id for _, run_id in taken) == sorted(cases)
    assert {name for name, _ in taken} == {"pod-7", "pod-8"}
    assert sorted((claim.by, claim.run_id) for claim in await claims(js)) == sorted(taken)


async def test_an_offer_that_is_said_twice_is_handled_once(mw: Midwatch, js: JetStreamContext) -> None:
    taken: list[str] = []
    mw.agent("desk-2", version="1").takes(lambda case, run: taken.append(case.run_id))
    await hears_offers(mw, "desk-2")
    for run_id in ("r1", "r1", "r2", "r1"):
        await offer(js, run_id)
    await finished(js, 2)
    assert sorted(taken) == ["r1", "r2"]
    assert len(await accepted(js)) == 2


async def test_an_acceptance_whose_answer_was_lost_is_found_out_and_handled_once(
    nats_server: NatsServer, js: JetStreamContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = lose_first_answer(monkeypatch)
    await apply(js, "desk-2")
    taken: list[str] = []
    async with midwatch.connect(nats_server.url, home=tmp_path / "agent") as mw:
        mw.agent("desk-2", version="1").takes(lambda case, run: taken.append(case.run_id))
        await hears_offers(mw, "desk-2")
        await offer(js, "r1", within=0.1)  # the limit is over before it is known whose the case is
        await finished(js, 1)
    assert lost
    assert taken == ["r1"]


async def test_an_offer_that_the_router_withdrew_is_left_alone(mw: Midwatch, js: JetStreamContext) -> None:
    taken: list[str] = []
    mw.agent("desk-2", version="1").takes(lambda case, run: taken.append(case.run_id))
    await hears_offers(mw, "desk-2")
    await js.publish(subjects.key_subject(subjects.CASES, subjects.offer_key("desk-2", "desk", "r1")), b"{}")
    await offer(js, "r1")
    await offer(js, "r2")
    await finished(js, 1)
    assert taken == ["r2"]
    assert [said.case_id for said in await accepted(js)] == [subjects.case_id("desk", "r2")]


async def test_offers_are_heard_again_on_a_new_connection(
    mw: Midwatch, nats_server: NatsServer, js: JetStreamContext
) -> None:
    taken: list[str] = []
    mw.agent("desk-2", version="1").takes(lambda case, run: taken.append(case.run_id))
    await hears_offers(mw, "desk-2")
    before = mw._engine._nc  # type: ignore[attr-defined]
    asyncio.run_coroutine_threadsafe(before.close(), mw._engine._loop)  # type: ignore[attr-defined, arg-type]
    await eventually(lambda: mw._engine._nc not in (None, before))  # type: ignore[attr-defined]
    await nats_server.restart()
    await topology.apply(js, Settings(nats_url=nats_server.url))
    await eventually(lambda: mw._engine._nc.is_connected)  # type: ignore[attr-defined]
    await hears_offers(mw, "desk-2")
    await offer(js, "r1")
    await finished(js, 1)
    assert taken == ["r1"]


async def test_in_threads_cases_are_taken_side_by_side(
    nats_server: NatsServer, js: JetStreamContext, tmp_path: Path
) -> None:
    await apply(js, "desk-2")
    words = [sys.executable, "-c", TAKER, nats_server.url, str(tmp_path / "taker")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert await asyncio.to_thread(process.stdout.readline) == "listening\n"
        await offer(js, "r1")
        await offer(js, "r2")
        ends = await finished(js, 2)
        await asyncio.to_thread(process.wait, 10)
    finally:
        process.kill()
        process.stdout.close()
    assert [end.resolution for end in ends] == ["resolved", "resolved"]
    assert process.returncode == 0


TAKER = """
import sys, threading, time, midwatch
together, done = threading.Barrier(3, timeout=10), threading.Barrier(3, timeout=10)
with midwatch.blocking.connect(sys.argv[1], home=sys.argv[2]) as mw:
    simple = mw.agent("desk-2", version="1")
    @simple.takes
    def answer(case, run):
        together.wait()
        run.finish("answered")
        done.wait()
    while mw._engine._nc is None or mw._engine.follow("desk-2", "1").lapsed:
        time.sleep(0.01)
    print("listening", flush=True)
    together.wait()
    done.wait()
"""
