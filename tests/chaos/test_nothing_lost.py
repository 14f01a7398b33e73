"""A process killed in the middle of a halt with fifty runs in flight: each ticket ends in exactly one place."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from helpers import eventually
from pods import Pod, arm, pod
from stack import Stack

pytestmark = pytest.mark.chaos

RUNS = 50


async def places(stack: Stack, desk: Pod) -> tuple[Counter[str], dict[str, str], Counter[str]]:
    """How often the program's own fallback answered a ticket; the doubt in its case, where one was opened for people;
    how often one was."""
    answered = Counter(note.run_id for note in desk.notes("answered"))
    opened = await stack.spoken("opened", "case")
    return answered, {one["run_id"]: one.get("doubt", "") for one in opened}, Counter(one["run_id"] for one in opened)


@pytest.mark.parametrize("again", ["", "pod-2", "pod-1"], ids=["never again", "again", "again by the same name"])
@pytest.mark.parametrize("own", [True, False], ids=["own fallback", "people"])
async def test_each_ticket_of_a_process_that_was_killed_during_a_halt_ends_in_one_place(
    plain: Stack, tmp_path: Path, figure: Callable[..., None], own: bool, again: str
) -> None:
    await arm(plain.client.jetstream())
    await plain.start("kill-switch")
    async with AsyncExitStack() as processes:
        dies = [f"dies={RUNS // 5}"]
        desk = await processes.enter_async_context(pod(tmp_path, plain.nats.url, runs=RUNS, own=own, more=dies))
        tickets = {note.run_id for note in desk.notes("began")}
        assert len(tickets) == RUNS
        await plain.run("halt", "desk", "--reason", "wrong refunds", "--json")
        assert await asyncio.wait_for(desk.child.wait(), 10) == -signal.SIGKILL
        killed = time.monotonic()
        over = len(desk.notes("answered", "left"))
        assert over == RUNS // 5
        if again:
            then = pod(tmp_path, plain.nats.url, again, own=own, idle=True, home="pod-1")
            await processes.enter_async_context(then)

        async def all_have_a_place() -> bool:
            answered, _, opened = await places(plain, desk)
            assert tickets == set(answered) | set(opened)
            return True

        await eventually(all_have_a_place, within=40)
        seconds = time.monotonic() - killed
        answered, doubts, opened = await places(plain, desk)
        lost = tickets - set(answered) - set(opened)
        # Whoever takes the case of a customer who may have had an answer must know that.
        doubled = {run for run in answered if run in opened and not doubts[run]}
        doubled |= {run for run, count in (answered + Counter()).items() if count > 1}
        doubled |= {run for run, count in opened.items() if count > 1}
        how = f"killed in a halt, {'own fallback' if own else 'people'}, {over} of {RUNS} over"
        figure(f"{how}: tickets lost or doubled", len(lost | doubled), "tickets", 0)
        figure(f"{how}: the last has its place after", seconds, "s", 20)
