"""Who sees to a halted run: one claim, one fallback, or a case for others; never two, never none."""

import asyncio
import gc
from collections.abc import AsyncIterator
from concurrent.futures import Future
from typing import Any

import pytest

from halting import to_human
from midwatch import Halted, Handoff, testing
from midwatch.contracts.runs import HandedOff, Mode


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


async def halted(mw: testing.InMemory, fallback: Any = None, **options: Any) -> Any:
    """A run of `desk` that is halted at its first call."""
    async with mw.agent("desk", version="1", fallback=fallback).run(input="x", run_id="r1", **options) as run:
        mw.halt("desk", reason="too many refunds", by="eva")
        await run.model(str)
    return run.result


async def test_the_programs_own_fallback_takes_the_case_and_says_so(mw: testing.InMemory) -> None:
    handoffs: list[Handoff] = []
    await halted(mw, handoffs.append)
    (handoff,), (case,) = handoffs, cases(mw)
    assert handoff.sole
    assert (case.own, case.key, case.epoch, case.to) == (True, "agent.desk", handoff.epoch, "agent:desk-2")
    assert [event.event for event in mw.events] == ["started", "handed_off", "finished"]
    assert ends(mw) == [("fell_back", None)]


@pytest.mark.parametrize(("named", "to"), [(None, "agent:desk-2"), ("human", "human")])
async def test_a_run_without_a_fallback_leaves_its_case_to_the_one_that_the_halt_or_the_card_names(
    mw: testing.InMemory, named: str | None, to: str
) -> None:
    with pytest.raises(Halted):
        async with mw.agent("desk", version="1").run(input="x") as run:
            epoch = mw.halt("desk", reason="too many refunds", fallback=named)
            run.check()
    (case,) = cases(mw)
    assert (case.own, case.key, case.epoch, case.to, case.reason) == (
        False, "agent.desk", epoch, to, "too many refunds",
    )  # fmt: skip
    assert [event.event for event in mw.events] == ["started", "handed_off", "finished"]


async def test_the_fallback_is_not_called_where_somebody_else_has_the_case(mw: testing.InMemory) -> None:
    mw.take_case("desk", "r1")
    called: list[Handoff] = []
    with pytest.raises(Halted, match="too many refunds"):
        await halted(mw, called.append)
    assert called == cases(mw) == []
    ((resolution, error),) = ends(mw)
    assert resolution == "halted"
    assert error == "somebody else has its case: kill-switch, or another process with a run of this name"


@pytest.mark.parametrize("mode", ["eval", "replay", "shadow"])
async def test_nobody_waits_for_a_run_that_is_not_live(mw: testing.InMemory, mode: Mode) -> None:
    called: list[Handoff] = []
    await halted(mw, called.append, mode=mode)
    assert called == cases(mw) == []
    assert ends(mw) == [("halted", None)]


async def test_a_drill_falls_back_as_a_live_run_does(mw: testing.InMemory) -> None:
    assert await halted(mw, to_human, mode="drill") == "a person, because too many refunds"


async def test_a_run_that_handed_off_by_itself_still_leaves_one_case_when_it_is_halted(mw: testing.InMemory) -> None:
    with pytest.raises(Halted):
        async with mw.agent("desk", version="1").run(input="x") as run:
            run.hand_off("a lawyer was mentioned", to="human")
            mw.halt("desk")
            run.check()
    assert [(case.to, case.own) for case in cases(mw)] == [("agent:desk-2", False)]
    assert [event.event for event in mw.events] == ["started", "handed_off", "handed_off", "finished"]


async def test_a_run_outside_of_a_halt_leaves_no_case(mw: testing.InMemory) -> None:
    desk = mw.agent("desk", version="1", fallback=to_human)
    async with desk.run(input="x") as run:
        run.hand_off("a lawyer was mentioned")
    async with desk.run(input="x"):
        pass
    assert cases(mw) == []
    assert [resolution for resolution, _ in ends(mw)] == ["handed_off", "abandoned"]


async def test_a_fallback_that_fails_keeps_the_claim_by_which_its_case_is_found(mw: testing.InMemory) -> None:
    def fails(handoff: Handoff) -> None:
        raise ValueError("no such queue")

    with pytest.raises(ValueError, match="no such queue"):
        await halted(mw, fails)
    assert [case.own for case in cases(mw)] == [True]
    assert ends(mw) == [("halted", "the fallback failed: ValueError('no such queue')")]


