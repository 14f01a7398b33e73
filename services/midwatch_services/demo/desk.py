"""The demo's agent: a dozen tickets, a model that is a plain function, and a tool that sometimes gets nowhere."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import midwatch

AGENT = "demo-desk"
MODEL = "gpt-4.1"  # a real name, so that its calls are priced; nothing is asked of it
TYPICAL = (1_900, 120)  # tokens in and out of an ordinary call
LONG = (52_000, 450)  # of a call that carries a long history: about 11 cents at the list price
THINKS = 0.05  # seconds that an ordinary call takes
LABOURS = 0.3  # seconds that a long one takes
GIVE_UP = 40  # calls; the demo must end even if nothing stops the loop

STUCK = "A-1007"  # the order whose lookup never comes to anything


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a customer asks."""

    id: str
    order: str

    @property
    def question(self) -> str:
        return f"Where is my order {self.order}?"


TICKETS = [Ticket(f"T-{number:02}", f"A-{1000 + number}") for number in range(1, 13)]


class Desk:
    """The agent and the people behind it. `handed` keeps what the fallback was called with, by ticket; `session` marks
    the runs of this demo, since a database may hold those of others."""

    def __init__(self, client: midwatch.Midwatch, session: str) -> None:
        self.session = session
        self.handed: dict[str, midwatch.Handoff] = {}
        self._agent = client.agent(AGENT, version="demo-1", fallback=self._to_human)

    async def answer(self, ticket: Ticket) -> str | None:
        """What the customer is told, by the agent or by a person."""
        messages: list[dict[str, Any]] = [{"role": "user", "content": ticket.question}]
        async with self._agent.run(
            ticket=ticket.id, input=ticket.question, channel="demo", session=self.session
        ) as run:  # fmt: skip
            run.say("customer", ticket.question)
            for _ in range(GIVE_UP):
                reply = await run.model(complete, model=MODEL, messages=messages, order=ticket.order)
                message = reply["choices"][0]["message"]
                if not message.get("tool_calls"):
                    run.say("agent", message["content"])
                    run.finish(message["content"])
                    return str(message["content"])
                found = await run.tool("lookup_order", lookup_order, order_id=ticket.order)
                messages += [message, {"role": "tool", "content": json.dumps(found)}]
        return run.result if isinstance(run.result, str) else None

    async def _to_human(self, handoff: midwatch.Handoff) -> str:
        self.handed[handoff.ticket or ""] = handoff
        return "A person will answer you."


async def complete(*, model: str, messages: list[dict[str, Any]], order: str) -> dict[str, Any]:
    """Answers in the shape of a chat completion, as a naive model would: it looks up until the order is found."""
    tokens_in, tokens_out = LONG if order == STUCK else TYPICAL
    await asyncio.sleep(LABOURS if order == STUCK else THINKS)
    last = json.loads(messages[-1]["content"]) if messages[-1]["role"] == "tool" else {}
    message: dict[str, Any] = {"role": "assistant", "content": None}
    if last.get("status") == "on its way":
        message["content"] = f"Your order {order} is on its way."
    else:
        function = {"name": "lookup_order", "arguments": json.dumps({"order_id": order})}
        message["tool_calls"] = [{"id": f"call-{len(messages)}", "type": "function", "function": function}]
    return {
        "provider": "openai",
        "model": model,
        "choices": [{"message": message, "finish_reason": "tool_calls" if "tool_calls" in message else "stop"}],
        "usage": {"prompt_tokens": tokens_in, "completion_tokens": tokens_out},
    }


async def lookup_order(order_id: str) -> dict[str, str]:
    """The stuck order answers "try again", for ever."""
    return {"order": order_id, "status": "try again later" if order_id == STUCK else "on its way"}
