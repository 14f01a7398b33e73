"""A logger comes back after an outage to a long backlog, while agents go on publishing."""

import asyncio
import itertools
import time
from collections.abc import Callable

import pytest

from midwatch.contracts import subjects
from run_log import assert_as_undisturbed, database_of, events, fill, lag, publish, query
from stack import Stack

pytestmark = pytest.mark.chaos

BACKLOG = 40_000  # events
Figure = Callable[[str, float, str, float], None]
OTHERS = (subjects.COST_WATCHDOG, subjects.KILL_SWITCH)


async def seconds_until_read(stack: Stack, consumer: str) -> float:
    """From now until the consumer has acknowledged what is the stream's last message now."""
    js = stack.client.jetstream()
    last, begin = (await js.stream_info(subjects.RUNS)).state.last_seq, time.monotonic()
    while True:
        floor = (await js.consumer_info(subjects.RUNS, consumer)).ack_floor
        if floor and floor.stream_seq >= last:
            return time.monotonic() - begin
        await asyncio.sleep(0.01)


async def test_while_the_log_catches_up_those_who_stop_agents_are_not_behind(
    plain: Stack, say: Callable[[str], None], figure: Figure
) -> None:
    count = await fill(plain.client, itertools.islice(events(), BACKLOG), size=500)
    await asyncio.gather(*(plain.start(name) for name in OTHERS))
    await plain.caught_up(*OTHERS)
    await plain.start("logger")
    begin, live, others = time.monotonic(), events("live"), [0.0]
    first = list(itertools.islice(live, 10))
    await publish(plain.client, first)
    seen = asyncio.create_task(seconds_until_read(plain, subjects.LOGGER))
    count += len(first)
    while await lag(plain) > 100:
        some = list(itertools.islice(live, 10))
        await publish(plain.client, some)
        count += len(some)
        others += await asyncio.gather(*(seconds_until_read(plain, name) for name in OTHERS))
    took = time.monotonic() - begin
    say(f"backlog of {BACKLOG:,}: {BACKLOG / took:,.0f} events/s; a live event is in the log after {await seen:.1f} s")
    figure("meanwhile cost-watchdog and kill-switch have read a live event after, at most", max(others), "s", 10)
    await plain.caught_up(subjects.LOGGER)
    stored = query(database_of(plain), "SELECT count(*) FROM logger_events WHERE agent = 'live'")[0][0]
    assert stored == count - BACKLOG
    await assert_as_undisturbed(plain, count)