@pytest.fixture
def silent(mw: testing.InMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that answers no claim."""
    monkeypatch.setattr(mw._server, "claim", lambda *_: Future())
    monkeypatch.setattr("midwatch.cases.CLAIM_WITHIN", 0.05)


@pytest.mark.usefixtures("silent")
async def test_where_the_server_does_not_answer_the_fallback_is_told_that_it_may_not_be_alone(
    mw: testing.InMemory,
) -> None:
    handoffs: list[Handoff] = []
    await halted(mw, handoffs.append)
    assert [handoff.sole for handoff in handoffs] == [False]
    assert [case.own for case in cases(mw)] == [True]
    assert ends(mw) == [("fell_back", None)]


@pytest.mark.usefixtures("silent")
async def test_a_fallback_that_fails_unclaimed_leaves_the_case_to_the_router(mw: testing.InMemory) -> None:
    def fails(handoff: Handoff) -> None:
        raise ValueError("no such queue")

    with pytest.raises(ValueError, match="no such queue"):
        await halted(mw, fails)
    assert [case.own for case in cases(mw)] == [True, False]


async def test_a_cancellation_from_outside_leaves_the_case_of_a_halted_run_to_the_router(mw: testing.InMemory) -> None:
    entered = asyncio.Event()

    async def serve() -> None:
        async with mw.agent("desk", version="1", fallback=to_human).run(input="x"):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(serve())
    await entered.wait()
    task.cancel()
    mw.halt("desk")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [case.own for case in cases(mw)] == [False]
    assert [resolution for resolution, _ in ends(mw)] == ["halted"]


async def test_a_cancellation_while_the_claim_is_asked_for_leaves_the_case_to_the_router(
    mw: testing.InMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    def claim(*_: Any) -> "Future[bool | None]":
        asked.set()
        return Future()

    monkeypatch.setattr(mw._server, "claim", claim)
    task = asyncio.create_task(halted(mw, to_human))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [case.own for case in cases(mw)] == [False]
    assert ends(mw) == [("halted", "the fallback was not called: CancelledError()")]


UNDONE = ("halted", "its process ended, or dropped it, before it was seen to")


async def test_presence_lists_a_run_until_it_is_known_who_has_its_case(
    mw: testing.InMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer: Future[bool | None] = Future()
    asked = asyncio.Event()
    moving: list[bool] = []

    def claim(*_: Any) -> "Future[bool | None]":
        asked.set()
        return answer

    async def serve() -> None:
        desk = mw.agent("desk", version="1", fallback=lambda handoff: moving.append(run.moving))
        async with desk.run(input="x") as run:
            mw.halt("desk")
            moving.append(run.moving)
            run.check()

    monkeypatch.setattr(mw._server, "claim", claim)
    task = asyncio.create_task(serve())
    await asked.wait()
    (run,) = mw._server.follow("desk", "1").live
    moving.append(run.moving)
    answer.set_result(True)
    await task
    assert moving == [True, True, False]


async def test_a_process_that_ends_while_the_fallback_works_leaves_the_case_to_the_router() -> None:
    async with testing.midwatch() as mw:
        entered = asyncio.Event()

        async def never_done(handoff: Handoff) -> None:
            entered.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(halted(mw, never_done))
        await entered.wait()
    assert [case.own for case in cases(mw)] == [True, False]
    assert ends(mw) == [UNDONE]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ends(mw) == [UNDONE]


async def test_a_process_that_ends_while_its_agent_is_halted_leaves_the_cases_of_its_runs() -> None:
    async with testing.midwatch() as mw:
        run = mw.agent("desk", version="1", fallback=to_human).run(input="x")
        await run.__aenter__()
        mw.halt("desk")
    assert [case.own for case in cases(mw)] == [False]
    assert ends(mw) == [UNDONE]


def test_a_run_that_is_dropped_while_halted_leaves_its_case() -> None:
    with testing.midwatch() as mw:
        run = mw.agent("desk", version="1", fallback=to_human).run(input="x")
        run.__enter__()
        mw.halt("desk")
        del run
        gc.collect()
        assert [case.own for case in cases(mw)] == [False]
        assert ends(mw) == [UNDONE]


def test_threads_claim_before_they_fall_back_too() -> None:
    handoffs: list[Handoff] = []
    with testing.midwatch() as mw:
        desk = mw.agent("desk", version="1", fallback=handoffs.append)
        mw.halt("desk")
        with desk.run(input="x", run_id="r1") as run:
            run.check()
        with pytest.raises(Halted), desk.run(input="x", run_id="r1") as again:
            again.check()
    assert [handoff.sole for handoff in handoffs] == [True]
    assert [case.own for case in cases(mw)] == [True]
    assert [resolution for resolution, _ in ends(mw)] == ["fell_back", "halted"]


def test_a_thread_waits_no_longer_than_the_limit_for_its_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("midwatch.cases.CLAIM_WITHIN", 0.05)
    handoffs: list[Handoff] = []
    with testing.midwatch() as mw:
        monkeypatch.setattr(mw._server, "claim", lambda *_: Future())
        desk = mw.agent("desk", version="1", fallback=handoffs.append)
        mw.halt("desk")
        with desk.run(input="x") as run:
            run.check()
    assert [handoff.sole for handoff in handoffs] == [False]
