"""What a model call cost in US dollars, and how sure that figure is.

Prices are those shipped with the installed genai-prices release. Its own provider matching guesses (`azure.ai.openai`
becomes `openai`), so that provider names are mapped here, and a price borrowed from another provider says so.
"""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelInfo, ModelPrice, Provider, StartDateConstraint, TieredPrices, TimeOfDateConstraint

from midwatch.contracts.runs import CostBasis, Usage


class Cost(NamedTuple):
    """US dollars, or None where nobody knows (which is not free), with where the figure comes from."""

    amount: Decimal | None
    basis: CostBasis


# Names as OpenTelemetry (`gen_ai.provider.name`), its older releases, LiteLLM and the frameworks write them.
PROVIDERS = {
    "anthropic": "anthropic",
    "aws.bedrock": "aws", "aws_bedrock": "aws", "bedrock": "aws", "bedrock_converse": "aws",
    "azure.ai.openai": "azure", "azure.ai.inference": "azure", "az.ai.openai": "azure", "az.ai.inference": "azure",
    "azure": "azure", "azure_ai": "azure", "azure_openai": "azure",
    "cerebras": "cerebras",
    "cohere": "cohere", "cohere_chat": "cohere",
    "deepseek": "deepseek",
    "fireworks": "fireworks", "fireworks_ai": "fireworks",
    "gcp.vertex_ai": "google", "gcp.gemini": "google", "gcp.gen_ai": "google", "gemini": "google", "google": "google",
    "google-gla": "google", "google-vertex": "google", "google_genai": "google", "google_vertexai": "google",
    "vertex_ai": "google",
    "groq": "groq",
    "mistral": "mistral", "mistral_ai": "mistral", "mistralai": "mistral",
    "moonshot_ai": "moonshotai", "moonshot": "moonshotai", "moonshotai": "moonshotai",
    "openai": "openai", "text-completion-openai": "openai",
    "openrouter": "openrouter",
    "perplexity": "perplexity",
    "together": "together", "together_ai": "together",
    "x_ai": "x-ai", "x-ai": "x-ai", "xai": "x-ai",
}  # fmt: skip

# Models that run on one's own machine: a price of somebody else's would be wrong, not merely uncertain.
LOCAL = frozenset({
    "hosted_vllm", "llama.cpp", "llamacpp", "llamafile", "lm_studio", "lmstudio", "ollama", "ollama_chat", "vllm",
    "xinference",
})  # fmt: skip

# Weights that their maker gives away and does not serve: under its name the price is some host's.
_NOT_SERVED = {"openai": "gpt-oss"}

_NAME_LIMIT = 256  # characters; a longer name is no model's and would fill the cache
_SURENESS: tuple[CostBasis, ...] = ("reported", "priced", "estimated", "unpriced")
CEILING = Decimal(10) ** 12  # US dollars; a nonsensical cost stays a number that can be summed and written
_UNPRICED = Cost(None, "unpriced")


def price(provider: str | None, model: str, usage: Usage | None, reported: str | None, at: datetime) -> Cost:
    """The cost of one model call made at `at`.

    `reported` (US dollars) wins, unless it is a zero although tokens were used: frameworks write that for a model that
    they do not know. Cached tokens are part of `usage.input_tokens`, reasoning is part of `usage.output_tokens`.
    """
    tokens = 0 if usage is None else usage.input_tokens + usage.output_tokens
    if reported is not None:
        amount = Decimal(reported)
        if amount or not tokens:
            return Cost(min(amount, CEILING), "reported")
    if usage is None or not tokens:
        return _UNPRICED
    if len(model) > _NAME_LIMIT or (provider is not None and len(provider) > _NAME_LIMIT):
        return _UNPRICED
    tariff = _tariff(provider, model)
    return _UNPRICED if tariff is None else tariff.cost(usage, at)


def or_estimate(cost: Cost, estimate: str | None) -> Cost:
    """The cost, or what the agent counted the call as (US dollars) where nobody knows it."""
    if cost.amount is not None or estimate is None:
        return cost
    return Cost(min(Decimal(estimate), CEILING), "estimated")


async def load() -> None:
    """Reads the price list, which takes a moment, before the first event needs it."""
    get_snapshot()


def worst(a: CostBasis, b: CostBasis) -> CostBasis:
    """The less sure of two bases: what a sum of both is worth."""
    return a if _SURENESS.index(a) >= _SURENESS.index(b) else b


class _Rate:
    """US dollars a token; past a tier's threshold of input tokens, its rate holds for every token of the call."""

    __slots__ = ("base", "tiers")

    def __init__(self, listed: Decimal | TieredPrices) -> None:
        tiers = listed.tiers if isinstance(listed, TieredPrices) else []
        base = listed.base if isinstance(listed, TieredPrices) else listed
        self.base = base.scaleb(-6)  # the list gives dollars a million
        self.tiers = [(tier.start, tier.price.scaleb(-6)) for tier in reversed(tiers)]

    def at(self, input_tokens: int) -> Decimal:
        for start, rate in self.tiers:
            if input_tokens > start:
                return rate
        return self.base


