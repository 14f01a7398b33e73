"""What a run records, and that recording never gets in an agent's way."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from midwatch import MidwatchError, NoCard, testing
from midwatch.contracts.runs import Usage
from midwatch.errors import BadAgentName, NotConnected


@pytest.fixture
async def mw() -> AsyncIterator[testing.InMemory]:
    kinds = testing.tools(look_up="read", refund="write")
    async with testing.midwatch([testing.card("desk", tools=kinds, fallback="agent:desk-2")]) as mw:
        yield mw


def last(mw: testing.InMemory, event: str) -> Any:
    return [found.data for found in mw.events if found.event == event][-1]


def answer(model: str, messages: list[Any]) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1", "model": f"{model}-2026", "usage": {"prompt_tokens": 12, "completion_tokens": 3},
        "choices": [{"message": {"content": f"{len(messages)} messages"}, "finish_reason": "stop"}],
    }  # fmt: skip


async def test_the_ten_line_agent(mw: testing.InMemory) -> None:
    async def look_up(order_id: str) -> dict[str, str]:
        return {"id": order_id}

    desk = mw.agent("desk", version="2026-11-22", fallback=print)
    async with desk.run(ticket="T-1042", input="Where is my refund?") as run:
        reply = await run.model(answer, model="gpt-4.1", messages=[1, 2])
        order = await run.tool("look_up", look_up, order_id="A-1001")
        await run.finish("Your refund is on its way.", resolution="resolved")
    assert (reply["id"], order) == ("chatcmpl-1", {"id": "A-1001"})
    assert [event.event for event in mw.events] == ["started", "model_called", "tool_called", "finished"]
    assert [event.data.seq for event in mw.events] == [0, 1, 2, 3]
    common = {(e.agent, e.data.run_id, e.data.version, e.data.ticket, e.data.mode) for e in mw.events}
    assert common == {("desk", run.run_id, "2026-11-22", "T-1042", "live")}
    started, model, tool, finished = (event.data for event in mw.events)
    assert started.input == "Where is my refund?"
    assert (model.model, model.usage, model.finish_reason, model.output, model.response_id) == (
        "gpt-4.1-2026", Usage(input_tokens=12, output_tokens=3), "stop", "2 messages", "chatcmpl-1",
    )  # fmt: skip
    assert model.latency_ms >= 0
    assert (tool.tool, tool.kind, tool.arguments, tool.result) == ("look_up", "read", {"order_id": "A-1001"}, order)
    assert (finished.resolution, finished.output) == ("resolved", "Your refund is on its way.")
    assert mw.events[0].source == f"/agents/desk/{mw.instance}"


async def test_a_run_that_neither_finished_nor_handed_off_is_abandoned(mw: testing.InMemory) -> None:
    async with mw.agent("desk", version="1").run(input="x"):
        pass
    assert last(mw, "finished").resolution == "abandoned"


async def test_a_run_that_handed_off_ends_handed_off_by_the_cards_word(mw: testing.InMemory) -> None:
    async with mw.agent("desk", version="1").run(input="x") as run:
        await run.hand_off("a lawyer was mentioned", "wants 900 dollars", context={"order": 7})
    handed_off = last(mw, "handed_off")
    assert (handed_off.to, handed_off.reason, handed_off.context) == (
        "agent:desk-2", "a lawyer was mentioned", {"order": 7},
    )  # fmt: skip
    assert last(mw, "finished").resolution == "handed_off"


async def test_a_run_left_by_an_exception_failed_and_the_exception_goes_on(mw: testing.InMemory) -> None:
    with pytest.raises(ValueError, match="no such order"):
        async with mw.agent("desk", version="1").run(input="x"):
            raise ValueError("no such order")
    assert (last(mw, "finished").resolution, last(mw, "finished").error) == ("failed", "ValueError: no such order")


async def test_the_first_finish_counts(mw: testing.InMemory) -> None:
    async with mw.agent("desk", version="1").run(input="x") as run:
        run.finish("first")
        run.finish("second", resolution="failed")
    assert [e.data.output for e in mw.events if e.event == "finished"] == ["first"]


async def test_an_unknown_resolution_is_recorded_as_failed_with_the_mend(mw: testing.InMemory) -> None:
    async with mw.agent("desk", version="1").run(input="x") as run:
        run.finish("x", resolution="done")  # type: ignore[arg-type]
    assert last(mw, "finished").resolution == "failed"
    assert last(mw, "finished").error.startswith("'done' is no resolution: use one of abandoned, failed")


async def test_a_dropped_run_is_abandoned(mw: testing.InMemory) -> None:
    run = mw.agent("desk", version="1").run(input="x")
    await run.__aenter__()
    del run
    gc.collect()
    assert last(mw, "finished").resolution == "abandoned"


async def test_a_coroutine_that_is_thrown_away_leaves_an_abandoned_run(mw: testing.InMemory) -> None:
    async def body() -> None:
        async with mw.agent("desk", version="1").run(input="x"):
            await asyncio.Event().wait()

    coroutine = body()
    coroutine.send(None)
    coroutine.close()
    assert last(mw, "finished").resolution == "abandoned"


async def test_runs_in_flight_when_the_connection_closes_are_abandoned() -> None:
    async with testing.midwatch() as mw:
        run = mw.agent("desk", version="1").run(input="x")
        await run.__aenter__()
    assert last(mw, "finished").resolution == "abandoned"


async def test_a_failing_tool_is_recorded_and_its_error_goes_on(mw: testing.InMemory) -> None:
    def refund(amount: int) -> None:
        raise RuntimeError("the bank is closed")

    async with mw.agent("desk", version="1").run(input="x") as run:
        with pytest.raises(RuntimeError, match="bank"):
            await run.tool("refund", refund, 20)
        run.finish()
    tool = last(mw, "tool_called")
    assert (tool.kind, tool.arguments, tool.error) == ("write", {"amount": 20}, "RuntimeError: the bank is closed")


async def test_a_failing_model_call_is_recorded_with_the_model_that_was_asked(mw: testing.InMemory) -> None:
    def down(model: str) -> None:
        raise ConnectionError("overloaded")

    async with mw.agent("desk", version="1").run(input="x") as run:
        with pytest.raises(ConnectionError):
            await run.model(down, model="gpt-4.1")
        run.finish()
    model = last(mw, "model_called")
    assert (model.model, model.error, model.usage) == ("gpt-4.1", "ConnectionError: overloaded", None)


async def test_calls_made_elsewhere_are_recorded(mw: testing.InMemory) -> None:
    async with mw.agent("desk", version="1").run(input="x") as run:
        await run.record_model_call(
            "m", provider="openai", usage={"input_tokens": 5, "output_tokens": 1}, cost_usd=0.1, latency_ms=7,
        )  # fmt: skip
        await run.record_tool_call("refund", arguments={"amount": 3}, result="ok", call_id="c1", undo="void")
        await run.say("user", "thanks")
        run.finish()
    model, tool = last(mw, "model_called"), last(mw, "tool_called")
    assert (model.provider, model.usage.input_tokens, model.cost_usd) == ("openai", 5, "0.1")
    assert (tool.kind, tool.call_id, tool.undo) == ("write", "c1", "void")
    assert (last(mw, "said").by, last(mw, "said").text) == ("customer", "thanks")


async def test_a_negative_cost_is_left_out_not_passed_on(mw: testing.InMemory) -> None:
    async with mw.agent("desk", version="1").run(input="x") as run:
        run.record_model_call("m", cost_usd=-1)
        run.record_model_call("m", cost_usd="a lot")
        run.finish()
    assert [e.data.cost_usd for e in mw.events if e.event == "model_called"] == [None, None]


async def test_a_replay_gives_ids_times_and_mode_and_lets_the_switch_alone(mw: testing.InMemory) -> None:
    began = datetime(2026, 11, 22, 4, tzinfo=timezone(timedelta(hours=2)))
    mw.halt()
    old = mw.agent("no-card", version="1", obey=False)
    async with old.run(input="x", run_id="r1", mode="replay", ids=lambda seq: f"r1-{seq}", at=began) as run:
        run.say("customer", "hello", at=began.replace(tzinfo=None))
        run.check("any")
        run.finish(at=began)
    assert [event.id for event in mw.events] == ["r1-0", "r1-1", "r1-2"]
    assert [event.time for event in mw.events] == [
        datetime(2026, 11, 22, 2, tzinfo=UTC), datetime(2026, 11, 22, 4, tzinfo=UTC),
        datetime(2026, 11, 22, 2, tzinfo=UTC),
    ]  # fmt: skip
    assert {event.data.mode for event in mw.events} == {"replay"}


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class Model:
    def model_dump(self, mode: str) -> dict[str, int]:
        return {"size": 3}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Hostile(), "<Hostile>"),
        (Model(), {"size": 3}),
        ({("a", 1): {2}}, {"('a', 1)": [2]}),
        ({"bad \ud800": "text \udfff", "good": 1}, {"bad ?": "text ?", "good": 1}),
        ([float("nan"), 10**30], [None, 10**30]),
        (b"\x00\xff", "AP8="),
    ],
)
async def test_a_result_that_json_cannot_say_is_described(mw: testing.InMemory, value: Any, expected: Any) -> None:
    async with mw.agent("desk", version="1").run(input="x") as run:
        assert await run.tool("look_up", lambda: value) is value
        run.finish()
    assert last(mw, "tool_called").result == expected


async def test_a_value_that_holds_itself_is_recorded(mw: testing.InMemory) -> None:
    loop: dict[str, Any] = {"name": "loop"}
    loop["self"] = loop
    async with mw.agent("desk", version="1").run(input="x") as run:
        run.record_tool_call("t", result=loop)
        run.finish()
    assert last(mw, "tool_called").result == {"name": "loop", "self": "…"}


async def test_wrong_types_are_made_right_and_never_raise(mw: testing.InMemory) -> None:
    odd: Any = mw.agent("desk", version=7)  # type: ignore[arg-type]
    async with odd.run(input={"a": 1}, ticket=1042, customer=5, labels={"n": 1}, run_id=12) as run:
        run.say("robot", None)
        run.hand_off(5)
        run.record_tool_call(3, kind="strange", latency_ms="fast")
        run.record_model_call(None, usage="many")
        run.finish(error=3)
    started = mw.events[0].data
    assert (started.version, started.ticket, started.labels, started.run_id) == ("7", "1042", {"n": "1"}, "12")
    assert started.input == '{"a":1}'
    assert [event.event for event in mw.events][1:] == [
        "said", "handed_off", "tool_called", "model_called", "finished",
    ]  # fmt: skip


async def test_a_publisher_that_fails_does_not_reach_the_agent(
    mw: testing.InMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mw.agent("desk", version="1").run(input="x") as run:
        monkeypatch.setattr(mw._server, "append", None)
        run.say("agent", "still here")


async def test_messages_are_kept_as_messages(mw: testing.InMemory) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "tool_calls": [{"name": "look_up"}]}]
    async with mw.agent("desk", version="1").run(input=messages) as run:
        run.finish()
    first, second = mw.events[0].data.input
    assert (first.role, first.content) == ("user", "hi")
    assert (second.role, second.content) == ("assistant", {"tool_calls": [{"name": "look_up"}]})


async def test_events_of_many_threads_are_numbered_without_gap(mw: testing.InMemory) -> None:
    async with mw.agent("desk", version="1").run(input="x") as run:
        threads = [threading.Thread(target=lambda: [run.say("agent", "x") for _ in range(200)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        run.finish()
    assert [event.data.seq for event in mw.events] == list(range(802))


async def test_no_card_no_run_and_the_error_names_the_mend(mw: testing.InMemory) -> None:
    with pytest.raises(NoCard, match="midwatch card new stranger"):
        async with mw.agent("stranger", version="1").run(input="x"):
            raise AssertionError("the run began")
    assert mw.events == []


@pytest.mark.parametrize("name", ["", "Desk", "a.b", "a b", "-a", "a" * 64, "a>"])
async def test_a_name_that_is_no_token_of_a_subject_is_refused(mw: testing.InMemory, name: str) -> None:
    with pytest.raises(BadAgentName):
        mw.agent(name, version="1")


async def test_a_run_must_be_entered(mw: testing.InMemory) -> None:
    run = mw.agent("desk", version="1").run(input="x")
    with pytest.raises(MidwatchError, match="async with"):
        await run.model(answer, model="m", messages=[])


async def test_no_agent_after_the_connection_closed() -> None:
    async with testing.midwatch() as mw:
        pass
    with pytest.raises(NotConnected):
        mw.agent("desk", version="1")


async def test_handles_does_all_of_a_run(mw: testing.InMemory) -> None:
    desk = mw.agent("desk", version="1", fallback=lambda handoff: "a person")

    @desk.handles
    async def reply(ticket: Any, run: Any) -> str:
        await run.tool("look_up", lambda: 1)
        return f"about {ticket['input']}"

    @desk.handles
    def short(ticket: str) -> str:
        return ticket.upper()

    assert await reply({"id": 7, "input": "a refund"}, session="s1") == "about a refund"
    assert (mw.events[0].data.ticket, mw.events[0].data.session) == ("7", "s1")
    assert (last(mw, "finished").resolution, last(mw, "finished").output) == ("resolved", "about a refund")
    assert await short("hello") == "HELLO"
    mw.halt("desk")
    assert await reply({"id": 7, "input": "a refund"}) == "a person"
