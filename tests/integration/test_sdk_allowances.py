"""Budgets that hold at once: the SDK, a real server, and cost-watchdog with its database."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

import midwatch
import midwatch.blocking
from budget_helpers import Model, apply, caught_up, event, reserve, spend, watchdog
from helpers import eventually
from midwatch.allowance import Allowances
from midwatch.contracts import codec, subjects
from midwatch.contracts.envelope import new_id
from midwatch.runtime.database import Database
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.settings import Settings
from midwatch_services.cost_watchdog.state import Subject
from midwatch_services.cost_watchdog.store import Store


def to_human(handoff: Any) -> str:
    return f"a person: {handoff.reason}"


async def finished(js: JetStreamContext) -> list[Any]:
    """How each run ended."""
    info = await js.stream_info(subjects.RUNS)
    found = []
    for seq in range(1, info.state.last_seq + 1):
        message = await js.get_msg(subjects.RUNS, seq)
        assert message.subject is not None
        if message.subject.endswith(".finished"):
            found.append(codec.decode_run(message.subject, message.data or b"").data)
    return found


@pytest.mark.parametrize("reserved", [True, False])
async def test_a_stuck_ticket_spends_no_more_than_its_budget(
    js: JetStreamContext, settings: Settings, nats_server: NatsServer, tmp_path: Path, reserved: bool
) -> None:
    await apply(js, "desk", run="1", ticket="1", reserve=reserved)
    async with watchdog(settings):
        model = Model()
        async with midwatch.connect(nats_server.url, home=tmp_path / "agent") as mw:
            run = await spend(mw.agent("desk", version="1", fallback=to_human), model)
    assert model.billed == Decimal("0.90")
    assert run.result.startswith("a person: the run has spent $0.90 of its $1.00 budget")
    (end,) = await finished(js)
    assert (end.resolution, end.halted_by) == ("fell_back", "budget_run")


async def test_without_cost_watchdog_a_runs_own_budget_holds_as_well(
    js: JetStreamContext, nats_server: NatsServer, tmp_path: Path
) -> None:
    await apply(js, "desk", run="1", ticket="1")
    model = Model()
    async with midwatch.connect(nats_server.url, home=tmp_path / "agent") as mw:
        await spend(mw.agent("desk", version="1", fallback=to_human), model)
    assert model.billed == Decimal("0.90")


@pytest.mark.parametrize("unreachable", ["fall_back", "go_on"])
async def test_sixty_four_runs_at_once_in_two_processes_never_pass_the_budget_of_their_ticket(
    js: JetStreamContext, settings: Settings, nats_server: NatsServer, tmp_path: Path, unreachable: str
) -> None:
    await apply(js, "desk", run="1", ticket="1", reserve=True, unreachable=unreachable)
    model = Model()
    async with (
        watchdog(settings),
        midwatch.connect(nats_server.url, home=tmp_path / "one") as one,
        midwatch.connect(nats_server.url, home=tmp_path / "two") as two,
    ):
        desks = [mw.agent("desk", version="1", fallback=to_human) for mw in (one, two)]
        runs = await asyncio.gather(*(spend(desks[number % 2], model, ceiling="0.18") for number in range(64)))
    assert model.billed == Decimal("0.90")  # what is held for later serves where nothing else is granted
    assert all("budget" in run.result for run in runs)
    ends = await finished(js)
    assert {(end.resolution, end.halted_by) for end in ends} == {("fell_back", "budget_ticket")}
    assert len(ends) == 64


async def test_a_refusal_says_which_budget_and_how_it_stands(
    js: JetStreamContext, nc: Client, settings: Settings, nats_server: NatsServer, tmp_path: Path
) -> None:
    await apply(js, "desk", run="5", ticket="1", reserve=True)
    async with watchdog(settings), midwatch.connect(nats_server.url, home=tmp_path / "agent") as mw:
        await event(js, None, "0.72")
        await eventually(lambda: caught_up(js))
        await reserve(nc, "other", "0.18")
        run = await spend(mw.agent("desk", version="1", fallback=to_human), Model(), ceiling="0.18")
    assert run.result == (
        "a person: Ticket T-1 of desk has spent $0.72 of its $1.00 budget, $0.18 is set aside for other calls: "
        "one more of up to $0.18 could pass it"
    )


async def test_with_nobody_there_a_run_falls_back(
    js: JetStreamContext, nats_server: NatsServer, tmp_path: Path
) -> None:
    await apply(js, "desk", reserve=True)
    model = Model()
    async with midwatch.connect(nats_server.url, home=tmp_path / "agent") as mw:
        run = await spend(mw.agent("desk", version="1", fallback=to_human), model)
    assert (model.billed, run.result) == (
        0,
        "a person: cost-watchdog does not answer for the budgets of this run",
    )


def spares(allowances: Allowances) -> int:
    return sum(len(rest.spares) for rest in allowances._rests.values())


async def test_an_agent_that_goes_on_does_so_under_what_it_holds(
    js: JetStreamContext, settings: Settings, nats_server: NatsServer, tmp_path: Path
) -> None:
    await apply(js, "desk", run="10", ticket="2", reserve=True, unreachable="go_on")
    model, made = Model("0.10"), 0
    async with midwatch.connect(nats_server.url, home=tmp_path / "agent") as mw:
        desk, held = mw.agent("desk", version="1", fallback=to_human), mw._engine._allowances
        async with watchdog(settings):
            run = desk.run(input="?", ticket="T-1")
            await run.__aenter__()
            await run.model(model.call, model="m", ceiling="0.10")
            await eventually(lambda: spares(held) == 2)
        with pytest.raises(midwatch.Halted) as halted:
            while True:
                await run.model(model.call, model="m", ceiling="0.10")
                made += 1
        assert made == 2  # as many as were held
        assert "nothing is held" in str(halted.value)
        assert await run.__aexit__(midwatch.Halted, halted.value, None)
        async with watchdog(settings):
            await eventually(lambda: caught_up(js))
    database = Database(settings.database_for(subjects.COST_WATCHDOG))
    store, ticket = Store(), Subject("live", "desk", "T-1")

    def read(conn: Any) -> tuple[Decimal, int]:
        store.begin(conn)
        store.tickets.load(conn, [ticket])
        return store.tickets.get(ticket).spent.amount, len(store.reservations.ledger.open)

    assert await database.write(read) == (Decimal("0.30"), 0)  # no call counted twice, none forgotten, nothing held
    database.close()


async def test_a_run_that_is_cancelled_while_it_waits_leaves_nothing_held(
    js: JetStreamContext, settings: Settings, nats_server: NatsServer, tmp_path: Path
) -> None:
    await apply(js, "desk", run="10", ticket="2", reserve=True, unreachable="go_on")
    async with midwatch.connect(nats_server.url, home=tmp_path / "agent") as mw:
        desk, held = mw.agent("desk", version="1", fallback=to_human), mw._engine._allowances
        async with desk.run(input="?", ticket="T-1") as run:
            async with watchdog(settings):
                await run.model(Model("0.10").call, model="m", ceiling="0.10")
                await eventually(lambda: spares(held) == 2)
            for _ in range(3):  # nobody answers: a spare is what each would get, had it not gone
                task = asyncio.create_task(run.model(Model("0.10").call, model="m", ceiling="0.10"))
                await eventually(lambda: held._asking)
                task.cancel()
                await asyncio.wait((task,))
                await eventually(lambda: not held._asking)
            assert (held._instead, len(held._held)) == ({}, spares(held))
            run.finish("done")
        await eventually(lambda: not held._held)


async def test_what_was_held_goes_back_when_the_last_run_of_its_ticket_ends(
    js: JetStreamContext, nc: Client, settings: Settings, nats_server: NatsServer, tmp_path: Path
) -> None:
    await apply(js, "desk", run="10", ticket="1", reserve=True, unreachable="go_on")
    async with watchdog(settings), midwatch.connect(nats_server.url, home=tmp_path / "agent") as mw:
        desk, held = mw.agent("desk", version="1", fallback=to_human), mw._engine._allowances
        async with desk.run(input="?", ticket="T-1") as run:
            await run.model(Model("0.10").call, model="m", ceiling="0.10")
            await eventually(lambda: spares(held) == 2)
            run.finish("done")

        async def all_is_free() -> bool:
            answer = await reserve(nc, new_id(), "5")
            assert (answer.spent, answer.reserved) == ("0.1", "0")
            return True

        await eventually(all_is_free)


async def test_the_price_list_bounds_a_run_whose_provider_reports_no_cost(
    js: JetStreamContext, settings: Settings, nats_server: NatsServer, tmp_path: Path
) -> None:
    def answer(model: str) -> dict[str, Any]:
        return {"model": "gpt-4.1-2025-04-14", "usage": {"prompt_tokens": 100_000, "completion_tokens": 0}}

    await apply(js, "desk", run="1", ticket="5", reserve=True)  # at $2 a million, $0.20 a call
    async with watchdog(settings), midwatch.connect(nats_server.url, home=tmp_path / "agent") as mw:
        desk, calls = mw.agent("desk", version="1", fallback=to_human), 0
        async with desk.run(input="?", ticket="T-1") as run:
            while True:
                await run.model(answer, model="gpt-4.1")
                calls += 1
    assert (calls, run.result) == (
        5,
        "a person: the run has spent $1.00 of its $1.00 budget",
    )


async def test_threads_reserve_as_tasks_do(
    js: JetStreamContext, settings: Settings, nats_server: NatsServer, tmp_path: Path
) -> None:
    await apply(js, "desk", run="1", ticket="1", reserve=True)
    made: list[str] = []

    def answer(model: str) -> dict[str, Any]:
        made.append(model)
        return {"model": model, "usage": {"prompt_tokens": 9, "completion_tokens": 1, "cost": 0.18}}

    def work() -> str:
        with midwatch.blocking.connect(nats_server.url, home=tmp_path / "agent") as mw:
            desk = mw.agent("desk", version="1", fallback=to_human)

            def one(_: int) -> str:
                with desk.run(input="Where is it?", ticket="T-1") as run:
                    while True:
                        run.model(answer, model="m", ceiling="0.18")
                return str(run.result)

            with ThreadPoolExecutor(8) as pool:
                return " ".join(pool.map(one, range(8)))

    async with watchdog(settings):
        said = await asyncio.to_thread(work)
    assert len(made) == 5
    assert said.count("a person: Ticket T-1 of desk has spent") == 8
