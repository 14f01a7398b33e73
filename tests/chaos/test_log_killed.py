"""Loggers that die, alone and beside another one: the log is that of a logger which was let alone."""

import asyncio
import itertools
from collections.abc import Callable

import pytest

from helpers import eventually
from midwatch.contracts.envelope import new_id
from run_log import (
    Message,
    assert_as_undisturbed,
    caught_up,
    dead,
    events,
    feeding,
    fill,
    handled,
    lag,
    publish,
    wait_less,
)
from stack import Stack

pytestmark = pytest.mark.chaos

# Each dies there on the n-th passage, so that what it had begun is of several kinds.
STEPS = (
    "delivery.received:2", "logger.inserted", "logger.inserted:3", "logger.folded:2", "delivery.handled:3",
    "delivery.acked:2", "delivery.buried",
)  # fmt: skip
BAD = 10  # messages that break the contract, for each logger


async def test_a_logger_that_dies_at_any_step_under_load_leaves_the_log_as_if_it_had_not(
    stack: Stack, say: Callable[[str], None]
) -> None:
    await wait_less(stack, 2)
    async with feeding(stack, 1_500) as feed:
        for step in STEPS:
            bad = [Message("midwatch.run.desk.said", new_id(), b"{") for _ in range(BAD)]
            await publish(stack.client, bad)
            child = await stack.spawn("run", "logger", MIDWATCH_HTTP_PORT="0", MIDWATCH_FAULT=step)
            assert await asyncio.wait_for(child.wait(), 60) == 137
    await stack.start("logger")
    seconds = await caught_up(stack)
    assert await dead(stack) == BAD * len(STEPS)
    await assert_as_undisturbed(stack, feed.count)
    what = f"{len(STEPS)} loggers dead, one at each step: {feed.count:,} events, each once"
    say(f"{what}; the next one is level after {seconds:.1f} s")


async def test_two_loggers_of_which_one_is_killed_make_the_log_of_one(stack: Stack, say: Callable[[str], None]) -> None:
    count = await fill(stack.client, itertools.islice(events(), 30_000))
    await wait_less(stack, 2)
    dies, lives = await asyncio.gather(stack.start("logger"), stack.start("logger"))

    async def both_have_stored() -> int:
        return min(await asyncio.gather(asyncio.to_thread(handled, dies), asyncio.to_thread(handled, lives)))

    async with feeding(stack, 1_000) as feed:
        await eventually(both_have_stored, within=60)
        left = await lag(stack)
        await dies.kill()
        while await lag(stack) > 2_000:
            await asyncio.sleep(0.05)
        await stack.start("logger")
    await caught_up(stack)
    assert await dead(stack) == 0
    await assert_as_undisturbed(stack, count + feed.count)
    say(f"two loggers, one killed with {left:,} to go: {count + feed.count:,} events, each once, runs as by one logger")
