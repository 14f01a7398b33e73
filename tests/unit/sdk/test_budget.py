"""What budgets let a run do: its own is kept in the process, those it shares where somebody answers for them."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from decimal import Decimal
from typing import Any

import pytest

from midwatch import Halted, testing
from midwatch.contracts.control import BudgetRule, LimitRule, ToolRule
from midwatch.contracts.runs import Mode


def world(**rule: Any) -> testing.Twin:
    return testing.midwatch([testing.card("desk", budget=BudgetRule(**rule), tools={
        "look_up": ToolRule(kind="read"), "translate": ToolRule(kind="read", cost="0.4"),
    })])  # fmt: skip


def billed(cost: str | None = "0.18", **fields: Any) -> Callable[..., dict[str, Any]]:
    """A model whose every answer reports this cost."""

    def call(model: str = "m") -> dict[str, Any]:
        usage = {"prompt_tokens": 9, "completion_tokens": 1}
        return {"model": model, "usage": usage | ({"cost": float(cost)} if cost else {}), **fields}

    return call


def events(mw: testing.InMemory, event: str) -> list[Any]:
    return [one.data for one in mw.events if one.event == event]


async def spend(mw: testing.InMemory, calls: int = 20, cost: str = "0.18", **options: Any) -> Any:
    """A run that calls the model again and again."""
    desk = mw.agent("desk", version="1", fallback=lambda handoff: handoff.reason)
    ceiling = {"ceiling": options.pop("ceiling")} if "ceiling" in options else {}
    async with desk.run(input="Where is it?", **options) as run:
        for _ in range(calls):
            await run.model(billed(cost), model="m", **ceiling)
        run.finish("done")
    return run


@pytest.mark.parametrize("reserve", [False, True])
async def test_a_stuck_run_is_stopped_before_the_call_that_could_pass_its_budget(reserve: bool) -> None:
    async with world(run="1", ticket="100", reserve=reserve) as mw:
        run = await spend(mw, ticket="T-1")
        assert len(events(mw, "model_called")) == 5  # $0.90
        assert run.result == "the run has spent $0.90 of its $1.00 budget: one more of up to $0.18 could pass it"
        (end,) = events(mw, "finished")
        assert (end.resolution, end.halted_by, end.epoch) == ("fell_back", "budget_run", None)
        (handed,) = events(mw, "handed_off")
        assert (handed.key, handed.own) == ("budget", True)


async def test_without_a_fallback_the_halt_goes_on_and_the_case_is_left_to_the_router() -> None:
    async with world(run="1") as mw:
        desk = mw.agent("desk", version="1")
        with pytest.raises(Halted) as halted:
            async with desk.run(input="?") as run:
                while True:
                    await run.model(billed(), model="m")
        assert (halted.value.key, halted.value.by) == ("budget", "budget_run")
        (handed,) = events(mw, "handed_off")
        assert (handed.key, handed.own, handed.to) == ("budget", False, "human")
        assert events(mw, "finished")[0].resolution == "halted"


async def test_it_holds_though_nobody_answers_for_the_shared_budgets() -> None:
    async with world(run="1", reserve=False) as mw:
        mw.leave_budgets()
        await spend(mw)
        assert len(events(mw, "model_called")) == 5


async def test_the_callers_ceiling_stops_the_run_before_its_first_call() -> None:
    async with world(run="1") as mw:
        await spend(mw, ceiling="1.01")
        assert events(mw, "model_called") == []


async def test_a_budget_may_be_spent_to_the_cent() -> None:
    async with world(run="1") as mw:
        await spend(mw, calls=4, cost="0.25", ceiling=0.25)
        assert events(mw, "finished")[0].resolution == "resolved"
        assert len(events(mw, "model_called")) == 4


async def test_calls_at_once_in_one_run_are_charged_at_their_ceilings() -> None:
    async with world(run="1") as mw:
        desk = mw.agent("desk", version="1", fallback=lambda handoff: "people")
        go, under_way = asyncio.Event(), 0

        async def model(model: str) -> Any:
            nonlocal under_way
            under_way += 1
            await go.wait()
            return billed()(model)

        async with desk.run(input="?") as run:
            tasks = [asyncio.create_task(run.model(model, model="m", ceiling="0.18")) for _ in range(64)]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            go.set()
            await asyncio.wait(tasks)
            assert under_way == 5
            assert sum(isinstance(task.exception(), Halted) for task in tasks) == 59


async def test_threads_share_the_budget_of_their_run() -> None:
    with world(run="1", reserve=True, ticket="100") as mw:
        desk = mw.agent("desk", version="1", fallback=lambda handoff: "people")
        made: list[int] = []

        def loop(run: Any) -> None:
            try:
                while True:
                    run.model(lambda model: (made.append(1), billed()(model))[1], model="m", ceiling="0.18")
            except Halted:
                return

        with desk.run(input="?", ticket="T-1") as run:
            threads = [threading.Thread(target=loop, args=(run,)) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert (len(made), run.result) == (5, "people")


async def test_what_was_learnt_of_other_runs_never_stops_a_run_that_has_spent_nothing() -> None:
    async with world(run="1") as mw:
        await spend(mw, calls=1, cost="1.50")  # one that was far too dear
        await spend(mw, calls=1, cost="0.10")
        assert [end.resolution for end in events(mw, "finished")] == ["resolved", "resolved"]
        await spend(mw, calls=2, cost="0.10")
        assert events(mw, "finished")[-1].resolution == "fell_back"  # until it is forgotten such a call may come again


async def test_the_dearest_call_is_forgotten_after_two_hundred() -> None:
    async with world(run="1000") as mw:
        await spend(mw, calls=1, cost="5")
        await spend(mw, calls=200, cost="0.01")
        switch = mw._server.follow("desk", "1")
        assert switch.prices.ceiling("m") == Decimal("0.01")


@pytest.mark.parametrize(("rule", "calls"), [({"run_steps": 7}, 7), ({"run_tokens": 55}, 6)])
async def test_calls_without_a_price_are_bounded_by_steps_and_tokens(rule: dict[str, int], calls: int) -> None:
    async with world(**rule) as mw:
        desk = mw.agent("desk", version="1", fallback=lambda handoff: handoff.reason)
        async with desk.run(input="?") as run:
            while True:
                await run.model(billed(None), model="m")
        assert len(events(mw, "model_called")) == calls
        assert "no known price" in run.result


async def test_a_call_without_a_price_is_counted_at_the_callers_ceiling_and_says_so() -> None:
    async with world(run="1") as mw:
        desk = mw.agent("desk", version="1", fallback=lambda handoff: "people")
        async with desk.run(input="?") as run:
            while True:
                await run.model(billed(None), model="m", ceiling="0.3")
        assert [call.estimate_usd for call in events(mw, "model_called")] == ["0.3"] * 3


async def test_a_call_that_fails_costs_nothing_and_one_that_is_cut_off_its_ceiling() -> None:
    async with world(run="1") as mw:
        desk = mw.agent("desk", version="1", fallback=lambda handoff: "people")

        def refused(model: str) -> None:
            raise RuntimeError("429")

        async with desk.run(input="?") as run:
            for _ in range(10):
                with pytest.raises(RuntimeError):
                    await run.model(refused, model="m", ceiling="0.3")
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0):
                        await run.model(lambda model: asyncio.sleep(60), model="m", ceiling="0.3")
            with pytest.raises(Halted):
                await run.model(billed(), model="m", ceiling="0.3")
        calls = events(mw, "model_called")
        assert [call.estimate_usd for call in calls] == [None] * 10 + ["0.3"] * 3


async def test_tools_cost_what_the_card_says() -> None:
    async with world(run="1") as mw:
        desk = mw.agent("desk", version="1", fallback=lambda handoff: "people")
        async with desk.run(input="?") as run:
            while True:
                await run.tool("look_up", lambda: "free")
                await run.tool("translate", lambda: "Guten Tag")
        assert [call.tool for call in events(mw, "tool_called")].count("translate") == 2
        assert events(mw, "finished")[0].halted_by == "budget_run"


async def test_calls_that_are_only_recorded_count_and_the_next_check_stops() -> None:
    async with world(run="1") as mw:
        desk = mw.agent("desk", version="1", fallback=lambda handoff: "people")
        async with desk.run(input="?") as run:
            run.record_model_call("m", cost_usd="0.7")
            run.check()
            run.record_tool_call("translate")
            assert run.halted
            run.check()
        assert run.result == "people"


async def test_a_run_that_spent_its_last_cent_may_still_finish() -> None:
    async with world(run="1") as mw:
        desk = mw.agent("desk", version="1", fallback=lambda handoff: "people")
        async with desk.run(input="?") as run:
            run.record_model_call("m", cost_usd="1.2")
            run.finish("done")
        assert (events(mw, "finished")[0].resolution, run.result) == ("resolved", None)


async def test_a_budget_that_only_alerts_stops_nothing() -> None:
    limits = LimitRule(run="alert", ticket="alert")
    async with world(run="1", ticket="1", at_limit=limits, reserve=True) as mw:
        await spend(mw, calls=20, ticket="T-1")
        assert events(mw, "finished")[0].resolution == "resolved"


@pytest.mark.parametrize(("mode", "reserves", "stops"), [
    ("live", True, True), ("drill", False, True), ("shadow", False, True), ("eval", False, True),
    ("replay", False, False),
])  # fmt: skip
async def test_only_live_runs_touch_the_shared_budgets_and_all_but_replays_their_own(
    mode: Mode, reserves: bool, stops: bool
) -> None:
    async with world(run="1", ticket="100", reserve=True) as mw:
        await spend(mw, mode=mode, ticket="T-1")
        calls = events(mw, "model_called")
        assert len(calls) == (5 if stops else 20)
        assert all(bool(call.reservation) is reserves for call in calls)
        assert len({call.reservation for call in calls}) == (len(calls) if reserves else 1)


async def test_runs_at_once_share_the_budget_of_their_ticket() -> None:
    async with world(run="1", ticket="1", reserve=True) as mw:
        runs = await asyncio.gather(*(spend(mw, ticket="T-1", ceiling="0.18") for _ in range(64)))
        assert len(events(mw, "model_called")) == 5
        assert all("the ticket budget of $1 is spent or set aside" in run.result for run in runs)
        assert {end.halted_by for end in events(mw, "finished")} == {"budget_ticket"}


async def test_what_is_not_used_is_free_again() -> None:
    async with world(run="10", ticket="1", reserve=True) as mw:
        for _ in range(5):
            await spend(mw, calls=1, cost="0.1", ticket="T-1", ceiling="0.6")
        assert len(events(mw, "model_called")) == 5


@pytest.mark.parametrize("unreachable", ["fall_back", "go_on"])
async def test_where_nobody_answers_the_run_falls_back_if_nothing_is_held_for_it(unreachable: str) -> None:
    async with world(reserve=True, unreachable=unreachable) as mw:
        mw.leave_budgets()
        run = await spend(mw, calls=1)
        assert events(mw, "model_called") == []
        held = " and nothing is held for it" if unreachable == "go_on" else ""
        assert run.result == f"cost-watchdog does not answer for the budgets of this run{held}"
        assert events(mw, "finished")[0].halted_by == "budget_unreachable"
        mw.leave_budgets(away=False)
        assert (await spend(mw, calls=1)).result is None


async def test_a_run_that_is_cancelled_while_it_waits_gives_back_what_it_asked_for() -> None:
    async with world(reserve=True, ticket="1") as mw:
        committed: list[tuple[str, str]] = []
        mw._server.commit = lambda agent, id, cost: committed.append((id, cost))  # type: ignore[method-assign]
        asked: list[Any] = []

        def never(agent: str, request: Any, go_on: bool) -> Any:
            asked.append(request)
            return Future()

        mw._server.reserve = never  # type: ignore[method-assign]
        task = asyncio.create_task(spend(mw, ticket="T-1", ceiling="0.18"))
        while not asked:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert committed == [(asked[0].id, "0")]
        assert events(mw, "model_called") == []


async def test_a_halt_reaches_a_run_that_waits_for_its_allowance() -> None:
    async with world(reserve=True) as mw:
        waits = asyncio.Event()
        loop = asyncio.get_running_loop()

        def never(agent: str, request: Any, go_on: bool) -> Any:
            loop.call_soon(waits.set)
            return Future()

        mw._server.reserve = never  # type: ignore[method-assign]
        task = asyncio.create_task(spend(mw))
        await waits.wait()
        mw.halt("desk", reason="wrong refunds")
        assert (await task).result == "wrong refunds"


async def test_the_type_of_a_ceiling_may_be_text_a_number_or_a_decimal() -> None:
    async with world() as mw:
        desk = mw.agent("desk", version="1")
        async with desk.run(input="?") as run:
            for ceiling in ("0.1", 0.1, Decimal("0.1")):
                await run.model(billed(None), model="m", ceiling=ceiling)
            await run.model(billed(None), model="m", ceiling="a lot")  # type: ignore[call-overload, unused-ignore]
        assert [call.estimate_usd for call in events(mw, "model_called")] == ["0.1", "0.1", "0.1", None]
