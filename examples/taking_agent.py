# ruff: noqa: T201
"""A simpler agent that takes the cases of others, so that their customers need not wait for a person.

In one terminal `midwatch up`; in another:

    midwatch card new order-status
    midwatch apply agents/
    python examples/taking_agent.py

Now name it as the fallback of an agent whose program has none of its own: `fallback: agent:order-status` in its card,
or `midwatch halt refund-desk --reason "trying it out" --fallback agent:order-status`. Each run that is halted is
answered here; where no instance of this agent takes it within five seconds, people do.
"""

import asyncio
import itertools
import re
import sys
from typing import Any

import midwatch


async def main(count: int) -> None:
    async with midwatch.connect() as mw:
        simple = mw.agent("order-status", version="example-1")
        answers: asyncio.Queue[str] = asyncio.Queue()

        @simple.takes
        async def answer(case: midwatch.Case, run: midwatch.Run) -> str:
            order = re.search(r"A-\d+", str(case.input))
            if order is None:
                run.finish(resolution="failed", error="the case names no order")  # so it goes on to people
                return ""
            found = await run.tool("lookup_order", lookup_order, order_id=order[0])
            text = f"Order {found['order']} is {found['status']}. A person will look at the rest."
            run.say("agent", text)
            answers.put_nowait(f"{case.ticket}, left by {case.agent}: {text}")
            return text

        for _ in range(count) if count else itertools.count():
            print(await answers.get(), flush=True)


def lookup_order(order_id: str) -> dict[str, Any]:
    return {"order": order_id, "status": "on its way"}


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))  # 0: until it is stopped
