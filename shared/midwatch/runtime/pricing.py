"""What a model call cost in US dollars, and how sure that figure is.

Prices are the operator's own (`use`), else those shipped with the installed genai-prices release. Its own provider
matching guesses (`azure.ai.openai` becomes `openai`), so that provider names are mapped here, and a price borrowed from
another provider says so.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from importlib.metadata import version
from typing import Literal, NamedTuple

from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import (
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    Provider,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
)
from msgspec.structs import replace

from midwatch.contracts.runs import CostBasis, Usage


class Cost(NamedTuple):
    """US dollars, or None where nobody knows (which is not free), with where the figure comes from. `computed`: what
    the prices make of a call whose cost was reported, where they know it, and how sure that is."""

    amount: Decimal | None
    basis: CostBasis
    computed: Decimal | None = None
    computed_basis: CostBasis | None = None


class Override(NamedTuple):
    """An operator's price of a model, or with `prefix` of every model whose name begins so. `provider` is as
    `canonical` writes it, or ANY. The last of `prices` whose date has come holds. `origin`: where it is written."""

    provider: str
    model: str
    prefix: bool
    prices: list[ConditionalPrice]
    origin: str


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
LOCAL = {
    "hosted_vllm": "vllm", "vllm": "vllm",
    "llama.cpp": "llama.cpp", "llamacpp": "llama.cpp",
    "llamafile": "llamafile",
    "lm_studio": "lm_studio", "lmstudio": "lm_studio",
    "ollama": "ollama", "ollama_chat": "ollama",
    "xinference": "xinference",
}  # fmt: skip
ANY = "any"  # in place of a provider's name: whoever it is, but no local one

# Weights that their maker gives away and does not serve: under its name the price is some host's.
_NOT_SERVED = {"openai": "gpt-oss"}

_UNNAMED = ("", "litellm")  # LiteLLM as the provider only says that the model's name carries it
_NAME_LIMIT = 256  # characters; a longer name is no model's and would fill the cache
_SURENESS: tuple[CostBasis, ...] = ("reported", "priced", "estimated", "unpriced")
CEILING = Decimal(10) ** 12  # US dollars; a nonsensical cost stays a number that can be summed and written
_UNPRICED = Cost(None, "unpriced")
_APART = Decimal("0.05")  # share of what was reported by which a computed cost may be another
_DUST = Decimal("0.0001")  # US dollars; a smaller difference is none


def price(provider: str | None, model: str, usage: Usage | None, reported: str | None, at: datetime) -> Cost:
    """The cost of one model call made at `at`.

    `reported` (US dollars) wins, unless it is a zero although tokens were used: frameworks write that for a model that
    they do not know. Cached tokens are part of `usage.input_tokens`, reasoning is part of `usage.output_tokens`.
    """
    tokens = 0 if usage is None else usage.input_tokens + usage.output_tokens
    if reported is not None:
        amount = Decimal(reported)
        if amount and tokens:
            computed = _computed(provider, model, usage, at)
            return Cost(min(amount, CEILING), "reported", *(() if computed.amount is None else computed[:2]))
        if amount or not tokens:
            return Cost(min(amount, CEILING), "reported")
    return _computed(provider, model, usage, at) if tokens else _UNPRICED


def tool_cost(reported: str | None, by_card: str | None) -> Cost | None:
    """The cost of one tool call: what it reported itself, else what the card says that it costs, if that says so."""
    if reported is not None:
        return Cost(min(Decimal(reported), CEILING), "reported")
    return None if by_card is None else Cost(min(Decimal(by_card), CEILING), "estimated")


def agreement(cost: Cost) -> Literal["agrees", "differs"] | None:
    """Whether what was reported and what we compute are the same within 5 %. None where there is nothing to compare,
    or so little that the difference is dust."""
    if cost.computed is None or cost.amount is None:
        return None
    apart = abs(cost.amount - cost.computed)
    if apart <= cost.amount * _APART:
        return "agrees"
    return "differs" if apart > _DUST else None


def cached_would_explain(provider: str | None, model: str, usage: Usage | None, cost: Cost, at: datetime) -> bool:
    """Whether a call is reported cheaper than computed by no more than cached tokens would make it. Some sources
    report what such a call cost, and not how many of its tokens were cached."""
    if usage is None or usage.cache_read_tokens or cost.amount is None or cost.computed is None:
        return False
    all_cached = replace(usage, cache_read_tokens=max(0, usage.input_tokens - usage.cache_write_tokens))
    least = _computed(provider, model, all_cached, at).amount
    return least is not None and least <= cost.amount < cost.computed


def canonical(provider: str) -> str:
    """One name for all the names of a provider."""
    name = provider.strip().lower()
    return PROVIDERS.get(name) or LOCAL.get(name, name)


def use(overrides: Iterable[Override]) -> None:
    """From now on these prices come before those of genai-prices."""
    global _book
    _book = _Book(overrides)


def or_estimate(cost: Cost, estimate: str | None) -> Cost:
    """The cost, or what the agent counted the call as (US dollars) where nobody knows it."""
    if cost.amount is not None or estimate is None:
        return cost
    return cost._replace(amount=min(Decimal(estimate), CEILING), basis="estimated")


async def load() -> None:
    """Reads the price list, which takes a moment, before the first event needs it."""
    get_snapshot()


def worst(a: CostBasis, b: CostBasis) -> CostBasis:
    """The less sure of two bases: what a sum of both is worth."""
    return a if _SURENESS.index(a) >= _SURENESS.index(b) else b


class Rate:
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


class Rates:
    """The token rates of one model while one price list holds."""

    __slots__ = ("cache_read", "cache_write", "input", "output", "reasoning", "request")

    def __init__(self, listed: ModelPrice) -> None:
        def rate(key: str) -> Rate | None:
            value = getattr(listed, key)
            return None if value is None else Rate(value)

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
                total += (rate.at(size) if rate.tiers else rate.base) * tokens
        return total, regular


class Tariff:
    """The price lists of one model, the one that takes precedence first, as genai-prices orders them. `before`: what
    held before the first date of lists that all have one; without it, the first list."""

    __slots__ = ("_always", "_before", "_first", "_lists", "basis", "origin")

    def __init__(
        self, listed: ModelPrice | list[ConditionalPrice], basis: CostBasis, origin: str, before: "Tariff | None" = None
    ) -> None:
        self.basis: CostBasis = basis
        self.origin = origin
        self._lists: list[tuple[StartDateConstraint | TimeOfDateConstraint | None, Rates]]
        if isinstance(listed, ModelPrice):
            self._lists = [(None, Rates(listed))]
        else:
            self._lists = [(each.constraint, Rates(each.prices)) for each in reversed(listed)]
        self._first = self._lists[-1][1]
        self._before = before
        self._always = len(self._lists) == 1 and self._lists[0][0] is None

    def at(self, at: datetime) -> tuple["Tariff", Rates]:
        """The rates that hold at a time, and the tariff that they are of."""
        for constraint, rates in self._lists:
            if constraint is None or constraint.active(at):
                return self, rates
        return (self, self._first) if self._before is None else self._before.at(at)

    def cost(self, usage: Usage, at: datetime) -> Cost:
        tariff, rates = (self, self._first) if self._always else self.at(at)
        amount, regular = rates.amount(usage)
        if amount is None:
            return _UNPRICED
        return Cost(min(amount, CEILING), tariff.basis if regular else "estimated")


class _Book:
    """The overrides in force, with every tariff found under them. It is replaced whole, so that no thread which is
    looking a price up can leave an old one among the new."""

    def __init__(self, overrides: Iterable[Override] = ()) -> None:
        self._overrides: dict[str, list[Override]] = {}
        for each in overrides:
            self._overrides.setdefault(each.provider, []).append(each)
        for of_provider in self._overrides.values():
            of_provider.sort(key=lambda each: (each.prefix, -len(each.model)))  # the closest match comes first
        self.tariff = lru_cache(maxsize=4096)(self._find)

    def _find(self, provider: str | None, model: str) -> Tariff | None:
        name, ref = (provider or "").strip().lower(), model.strip().lower()
        listed = _find_listed(name, ref)
        for of_provider, refs, basis in self._asked(name, ref):
            for override in self._overrides.get(of_provider, ()):
                if any(each.startswith(override.model) if override.prefix else each == override.model for each in refs):
                    before = listed if override.prices[0].constraint is not None else None
                    return Tariff(override.prices, basis, override.origin, before)
        return listed

    def _asked(self, name: str, ref: str) -> Iterator[tuple[str, list[str], CostBasis]]:
        """Under which providers a model's override may stand, the closest first, and how sure each is."""
        if not self._overrides:
            return
        prefix, _, rest = ref.partition("/")
        prefixed = canonical(prefix) if rest and (prefix in PROVIDERS or prefix in LOCAL or name == prefix) else None
        refs = [ref, rest] if prefixed else [ref]
        unnamed = name in _UNNAMED
        if not unnamed:
            yield canonical(name), refs, "priced"
        if prefixed:
            yield prefixed, [rest], "priced" if unnamed or prefix in LOCAL else "estimated"
        if name in LOCAL or prefixed in LOCAL:
            return
        yield ANY, refs, "priced"
        if unnamed and not prefixed and (maker := _maker(ref)):
            yield maker.id, refs, "estimated"


