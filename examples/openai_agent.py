# ruff: noqa: T201
"""A tool-calling agent on OpenAI's client: `pip install openai`, set OPENAI_API_KEY, and run it like ten_line_agent.py.

Without a key it runs on a stand-in that answers in the same shape. What matters here is the same: `run.model` in place
of the call itself, `run.tool` in place of each tool.
"""

import asyncio
import json
import os
from types import SimpleNamespace
from typing import Any

import midwatch

QUESTION = "I was charged twice for order A-1001."
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "lookup_order",
            "description": "Look up an order by its number.",
            "parameters": {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]},
        },
    }
]


async def main() -> None:
    create = client()
    messages: list[Any] = [
        {"role": "system", "content": "You answer billing tickets. Look up an order before you speak of it."},
        {"role": "user", "content": QUESTION},
    ]
    async with midwatch.connect() as mw:
        desk = mw.agent("refund-desk", version="example-1", fallback=lambda handoff: "A person will answer you.")
        async with desk.run(ticket="T-3001", input=QUESTION) as run:
            while True:
                answer = await run.model(create, model="gpt-4.1-mini", messages=messages, tools=TOOLS)
                message = answer.choices[0].message
                if not message.tool_calls:
                    break
                messages.append(message)
                for call in message.tool_calls:
                    order = json.loads(call.function.arguments)["order_id"]
                    found = await run.tool("lookup_order", lookup_order, order_id=order)
                    messages.append({"role": "tool", "tool_call_id": call.id, "content": json.dumps(found)})
            run.say("agent", message.content)
            run.finish(message.content)
            print(message.content)
        if run.result:
            print(run.result)


def lookup_order(order_id: str) -> dict[str, Any]:
    return {"order": order_id, "charges": [19.5, 19.5]}


def client() -> Any:
    """OpenAI's `create` where there is a key, else the stand-in."""
    if not os.environ.get("OPENAI_API_KEY"):
        return stand_in
    from openai import AsyncOpenAI

    return AsyncOpenAI().chat.completions.create


async def stand_in(*, model: str, messages: list[Any], tools: list[Any]) -> SimpleNamespace:
    function = SimpleNamespace(name="lookup_order", arguments='{"order_id": "A-1001"}')
    calls = [SimpleNamespace(id="call-1", type="function", function=function)] if len(messages) == 2 else None
    text = None if calls else "You were charged twice, 19.50 dollars each time. I ask for one of them back."
    message = SimpleNamespace(role="assistant", content=text, tool_calls=calls)
    choice = SimpleNamespace(message=message, finish_reason="tool_calls" if calls else "stop")
    usage = SimpleNamespace(prompt_tokens=310, completion_tokens=25)
    return SimpleNamespace(id="stand-in", model=model, choices=[choice], usage=usage)


if __name__ == "__main__":
    asyncio.run(main())
