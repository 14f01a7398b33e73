"""Budgets that hold at once: the SDK, a real server, and cost-watchdog with its database."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

import midwatch
import midwatch.blocking
from budget_helpers import Model, apply, caught_up, commit, event, reserve, spend, watchdog
from helpers import eventually
from midwatch.allowance import Allowances
from midwatch.contracts import codec, subjects
from midwatch.contracts.budget import Committed, Reserved
from midwatch.contracts.envelope import new_id
from midwatch.runtime import telemetry
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


# With the SDK


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


# On the wire


async def test_the_same_reservation_gets_the_same_answer_and_is_charged_once(
    js: JetStreamContext, nc: Client, settings: Settings
) -> None:
    await apply(js, "desk", ticket="1")
    async with watchdog(settings):
        answers = await asyncio.gather(*(reserve(nc, "a", "0.6") for _ in range(5)))
        assert [answer.granted for answer in answers] == [True] * 5
        refused = [await reserve(nc, "b", "0.6") for _ in range(2)]
        assert refused[0] == refused[1]
        assert (refused[0].granted, refused[0].reserved) == (False, "0.6")
        assert (await commit(nc, "a", "0.1")).known
        assert (await commit(nc, "a", "0.9")).known  # the first word counts
        assert (await reserve(nc, "c", "5")).reserved == "0.1"
        assert (await reserve(nc, "b", "0.6")).granted is False  # as it was told before


@pytest.mark.parametrize("order", ["commit event", "event commit", "event event commit", "commit commit event event"])
async def test_commit_and_event_count_a_call_once_in_any_order(
    js: JetStreamContext, nc: Client, settings: Settings, order: str
) -> None:
    await apply(js, "desk", ticket="1")
    async with watchdog(settings):
        await reserve(nc, "a", "0.18")
        for step in order.split():
            if step == "commit":
                await commit(nc, "a", "0.15")
            else:
                await event(js, "a", "0.15", id="one")
                await eventually(lambda: caught_up(js))
        answer = await reserve(nc, "b", "5")
    assert (answer.spent, answer.reserved) == ("0.15", "0")


async def test_a_restart_between_reserve_and_commit_forgets_nothing(
    js: JetStreamContext, nc: Client, settings: Settings
) -> None:
    await apply(js, "desk", ticket="1")
    async with watchdog(settings):
        await reserve(nc, "a", "0.5")
    async with watchdog(settings):
        assert (await reserve(nc, "b", "0.6")).reserved == "0.5"
        assert (await commit(nc, "a", "0.2")).known
    async with watchdog(settings):
        assert (await reserve(nc, "c", "5")).reserved == "0.2"
        await event(js, "a", "0.2")
        await eventually(lambda: caught_up(js))
    async with watchdog(settings):
        last = await reserve(nc, "d", "5")
    assert (last.spent, last.reserved) == ("0.2", "0")


async def test_answers_are_counted_by_their_outcome(js: JetStreamContext, nc: Client, settings: Settings) -> None:
    def counted() -> list[float]:
        sample = telemetry.REGISTRY.get_sample_value
        labels = [
            {"service": "cost-watchdog", "outcome": name} for name in ("granted", "refused", "committed", "malformed")
        ]
        return [sample("midwatch_budget_answers_total", one) or 0.0 for one in labels]

    await apply(js, "desk", ticket="1")
    async with watchdog(settings):
        before = counted()
        await reserve(nc, "a", "0.6")
        await reserve(nc, "b", "0.6")
        await commit(nc, "a", "0.5")
        await nc.request(subjects.budget("desk", "commit"), b"{", timeout=5)
        assert [now - then for now, then in zip(counted(), before, strict=True)] == [1, 1, 1, 1]


async def test_nobody_touches_the_reservations_of_another_agent(
    js: JetStreamContext, nc: Client, settings: Settings
) -> None:
    for agent in ("desk", "mail"):
        await apply(js, agent, ticket="1")
    async with watchdog(settings):
        await reserve(nc, "a", "0.5")
        assert not (await commit(nc, "a", "0", agent="mail")).known
        await event(js, "a", "0.1", agent="mail")
        await eventually(lambda: caught_up(js))
        assert (await reserve(nc, "b", "5")).reserved == "0.5"
        assert (await reserve(nc, "a", "0.5", agent="mail")).error == "over"  # of its own it is remembered


async def test_a_replay_of_a_call_settles_no_live_reservation(
    js: JetStreamContext, nc: Client, settings: Settings
) -> None:
    await apply(js, "desk", ticket="1")
    async with watchdog(settings):
        await reserve(nc, "a", "0.5")
        await event(js, "a", "0.5", mode="replay")
        await eventually(lambda: caught_up(js))
        answer = await reserve(nc, "b", "5")
    assert (answer.spent, answer.reserved) == ("0", "0.5")


async def test_a_call_without_a_price_is_summed_as_its_agent_counted_it(
    js: JetStreamContext, nc: Client, settings: Settings
) -> None:
    await apply(js, "desk", ticket="1")
    async with watchdog(settings):
        await reserve(nc, "a", "0.5")
        await event(js, "a", None, estimate_usd="0.5")
        await event(js, None, None)
        await eventually(lambda: caught_up(js))
        answer = await reserve(nc, "b", "5")
    assert (answer.spent, answer.reserved) == ("0.5", "0")


async def test_hour_day_and_fleet_are_limits_as_the_ticket_is(
    js: JetStreamContext, nc: Client, settings: Settings
) -> None:
    settings = settings.model_copy(update={"fleet_budget_day": Decimal(3)})
    await apply(js, "desk", ticket="100", hour="1")
    await apply(js, "mail", ticket="100", day="2")
    await apply(js, "chat", ticket="100")
    async with watchdog(settings):
        assert (await reserve(nc, "a", "0.6", run_id="r1", ticket="T-1")).granted
        hour = await reserve(nc, "b", "0.6", run_id="r2", ticket="T-2")
        assert (hour.budget, hour.limit, hour.reserved) == ("hour", "1", "0.6")
        assert (await reserve(nc, "a", "1.9", agent="mail")).granted
        assert (await reserve(nc, "b", "0.2", agent="mail", ticket=None)).budget == "day"
        fleet = await reserve(nc, "a", "0.6", agent="chat")
        assert (fleet.budget, fleet.limit, fleet.reserved) == ("fleet", "3", "2.5")
        assert (await reserve(nc, "b", "0.5", agent="chat")).granted  # to the cent


@pytest.mark.parametrize("scope", ["hour", "day"])
async def test_what_an_agent_spent_in_its_hour_and_day_counts_beside_what_is_set_aside(
    js: JetStreamContext, nc: Client, settings: Settings, scope: str
) -> None:
    await apply(js, "desk", run="100", ticket="100", **{scope: "2"})
    async with watchdog(settings):
        await event(js, None, "1.5")
        await eventually(lambda: caught_up(js))
        assert (await reserve(nc, "a", "0.4", ticket="T-2")).granted
        answer = await reserve(nc, "b", "0.2", ticket="T-3")
    assert (answer.budget, answer.limit, answer.spent, answer.reserved) == (scope, "2", "1.5", "0.4")
    assert answer.reason.startswith("Agent desk has spent $1.50 of its $2.00 budget for 20")


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


async def test_a_request_without_a_ceiling_is_taken_for_the_agents_dearest_call_or_by_the_price_list(
    js: JetStreamContext, nc: Client, settings: Settings
) -> None:
    await apply(js, "desk", ticket="10")
    async with watchdog(settings):
        first = await reserve(nc, "a", None, provider="openai", model="gpt-4.1")
        assert (first.granted, first.ceiling) == (True, "0.036")  # 10,000 tokens in at $2, 2,000 out at $8 a million
        assert first.rates is not None
        assert (first.rates.input, first.rates.output) == ("2", "8")
        await event(js, "a", "0.18")
        await eventually(lambda: caught_up(js))
        assert (await reserve(nc, "b", None, provider="openai", model="gpt-4.1")).ceiling == "0.18"
        unknown = await reserve(nc, "c", None, provider="ollama", model="llama")
        assert (unknown.granted, unknown.ceiling, unknown.rates) == (True, "0", None)


async def test_two_watchdogs_on_one_database_grant_no_more_than_one(
    js: JetStreamContext, nc: Client, settings: Settings
) -> None:
    await apply(js, "desk", ticket="1")
    async with watchdog(settings), watchdog(settings):
        answers = await asyncio.gather(*(reserve(nc, f"a{n}", "0.18") for n in range(40)))
        assert sum(answer.granted for answer in answers) == 5
        again = await asyncio.gather(*(reserve(nc, f"a{n}", "0.18") for n in range(40)))
        assert again == answers


BAD = {
    "no JSON": ("reserve", b"{", "malformed"),
    "no id": ("reserve", b'{"run_id":"r"}', "malformed"),
    "a negative cost": ("commit", b'{"id":"a","cost":"-1"}', "malformed"),
    "an id that is none": ("reserve", b'{"id":"a.b>","run_id":"r"}', "malformed"),
    "no text": ("reserve", b"\xff\xfe", "malformed"),
    "nested": ("reserve", b"[" * 16_000, "malformed"),
    "too large": ("reserve", b'{"id":"a","run_id":"' + b"x" * 20_000 + b'"}', "oversized"),
    "another verb": ("grant", b"{}", "malformed"),
    "a nonsensical amount": (
        "reserve",
        b'{"id":"a","run_id":"r","ticket":"T-1","ceiling":"' + b"9" * 4000 + b'"}',
        None,
    ),
    "a very small amount": ("commit", b'{"id":"a","cost":"0.' + b"0" * 4000 + b'1"}', None),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_request_gets_a_clear_answer_and_the_service_goes_on(
    js: JetStreamContext, nc: Client, settings: Settings, name: str
) -> None:
    verb, body, error = BAD[name]
    await apply(js, "desk", ticket="1")
    async with watchdog(settings):
        raw = await nc.request(subjects.budget("desk", verb), body, timeout=5)
        kind: Any = Committed if verb == "commit" else Reserved
        answer = msgspec.json.decode(raw.data, type=kind)
        assert answer.error == error
        assert bool(answer.reason) == (error is not None or verb == "reserve")
        assert (await reserve(nc, "good")).granted
