"""The refund agent as `midwatch eval run` replays it, with a stand-in for the model, so that it runs without a key.

    midwatch eval run refund-desk --target examples/eval_target.py:answer --version example-1

`run` is the SDK's: the same function serves `async with desk.run(…) as run:`. In a replay `run.tool` answers from the
recording and calls no tool; `run.model` does call the model.
"""

import re
from typing import Any

ROLES = {"customer": "user", "agent": "assistant", "human": "assistant"}


async def answer(run: Any, turn: Any) -> str | None:
    """Answers one thing that the customer says. `turn.messages`: all that was said so far, that last."""
    messages = [{"role": ROLES[one["role"]], "content": one["text"]} for one in turn.messages]
    await run.model(complete, model="gpt-4.1", messages=messages)
    order = re.search(r"A-\d+", turn.text)
    if order is None:
        run.hand_off("the customer names no order", summary=turn.text)
        return None
    found = await run.tool("lookup_order", lookup_order, order_id=order[0])
    amount = found["charged_twice"]
    if not amount:
        return f"Order {order[0]} was charged once."
    await run.tool("issue_refund", issue_refund, order_id=order[0], amount=amount)
    return f"You were charged twice. ${amount:.2f} are on their way back to you."


async def complete(*, model: str, messages: list[dict[str, Any]]) -> dict[str, Any]:
    """Stands for a client such as OpenAI's: usage and model are read from the answer."""
    message = {"role": "assistant", "content": "I look up the order."}
    usage = {"prompt_tokens": 300 * len(messages), "completion_tokens": 40}
    return {"model": model, "choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}


def lookup_order(order_id: str) -> dict[str, Any]:
    """Never called in a replay."""
    return {"order": order_id, "charged_twice": 19.5}


def issue_refund(order_id: str, amount: float) -> str:
    """Never called in a replay."""
    return f"refunded ${amount:.2f} for {order_id}"
