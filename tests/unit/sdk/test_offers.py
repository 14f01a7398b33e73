"""An agent that takes the cases of another: each once, in a run of its own."""

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from typing import Any

import pytest

from helpers import eventually
from midwatch import Case, testing
from midwatch.contracts.runs import HandedOff


@pytest.fixture
async def mw() -> AsyncIterator[testing.InMemory]:
    cards = [testing.card("desk", fallback="agent:desk-2"), testing.card("desk-2")]
    async with testing.midwatch(cards) as mw:
        yield mw


def cases(mw: testing.Controls) -> list[HandedOff]:
    """What was handed off because of a halt."""
    return [event.data for event in mw.events if event.event == "handed_off" and event.data.key]  # type: ignore[misc, attr-defined]


def ends(mw: testing.Controls) -> list[tuple[str, str | None]]:
    return [(event.data.resolution, event.data.error) for event in mw.events if event.event == "finished"]  # type: ignore[attr-defined]


async def test_an_offered_case_is_handled_in_a_run_of_its_own(mw: testing.InMemory) -> None:
    simple = mw.agent("desk-2", version="1")
    seen: list[Case] = []

    @simple.takes
    async def answer(case: Case, run: Any) -> str:
        seen.append(case)
        return "We look into it."

    offered = mw.offer("desk-2", agent="desk", run_id="r1", ticket="T-1", input="Where?", events=[{"event": "started"}])
    await eventually(lambda: ends(mw))
    (case,) = seen
    assert (case.case_id, case.agent, case.run_id, case.ticket, case.input) == (offered, "desk", "r1", "T-1", "Where?")
    assert (case.events, case.reason, case.chain, case.doubt) == ([{"event": "started"}], "halted", (), "")
    started, finished = (event.data for event in mw.events)
    assert (started.agent, started.ticket, started.input, started.labels) == (
        "desk-2", "T-1", "Where?", {"midwatch.case": offered},
    )  # fmt: skip
    assert (finished.resolution, finished.output) == ("resolved", "We look into it.")
    assert mw.accepted == [offered]


async def test_an_offer_that_is_heard_twice_is_handled_once(mw: testing.InMemory) -> None:
    mw.agent("desk-2", version="1").takes(lambda case, run: "done")
    offered = {mw.offer("desk-2", run_id=run_id, input="x") for run_id in ("r1", "r1", "r2", "r1")}
    await eventually(lambda: len(ends(mw)) == 2)
    assert len(offered) == 2
    assert sorted(mw.accepted) == sorted(offered)
    assert [resolution for resolution, _ in ends(mw)] == ["resolved", "resolved"]


async def test_a_handler_that_fails_leaves_its_run_failed_and_takes_the_next_case(
    mw: testing.InMemory, caplog: pytest.LogCaptureFixture
) -> None:
    @mw.agent("desk-2", version="1").takes
    async def answer(case: Case, run: Any) -> str:
        if case.run_id == "bad":
            raise ValueError("no such order")
        return "done"

    mw.offer("desk-2", run_id="bad", input="x")
    mw.offer("desk-2", run_id="good", input="x")
    await eventually(lambda: len(ends(mw)) == 2)
    assert sorted(ends(mw)) == [("failed", "ValueError: no such order"), ("resolved", None)]
    assert "failed in its handler" in caplog.text


async def test_a_taker_that_is_halted_meanwhile_leaves_a_case_of_its_own(mw: testing.InMemory) -> None:
    @mw.agent("desk-2", version="1").takes
    async def answer(case: Case, run: Any) -> None:
        mw.halt("desk-2")
        await run.model(str)

    mw.offer("desk-2", input="x")
    await eventually(lambda: ends(mw))
    assert [(case.agent, case.own, case.to) for case in cases(mw)] == [("desk-2", False, "human")]
    assert [resolution for resolution, _ in ends(mw)] == ["halted"]


async def judged() -> None:
    """Lets what was offered be looked at."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_taker_that_may_not_act_leaves_the_offer_to_others(mw: testing.InMemory) -> None:
    mw.agent("desk-2", version="1").takes(lambda case, run: "done")
    mw.halt("desk-2")
    mw.offer("desk-2", run_id="while-halted", input="x")
    await judged()
    mw.resume("desk-2")
    for stage in ("shadow", "canary"):
        mw.route("desk-2", stage, traffic=0)
        mw.offer("desk-2", run_id=f"in-{stage}", input="x")
        await judged()
    mw.route("desk-2", "full")
    mw.offer("desk-2", run_id="too-late", input="x", within=-1)
    acted = mw.offer("desk-2", run_id="may-act", input="x")
    await eventually(lambda: ends(mw))
    assert mw.accepted == [acted]


async def test_a_case_that_was_ours_too_late_to_begin_is_left_to_people(
    mw: testing.InMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Future[bool | None]] = []

    def claim(*_: Any) -> "Future[bool | None]":
        answers.append(Future())
        return answers[-1]

    monkeypatch.setattr(mw._server, "claim", claim)
    mw.agent("desk-2", version="1").takes(lambda case, run: "done")
    mw.offer("desk-2", run_id="r1", input="x")
    await eventually(lambda: answers)
    monkeypatch.setattr("midwatch.offers.BEGIN_WITHIN", 0.0)
    answers[0].set_result(True)
    await judged()
    assert mw.accepted == mw.events == []


async def test_a_case_that_the_router_took_back_is_not_handled(mw: testing.InMemory) -> None:
    mw.agent("desk-2", version="1").takes(lambda case, run: "done")
    mw.take_case("desk", "r1", offered_to="desk-2")
    mw.offer("desk-2", agent="desk", run_id="r1", input="x")
    kept = mw.offer("desk-2", agent="desk", run_id="r2", input="x")
    await eventually(lambda: ends(mw))
    assert mw.accepted == [kept]


def test_in_threads_each_case_has_a_thread_of_its_own() -> None:
    together = threading.Barrier(2, timeout=5)
    with testing.midwatch() as mw:
        simple = mw.agent("desk-2", version="1")
        done = threading.Semaphore(0)

        @simple.takes
        def answer(case: Case, run: Any) -> str:
            together.wait()
            run.finish(f"answered {case.run_id}")
            done.release()
            return "not this"

        offered = [mw.offer("desk-2", run_id=run_id, input="x") for run_id in ("r1", "r2")]
        assert done.acquire(timeout=5)
        assert done.acquire(timeout=5)
        assert sorted(mw.accepted) == sorted(offered)
        outputs = [event.data.output for event in mw.events if event.event == "finished"]  # type: ignore[attr-defined]
        assert sorted(outputs) == ["answered r1", "answered r2"]
