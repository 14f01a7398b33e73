"""The blocking twin: the same runs, from threads."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from midwatch import Halted, NoCard, testing


@pytest.fixture
def mw() -> Iterator[testing.BlockingInMemory]:
    tools = testing.tools(look_up="read", refund="write")
    with testing.midwatch([testing.card("desk", tools=tools)]) as mw:
        yield mw


def resolutions(mw: testing.BlockingInMemory) -> list[str]:
    return [event.data.resolution for event in mw.events if event.event == "finished"]


def test_the_ten_line_agent_in_threads(mw: testing.BlockingInMemory) -> None:
    desk = mw.agent("desk", version="1", fallback=print)
    with desk.run(ticket="T-1042", input="Where is my refund?") as run:
        reply = run.model(lambda model: {"model": model, "usage": {"input_tokens": 4}}, model="m")
        order = run.tool("look_up", lambda order_id: {"id": order_id}, "A-1001")
        run.finish("Your refund is on its way.", resolution="resolved")
    assert (reply["model"], order) == ("m", {"id": "A-1001"})
    assert [event.event for event in mw.events] == ["started", "model_called", "tool_called", "finished"]
    assert mw.events[2].data.arguments == {"order_id": "A-1001"}


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_halt_comes_before_the_next_call_and_the_fallback_answers(
    mw: testing.BlockingInMemory, asynchronous: bool
) -> None:
    async def later(handoff: Any) -> str:
        return f"a person, because {handoff.reason}"

    def now(handoff: Any) -> str:
        return f"a person, because {handoff.reason}"

    calls: list[str] = []
    with mw.agent("desk", version="1", fallback=later if asynchronous else now).run(input="x") as run:
        run.model(calls.append, "first")
        mw.halt("desk", reason="drill")
        run.model(calls.append, "second")
    assert calls == ["first"]
    assert run.result == "a person, because drill"
    assert resolutions(mw) == ["fell_back"]


def test_without_a_fallback_halted_reaches_the_caller(mw: testing.BlockingInMemory) -> None:
    with pytest.raises(Halted) as caught, mw.agent("desk", version="1").run(input="x", run_id="r1") as run:
        mw.halt("desk", run="r1")
        run.tool("refund", print)
    assert caught.value.key == "runs.desk"
    assert resolutions(mw) == ["halted"]


def test_a_halt_during_a_write_lets_it_end_and_stops_the_next_call(mw: testing.BlockingInMemory) -> None:
    with mw.agent("desk", version="1", fallback=str).run(input="x") as run:

        def refund() -> str:
            mw.halt("desk")
            assert run.draining
            return "refunded"

        assert run.tool("refund", refund) == "refunded"
        run.tool("refund", refund)
    assert [event.event for event in mw.events] == ["started", "tool_called", "handed_off", "finished"]


def test_except_exception_does_not_swallow_a_halt(mw: testing.BlockingInMemory) -> None:
    with mw.agent("desk", version="1", fallback=lambda handoff: "a person").run(input="x") as run:
        mw.halt("desk")
        for _ in range(3):
            try:
                run.model(print)
            except Exception as error:
                raise AssertionError("swallowed") from error
    assert run.result == "a person"


def test_an_exception_after_a_swallowed_halt_still_falls_back(mw: testing.BlockingInMemory) -> None:
    with mw.agent("desk", version="1", fallback=lambda handoff: "a person").run(input="x") as run:
        mw.halt("desk")
        try:
            run.check()
        except BaseException as error:
            raise RuntimeError("wrapped") from error
    assert run.result == "a person"


def test_a_failing_fallback_is_recorded_and_its_error_goes_on(mw: testing.BlockingInMemory) -> None:
    def broken(handoff: Any) -> None:
        raise ConnectionError("the desk is closed")

    with pytest.raises(ConnectionError), mw.agent("desk", version="1", fallback=broken).run(input="x") as run:
        mw.halt("desk")
        run.check()
    assert resolutions(mw) == ["halted"]
    assert "the desk is closed" in mw.events[-1].data.error


def test_the_handoff_holds_the_whole_context(mw: testing.BlockingInMemory) -> None:
    seen: list[Any] = []
    with mw.agent("desk", version="1", fallback=seen.append).run(input="Where?", ticket="T-1", run_id="r1") as run:
        run.tool("look_up", lambda: {"status": "paid"})
        epoch = mw.halt("desk", reason="too many refunds", by="eva", fallback="agent:desk-2")
        run.check()
    (handoff,) = seen
    assert (handoff.agent, handoff.run_id, handoff.ticket, handoff.input) == ("desk", "r1", "T-1", "Where?")
    assert (handoff.reason, handoff.by, handoff.key, handoff.epoch) == ("too many refunds", "eva", "agent.desk", epoch)
    assert handoff.to == "agent:desk-2"
    assert [event["event"] for event in handoff.events] == ["started", "tool_called"]
    assert handoff.events[1]["result"] == {"status": "paid"}
    handed_off, finished = (event.data for event in mw.events[-2:])
    assert (handed_off.to, handed_off.reason) == ("agent:desk-2", "too many refunds")
    assert (finished.resolution, finished.epoch, finished.halted_by) == ("fell_back", epoch, "eva")


def test_a_run_may_be_used_from_several_threads(mw: testing.BlockingInMemory) -> None:
    with mw.agent("desk", version="1").run(input="x") as run, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: run.tool("look_up", lambda: n), range(50)))
        run.finish()
    assert found == list(range(50))
    assert [event.data.seq for event in mw.events] == list(range(52))


def test_an_exception_ends_the_run_as_failed(mw: testing.BlockingInMemory) -> None:
    with pytest.raises(KeyError), mw.agent("desk", version="1").run(input="x"):
        raise KeyError("order")
    assert resolutions(mw) == ["failed"]


def test_no_card_no_run(mw: testing.BlockingInMemory) -> None:
    with pytest.raises(NoCard), mw.agent("stranger", version="1").run(input="x"):
        pass


def test_handles_does_all_of_a_run(mw: testing.BlockingInMemory) -> None:
    @mw.agent("desk", version="1", fallback=lambda handoff: "a person").handles
    def answer(ticket: str, run: Any) -> str:
        return str(run.tool("look_up", ticket.upper))

    assert answer("hello") == "HELLO"
    mw.halt()
    assert answer("hello") == "a person"
    assert resolutions(mw) == ["resolved", "fell_back"]


def test_a_long_run_keeps_its_first_and_its_newest_events_for_the_fallback(
    mw: testing.BlockingInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("midwatch.story.CONTEXT_LIMIT", 5_000)
    seen: list[Any] = []
    with mw.agent("desk", version="1", fallback=seen.append).run(input="Where?") as run:
        for number in range(10):
            run.say("agent", f"{number}" * 1_000)
        mw.halt("desk")
        run.check()
    (handoff,) = seen
    assert [event.get("text", "started")[0] for event in handoff.events] == ["s", "7", "8", "9"]
    assert handoff.events_left_out == 7