class _Rates:
    """The token rates of one model while one price list holds."""

    __slots__ = ("cache_read", "cache_write", "input", "output", "reasoning", "request")

    def __init__(self, listed: ModelPrice) -> None:
        def rate(key: str) -> _Rate | None:
            value = getattr(listed, key)
            return None if value is None else _Rate(value)

        self.input = rate("input_mtok")
        self.output = rate("output_mtok")
        self.cache_read = rate("cache_read_mtok") or self.input
        self.cache_write = rate("cache_write_mtok") or self.input
        self.reasoning = rate("output_reasoning_mtok") or self.output
        request = listed.requests_kcount
        self.request = request.scaleb(-3) if isinstance(request, Decimal) else Decimal(0)

    def amount(self, usage: Usage) -> tuple[Decimal | None, bool]:
        """Dollars (None where a rate is missing), and whether the counts kept the contract.

        Some sources count the input without what was cached, or the output without its reasoning. Where a part is
        larger than its whole, that is what happened: both are charged."""
        read, written, reasoning = usage.cache_read_tokens, usage.cache_write_tokens, usage.reasoning_tokens
        plain, said = usage.input_tokens - read - written, usage.output_tokens - reasoning
        regular = plain >= 0 and said >= 0
        if plain < 0:
            plain = usage.input_tokens
        if said < 0:
            said = usage.output_tokens
        size, total = plain + read + written, self.request
        for rate, tokens in (
            (self.input, plain), (self.cache_read, read), (self.cache_write, written),
            (self.output, said), (self.reasoning, reasoning),
        ):  # fmt: skip
            if tokens:
                if rate is None:
                    return None, regular
                total += rate.at(size) * tokens
        return total, regular


class _Tariff:
    """The price lists of one model, the one that takes precedence first, as genai-prices orders them."""

    __slots__ = ("_basis", "_first", "_lists")

    def __init__(self, model: ModelInfo, basis: CostBasis) -> None:
        self._basis: CostBasis = basis
        listed = model.prices
        self._lists: list[tuple[StartDateConstraint | TimeOfDateConstraint | None, _Rates]]
        if isinstance(listed, ModelPrice):
            self._lists = [(None, _Rates(listed))]
        else:
            self._lists = [(each.constraint, _Rates(each.prices)) for each in reversed(listed)]
        self._first = self._lists[-1][1]

    def cost(self, usage: Usage, at: datetime) -> Cost:
        rates = self._first  # what held before any date in the list
        for constraint, candidate in self._lists:
            if constraint is None or constraint.active(at):
                rates = candidate
                break
        amount, regular = rates.amount(usage)
        if amount is None:
            return _UNPRICED
        return Cost(min(amount, CEILING), self._basis if regular else "estimated")


@lru_cache(maxsize=4096)
def _tariff(provider: str | None, model: str) -> _Tariff | None:
    name, ref = (provider or "").strip().lower(), model.strip().lower()
    prefix, _, rest = ref.partition("/")
    if name in LOCAL or (rest and prefix in LOCAL):
        return None
    named, prefixed = PROVIDERS.get(name), PROVIDERS.get(prefix) if rest else None
    refs = [ref, rest] if prefixed else [ref]
    if name in ("", "litellm"):  # LiteLLM as the provider only says that the model's name carries it
        named = prefixed
    found = _listed(named, refs) if named else None
    if found is None and prefixed and prefixed != named:
        found = _listed(prefixed, [rest], basis="estimated")
    return found or next(filter(None, map(_by_model, refs)), None)


def _listed(provider_id: str, refs: Iterable[str], basis: CostBasis = "priced") -> _Tariff | None:
    providers = get_snapshot().providers
    provider = next((p for p in providers if p.id == provider_id), None)
    if provider is None:
        return None
    for ref in refs:
        model = provider.find_model(ref, all_providers=providers)
        if model is not None:
            return _Tariff(model, basis if _sells(provider, model) else "estimated")
    return None


def _sells(provider: Provider, model: ModelInfo) -> bool:
    """Whether the price is the provider's own, not one that genai-prices borrows from another."""
    given_away = _NOT_SERVED.get(provider.id)
    if given_away is not None and model.id.startswith(given_away):
        return False
    return any(model is own for own in provider.models)


def _by_model(ref: str) -> _Tariff | None:
    # Not through the snapshot's own search: it remembers every name that it did not find, for ever.
    providers = get_snapshot().providers
    maker = next((p for p in providers if p.model_match is not None and p.model_match.is_match(ref)), None)
    model = maker.find_model(ref, all_providers=providers) if maker is not None else None
    return _Tariff(model, "estimated") if model is not None else None
