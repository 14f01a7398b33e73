"""What of a run event is judged: its cost, its tool call's digest, its place in the run."""

from decimal import Decimal
from hashlib import blake2b
from typing import Any

import msgspec

from midwatch.contracts.codec import RunEvent
from midwatch.contracts.runs import Finished, HumanActed, ModelCalled, ToolCalled
from midwatch.runtime.pricing import CEILING, Cost, or_estimate, price

from .decide import Observed
from .state import Subject

_TICKET_LIMIT = 200  # characters
_TOOL_LIMIT = 60  # characters
_TOKENS_LIMIT = 10**12  # a nonsensical count stays a number that can be summed and saved
_sorted = msgspec.json.Encoder(order="sorted")


def observe(event: RunEvent) -> Observed:
    """The event as `decide` takes it."""
    data, cost, tool, pair, finished = event.data, None, "", None, None
    tokens: int | None = None
    if isinstance(data, ModelCalled):
        tokens = min(data.usage.input_tokens + data.usage.output_tokens, _TOKENS_LIMIT) if data.usage else 0
        cost = price(data.provider, data.model, data.usage, data.cost_usd, event.time)
        cost = or_estimate(cost, data.estimate_usd)
    elif isinstance(data, ToolCalled):
        tool, pair = data.tool[:_TOOL_LIMIT], pair_of(data)
        if data.cost_usd is not None:
            cost = Cost(min(Decimal(data.cost_usd), CEILING), "reported")
    elif isinstance(data, Finished):
        finished = data.resolution
    return Observed(
        run=Subject(data.mode, event.agent, data.run_id),
        event_id=event.id,
        # The system where people work counts for itself: its events have no place among the agent's.
        seq=None if isinstance(data, HumanActed) else data.seq,
        ticket=shortened(data.ticket) if data.ticket else None,
        cost=cost,
        tokens=tokens,
        tool=tool,
        pair=pair,
        finished=finished,
    )


def pair_of(call: ToolCalled) -> int:
    """Digest of what was called and what came back. The order of keys makes no difference, nor whether the arguments
    came as an object or as its JSON text. What was cut still differs by its full length."""
    arguments = call.arguments
    if isinstance(arguments, str):
        arguments = _parsed(arguments)
    body = _sorted.encode((call.tool, arguments, call.result, call.error, call.full_lengths))
    return int.from_bytes(blake2b(body, digest_size=8).digest(), "big")


def _parsed(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.MsgspecError:
        return text


def shortened(ticket: str) -> str:
    """A ticket's name as its sum is kept under."""
    if len(ticket) <= _TICKET_LIMIT:
        return ticket
    return f"{ticket[:_TICKET_LIMIT]}…{blake2b(ticket.encode(), digest_size=8).hexdigest()}"
