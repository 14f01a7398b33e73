"""The SDK in a replay: agents run unchanged, publish nothing, and reach no tool."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

import midwatch
from eval_replay_helpers import case
from midwatch_services.evals import standin
from midwatch_services.evals.case import Recorded
from midwatch_services.evals.standin import BlockingStandIn, Book, CaseOver, StandIn, ToolFailed


@pytest.fixture
def book() -> Iterator[Book]:
    made = Book(case())
    token = standin.CURRENT.set(made)
    yield made
    standin.CURRENT.reset(token)


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("a tool was called")


async def model(*, model: str, messages: list[Any]) -> dict[str, Any]:
    usage = {"prompt_tokens": 900, "completion_tokens": 40}
    return {"model": model, "choices": [{"message": {"content": "hm"}}], "usage": usage}


async def test_the_ten_line_agent_is_answered_from_the_recording(book: Book) -> None:
    desk = StandIn().agent("refund-desk", version="2", fallback=print)
    async with desk.run(ticket="T-1042", input="I was charged twice.") as run:
        reply = await run.model(model, model="gpt-4.1", messages=[])
        order = await run.tool("lookup_order", never, order_id="A-1001")
        await run.tool("issue_refund", never, order_id="A-1001", amount=19.5)
        await run.finish("Your refund is on its way.", resolution="resolved")
    assert reply["model"] == "gpt-4.1"
    assert order == {"charges": [19.5, 19.5]}
    assert book.said == ["Your refund is on its way."]
    assert [(call.tool, call.answered, call.kind) for call in book.calls] == [
        ("lookup_order", "recorded", "read"), ("issue_refund", "recorded", "write")]  # fmt: skip
    assert [(one.model, one.usage.input_tokens) for one in book.billed if one.usage] == [("gpt-4.1", 900)]
    assert run.mode == "eval" and run.result is None


def test_the_same_in_threads(book: Book) -> None:
    with BlockingStandIn().agent("refund-desk", version="2").run(input="Hello") as run:
        order = run.tool("lookup_order", never, order_id="A-1001")
        run.say("agent", f"You paid {order['charges'][0]}.")
        run.hand_off("too much", summary="twice")
    assert (book.said, book.handed_off) == (["You paid 19.5."], True)


async def test_positional_arguments_have_the_names_that_the_tool_gives_them(book: Book) -> None:
    def look_up(order_id: str) -> None: ...

    async with StandIn().agent("refund-desk", version="2").run(input="Hello") as run:
        await run.tool("lookup_order", look_up, "A-1001")
    assert (book.calls[0].arguments, book.calls[0].answered) == ({"order_id": "A-1001"}, "recorded")


async def test_a_recorded_error_is_raised_as_the_tool_raised_it() -> None:
    book = Book(case(recorded=(Recorded("lookup_order", {"order_id": "A-9"}, None, "NotFound: A-9"),)))
    standin.CURRENT.set(book)
    async with StandIn().agent("refund-desk", version="2").run(input="Hello") as run:
        with pytest.raises(ToolFailed, match="NotFound: A-9"):
            await run.tool("lookup_order", never, order_id="A-9")
    assert book.calls[0].error == "NotFound: A-9"


async def test_no_agent_swallows_that_the_case_is_over() -> None:
    book = Book(case(missing="fail"))
    standin.CURRENT.set(book)
    with pytest.raises(CaseOver):
        async with StandIn().agent("refund-desk", version="2").run(input="Hello") as run:
            try:
                await run.tool("lookup_order", never, order_id="A-9")
            except Exception:
                pytest.fail("an agent that catches every Exception went on")
    assert book.over == "the recording holds no answer to lookup_order(order_id='A-9')"
    assert [call.answered for call in book.calls] == ["missing"]


async def test_an_answer_counts_once_however_often_it_is_told(book: Book) -> None:
    desk = StandIn().agent("refund-desk", version="2")
    for _ in range(2):
        book.next_turn()
        async with desk.run(input="Hello") as run:
            run.say("agent", "On its way.")
            run.finish("On its way.")
    assert book.said == ["On its way.", "On its way."], "once a turn"


async def test_calls_that_the_agent_made_itself_are_its_own(book: Book) -> None:
    async with StandIn().agent("refund-desk", version="2").run(input="Hello") as run:
        run.record_tool_call("search", arguments={"q": "x"}, result=[1], kind="read", cost_usd=Decimal("0.002"))
        run.record_model_call("gpt-4.1", usage={"input_tokens": 5, "output_tokens": 1}, cost_usd="0.01")
    assert [(call.tool, call.answered, call.result) for call in book.calls] == [("search", "own", [1])]
    assert [one.cost_usd for one in book.billed] == ["0.002", "0.01"]


async def test_a_program_that_connects_gets_the_stand_in(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("midwatch.client.connect", midwatch.client.connect)
    monkeypatch.setattr("midwatch.blocking.connect", midwatch.blocking.connect)
    standin.install()
    async with midwatch.client.connect("nats://nobody:1") as mw:

        @mw.agent("refund-desk", version="2").handles
        async def answer(ticket: str, run: midwatch.Run) -> str:
            return str((await run.tool("lookup_order", never, order_id="A-1001"))["charges"])

        assert await answer("Where is it?") == "[19.5, 19.5]"
    with midwatch.blocking.connect() as threads, threads.agent("refund-desk", version="2").run(input="Hi") as run:
        run.finish("Bye.")
    assert book.said == ["[19.5, 19.5]", "Bye."]


async def test_a_run_outside_every_case_says_where_runs_belong() -> None:
    with pytest.raises(RuntimeError, match="begin runs in the function that is replayed"):
        StandIn().agent("refund-desk", version="2").run(input="Hello")
