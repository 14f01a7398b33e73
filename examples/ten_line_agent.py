# ruff: noqa: T201
"""The ten-line agent, with a stand-in for the model, so that it runs without a key.

In one terminal `midwatch up`; in another:

    midwatch apply agents/refund-desk.yaml
    python examples/ten_line_agent.py
    midwatch runs --agent refund-desk

Then `midwatch halt refund-desk --reason "trying it out"`, and run it again: a person answers. `midwatch resume
refund-desk --reason "tried"` lets the agent answer again.
"""

import asyncio
from typing import Any

import midwatch


async def main() -> None:
    async with midwatch.connect() as mw:
        desk = mw.agent("refund-desk", version="example-1", fallback=to_human)
        async with desk.run(ticket="T-1042", input="I was charged twice for order A-1001.") as run:
            await run.model(complete, model="gpt-4.1", messages=[{"role": "user", "content": "…"}])
            order = await run.tool("lookup_order", lookup_order, order_id="A-1001")
            await run.tool("issue_refund", issue_refund, order_id="A-1001", amount=order["charged_twice"])
            run.finish("Your refund is on its way.")
            print("the agent answers: Your refund is on its way.")
        if run.result:
            print(f"a person answers: {run.result}")


def to_human(handoff: midwatch.Handoff) -> str:
    """Called in place of a run that was halted, with everything that happened in it."""
    return f"We look into {handoff.ticket} ourselves ({handoff.reason})."


async def complete(*, model: str, messages: list[dict[str, Any]]) -> dict[str, Any]:
    """Stands for a client such as OpenAI's: usage and model are read from the answer."""
    message = {"role": "assistant", "content": "I look up the order."}
    usage = {"prompt_tokens": 900, "completion_tokens": 40}
    return {"model": model, "choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}


def lookup_order(order_id: str) -> dict[str, Any]:
    return {"order": order_id, "charged_twice": 19.5}


def issue_refund(order_id: str, amount: float) -> str:
    return f"refunded ${amount:.2f} for {order_id}"


if __name__ == "__main__":
    asyncio.run(main())
