"""What a cost is reckoned from. Apart from the prices: the process of the agent's code does not load those."""

from msgspec import Struct

from midwatch.contracts.money import Money
from midwatch.contracts.runs import Usage


class Billed(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model call as far as its price goes, or (without a model) a tool call that says what it cost. `failed`: it
    raised."""

    model: str = ""
    provider: str | None = None
    usage: Usage | None = None
    cost_usd: Money | None = None
    failed: bool = False