_book = _Book()


def tariff(provider: str | None, model: str) -> Tariff | None:
    """The prices of a model; None where nobody lists it."""
    if len(model) > _NAME_LIMIT or (provider is not None and len(provider) > _NAME_LIMIT):
        return None
    return _book.tariff(provider, model)


def _computed(provider: str | None, model: str, usage: Usage | None, at: datetime) -> Cost:
    found = tariff(provider, model) if usage is not None else None
    return _UNPRICED if found is None or usage is None else found.cost(usage, at)


def _find_listed(name: str, ref: str) -> Tariff | None:
    """What genai-prices lists."""
    prefix, _, rest = ref.partition("/")
    if name in LOCAL or (rest and prefix in LOCAL):
        return None
    named, prefixed = PROVIDERS.get(name), PROVIDERS.get(prefix) if rest else None
    refs = [ref, rest] if prefixed else [ref]
    if name in _UNNAMED:
        named = prefixed
    found = _listed(named, refs) if named else None
    if found is None and prefixed and prefixed != named:
        found = _listed(prefixed, [rest], basis="estimated")
    return found or next(filter(None, map(_by_model, refs)), None)


def _listed(provider_id: str, refs: Iterable[str], basis: CostBasis = "priced") -> Tariff | None:
    providers = get_snapshot().providers
    provider = next((p for p in providers if p.id == provider_id), None)
    if provider is None:
        return None
    for ref in refs:
        model = provider.find_model(ref, all_providers=providers)
        if model is not None:
            return _of_list(provider, model, basis if _sells(provider, model) else "estimated")
    return None


def _sells(provider: Provider, model: ModelInfo) -> bool:
    """Whether the price is the provider's own, not one that genai-prices borrows from another."""
    given_away = _NOT_SERVED.get(provider.id)
    if given_away is not None and model.id.startswith(given_away):
        return False
    return any(model is own for own in provider.models)


def _by_model(ref: str) -> Tariff | None:
    maker = _maker(ref)
    model = maker.find_model(ref, all_providers=get_snapshot().providers) if maker is not None else None
    return None if maker is None or model is None else _of_list(maker, model, "estimated")


def _maker(ref: str) -> Provider | None:
    # Not through the snapshot's own search: it remembers every name that it did not find, for ever.
    return next(
        (p for p in get_snapshot().providers if p.model_match is not None and p.model_match.is_match(ref)), None
    )


def _of_list(provider: Provider, model: ModelInfo, basis: CostBasis) -> Tariff:
    return Tariff(model.prices, basis, f"genai-prices {_release()}, {provider.id}/{model.id}")


@lru_cache(maxsize=1)
def _release() -> str:
    return version("genai-prices")
