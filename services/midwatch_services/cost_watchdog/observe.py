"""What of a run event is judged: its cost, its tool call's digest, its place in the run, and what the rules know."""

from collections.abc import Mapping
from hashlib import blake2b

import msgspec

from midwatch.contracts.codec import RunEvent
from midwatch.contracts.control import ToolRule
from midwatch.contracts.runs import Finished, HumanActed, ModelCalled, ToolCalled
from midwatch.runtime.pricing import or_estimate, price, tool_cost

from .decide import Observed
from .policy import TOOL_LIMIT
from .rules.facts import facts_of, normalised
from .state import Subject

_TICKET_LIMIT = 200  # characters
_LARGEST_SEQ = 2**63 - 1  # as the run log writes one that is larger
_TOKENS_LIMIT = 10**12  # a nonsensical count stays a number that can be summed and saved
_sorted = msgspec.json.Encoder(order="sorted")


_NO_TOOLS: Mapping[str, ToolRule] = {}


def observe(event: RunEvent, tools: Mapping[str, ToolRule] = _NO_TOOLS) -> Observed:
    """The event as `decide` takes it. `tools`: those of the agent's card, which may say what a call costs."""
    data, cost, tool, pair, finished = event.data, None, "", None, None
    tokens: int | None = None
    if isinstance(data, ModelCalled):
        tokens = min(data.usage.input_tokens + data.usage.output_tokens, _TOKENS_LIMIT) if data.usage else 0
        cost = price(data.provider, data.model, data.usage, data.cost_usd, event.time)
        cost = or_estimate(cost, data.estimate_usd)
    elif isinstance(data, ToolCalled):
        tool, pair = data.tool[:TOOL_LIMIT], pair_of(data)
        rule = tools.get(data.tool)
        cost = tool_cost(data.cost_usd, rule.cost if rule else None)
    elif isinstance(data, Finished):
        finished = data.resolution
    return Observed(
        run=Subject(data.mode, event.agent, data.run_id),
        event_id=event.id,
        # The system where people work counts for itself: its events have no place among the agent's.
        seq=None if isinstance(data, HumanActed) else min(data.seq, _LARGEST_SEQ),
        ticket=shortened(data.ticket) if data.ticket else None,
        cost=cost,
        tokens=tokens,
        tool=tool,
        pair=pair,
        finished=finished,
        facts=facts_of(event, cost),
    )


def pair_of(call: ToolCalled) -> int:
    """Digest of what was called and what came back. The order of keys makes no difference, nor whether the arguments
    came as an object or as its JSON text. What was cut still differs by its full length."""
    body = _sorted.encode((call.tool, normalised(call.arguments), call.result, call.error, call.full_lengths))
    return int.from_bytes(blake2b(body, digest_size=8).digest(), "big")


def shortened(ticket: str) -> str:
    """A ticket's name as its sum is kept under."""
    if len(ticket) <= _TICKET_LIMIT:
        return ticket
    return f"{ticket[:_TICKET_LIMIT]}…{blake2b(ticket.encode(), digest_size=8).hexdigest()}"
