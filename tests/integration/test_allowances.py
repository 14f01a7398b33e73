"""Reservations on the wire: a real server, and cost-watchdog with its database."""

import asyncio
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

from budget_helpers import apply, caught_up, commit, event, reserve, watchdog
from helpers import eventually
from midwatch.contracts import subjects
from midwatch.contracts.budget import Committed, Reserved
from midwatch.runtime import telemetry
from midwatch.runtime.settings import Settings


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
    settings = settings.model_copy(update={"fleet_budget_day": Decimal(3), "fleet_trip": "act"})
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


async def test_a_fleet_that_is_only_observed_refuses_nothing(
    js: JetStreamContext, nc: Client, settings: Settings
) -> None:
    settings = settings.model_copy(update={"fleet_budget_day": Decimal(3)})
    await apply(js, "desk", ticket="100")
    async with watchdog(settings):
        assert (await reserve(nc, "a", "5")).granted


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
