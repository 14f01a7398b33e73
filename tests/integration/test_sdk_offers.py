"""Cases that are offered to an agent, on a real server: one instance takes each, whatever is lost on the way."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from nats.js import JetStreamContext

import midwatch
from case_helpers import apply, claims, finished, lose_first_answer, stored
from helpers import eventually, hears_offers
from midwatch import Case, Midwatch
from midwatch.contracts import codec, subjects
from midwatch.contracts.governance import CaseOffered, CaseOpened
from midwatch.runtime import topology
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.settings import Settings


@pytest.fixture
async def mw(nats_server: NatsServer, js: JetStreamContext, tmp_path: Path) -> AsyncIterator[Midwatch]:
    for agent in ("desk", "desk-2"):
        await apply(js, agent)
    async with midwatch.connect(nats_server.url, home=tmp_path / "agent", instance="pod-7") as mw:
        yield mw


async def offer(js: JetStreamContext, run_id: str, within: float = 20.0) -> None:
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
