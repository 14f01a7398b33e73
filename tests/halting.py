"""What the tests of halts share."""

import asyncio
from typing import Any

from midwatch import testing

READ, WRITE = "look_up", "refund"
TOOLS = testing.tools(look_up="read", refund="write")


def to_human(handoff: Any) -> str:
    return f"a person, because {handoff.reason}"


def resolutions(mw: testing.InMemory) -> list[str]:
    return [event.data.resolution for event in mw.events if event.event == "finished"]


async def for_ever(**_: Any) -> None:
    await asyncio.Event().wait()


def begun() -> tuple[asyncio.Event, asyncio.Event, Any]:
    """A function that says when it began and ends when it is told."""
    began, end = asyncio.Event(), asyncio.Event()

    async def work() -> str:
        began.set()
        await end.wait()
        return "done"

    return began, end, work


async def nothing_pending() -> None:
    """Fails where a cancellation of ours is left for the next await."""
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0
    for _ in range(3):
        await asyncio.sleep(0)
