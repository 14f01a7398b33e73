"""The operator's own prices, in one YAML file: every mistake in it at once, each with its place.

openai:
  gpt-4o-mini: {input: $0.15, output: $0.60, cache_read: $0.075}   # US dollars a million tokens
ollama:
  "*": {input: 0, output: 0}                                        # every model of it, free and said to be so
"""

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from genai_prices.types import ConditionalPrice, ModelPrice, StartDateConstraint, Tier, TieredPrices
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, ValidationError
from pydantic_core import ErrorDetails

from midwatch.contracts.money import read_money
from midwatch.errors import MidwatchError

from . import document
from .document import Document, Problem, Words
from .pricing import ANY, LOCAL, PROVIDERS, Override, canonical

_WORDS = Words(
    "list of prices", "keep the models that you use", "write prices into it or remove it",
    "it holds providers, models and their prices",
)  # fmt: skip
_EXAMPLE = "`gpt-4o-mini: {input: 0.15, output: 0.60}`"
_NEEDED = {
    "input": "US dollars a million input tokens, 0 where they cost nothing",
    "output": "US dollars a million output tokens, 0 where they cost nothing",
    "above": "the number of input tokens past which the tier holds",
}
# Our name of each rate, and genai-prices'.
RATES = {
    "input": "input_mtok", "output": "output_mtok", "cache_read": "cache_read_mtok", "cache_write": "cache_write_mtok",
    "reasoning": "output_reasoning_mtok",
}  # fmt: skip


class PriceErrors(MidwatchError):
    """The file of prices cannot be used. `lines` names every mistake as `path:line:column: what to do`."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


@dataclass(frozen=True, slots=True)
class PriceFile:
    """The prices in a file, and what in it is worth a remark."""

    overrides: tuple[Override, ...] = ()
    notes: tuple[str, ...] = ()


def _date(value: Any) -> date:
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError("must be a date such as 2026-01-31") from None


Money = Annotated[Decimal, BeforeValidator(lambda value: Decimal(read_money(value)))]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class _Tier(_Section):
    above: Annotated[StrictInt, Field(ge=1)]
    input: Money | None = None
    output: Money | None = None
    cache_read: Money | None = None
    cache_write: Money | None = None
    reasoning: Money | None = None


class _Price(_Section):
    start: Annotated[date | None, BeforeValidator(_date)] = Field(default=None, alias="from")
    input: Money
    output: Money
    cache_read: Money | None = None
    cache_write: Money | None = None
    reasoning: Money | None = None
    request: Money | None = None
    tiers: list[_Tier] = []


def read(path: Path) -> PriceFile:
    """The prices in the file. Raises PriceErrors."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PriceErrors([f"{path}: cannot be read: {(error.strerror or str(error)).lower()}"]) from None
    found = document.parse(content, _WORDS)
    reader = _Reader(path, found)
    if found.data is not None:
        reader.read()
    if found.problems:
        ordered = sorted(dict.fromkeys(found.problems), key=lambda problem: problem.place)
        raise PriceErrors([f"{path}:{place.line}:{place.column}: {message}" for place, message in ordered])
    return PriceFile(tuple(reader.overrides), tuple(reader.notes))


class _Reader:
    """Makes overrides of a document; what is wrong goes to its problems."""

    def __init__(self, path: Path, found: Document) -> None:
        self._path, self._document = path, found
        self._lines: dict[tuple[str, str], int] = {}
        self.overrides: list[Override] = []
        self.notes: list[str] = []

    def read(self) -> None:
        if not isinstance(self._document.data, dict):
            self._wrong((), f"it must hold providers, such as `openai:`, and below each models such as {_EXAMPLE}")
            return
        for provider, models in self._document.data.items():
            if not isinstance(models, dict):
                self._wrong((provider,), f"`{provider}` must hold models, such as {_EXAMPLE}")
                continue
            self._note(provider)
            for model, prices in models.items():
                self._model(provider, model, prices)

    def _model(self, provider: str, model: str, prices: Any) -> None:
        path: document.Path = (provider, model)
        name = model.strip().lower()
        line = self._document.place(path, of_key=True).line
        first = self._lines.setdefault((canonical(provider), name), line)
        if first != line:
            self._wrong(path, f"`{document.dotted(path)}` says again what is on line {first}: keep one", of_key=True)
        if "*" in name[:-1]:
            self._wrong(path, f"`{model}` has `*` inside: it may only end a name, for all that begin so", of_key=True)
            return
        several = prices if isinstance(prices, list) else [prices]
        read = [
            self._price((*path, place) if isinstance(prices, list) else path, each)
            for place, each in enumerate(several)
        ]
        dated = sorted((each for each in read if each is not None), key=lambda each: each.start or date.min)
        for one, other in pairwise(dated):
            if one.start == other.start:
                since = f"from {one.start}" if one.start else "without `from`"
                self._wrong(path, f"`{document.dotted(path)}` has two prices {since}: keep one", of_key=True)
        if not several:
            self._wrong(path, f"`{document.dotted(path)}` is empty: write a price such as {_EXAMPLE}")
        if dated:
            listed = [ConditionalPrice(_since(each.start), prices=_listed(each)) for each in dated]
            origin = f"{self._path}:{line}, {provider}/{model}"
            self.overrides.append(
                Override(canonical(provider), name.removesuffix("*"), name.endswith("*"), listed, origin)
            )

    def _price(self, path: document.Path, value: Any) -> _Price | None:
        if not isinstance(value, dict):
            self._wrong(path, f"`{document.dotted(path)}` must be a price such as {_EXAMPLE}, or a list of them")
            return None
        try:
            price = _Price.model_validate(value)
        except ValidationError as error:
            refused = {problem.place for problem in self._document.problems}  # what was not read is no second mistake
            for details in error.errors(include_url=False):
                problem = self._problem(path, details)
                if problem.place not in refused:
                    self._document.problems.append(problem)
            return None
        if len({tier.above for tier in price.tiers}) < len(price.tiers):
            self._wrong((*path, "tiers"), f"`{document.dotted(path)}.tiers` has two tiers above the same number")
        return price

    def _problem(self, path: document.Path, details: ErrorDetails) -> Problem:
        whole: document.Path = (*path, *details["loc"])
        if details["type"] == "extra_forbidden":
            in_tier = "tiers" in details["loc"]
            known = [field.alias or name for name, field in (_Tier if in_tier else _Price).model_fields.items()]
            message = document.no_key(whole, "a tier" if in_tier else "a price", known)
            return Problem(self._document.place(whole, of_key=True), message)
        message = f"`{document.dotted(whole)}` {_wrong(details)}"
        return Problem(self._document.place(whole), message)

    def _note(self, provider: str) -> None:
        name = provider.strip().lower()
        if name in PROVIDERS or name in LOCAL or name in (ANY, *PROVIDERS.values()):
            return
        near = get_close_matches(name, [*PROVIDERS, *LOCAL, ANY], n=1)
        hint = f"did you mean {near[0]!r}?" if near else "its prices hold for calls that name it so"
        place = self._document.place((provider,), of_key=True)
        self.notes.append(f"{self._path}:{place.line}: {provider!r} is no provider that Midwatch knows: {hint}")

    def _wrong(self, path: document.Path, message: str, *, of_key: bool = False) -> None:
        self._document.problems.append(Problem(self._document.place(path, of_key=of_key), message))


def _wrong(details: ErrorDetails) -> str:
    kind, last = details["type"], details["loc"][-1]
    if kind == "missing":
        return f"is missing: {_NEEDED[str(last)]}"
    if kind == "value_error":
        return str(details["ctx"]["error"])
    if kind == "list_type":
        return "must be a list: begin each of its lines with `- `"
    if last == "above":
        return "must be a whole number of tokens, 1 or more"
    return "must hold keys and values, such as `{above: 200000, input: 6}`"


def _since(start: date | None) -> StartDateConstraint | None:
    return None if start is None else StartDateConstraint(start)


def _listed(price: _Price) -> ModelPrice:
    """The price as genai-prices writes its own, so that one arithmetic serves both."""
    listed: dict[str, Decimal | TieredPrices | None] = {}
    for ours, theirs in RATES.items():
        base: Decimal | None = getattr(price, ours)
        tiers = [Tier(each.above, rate) for each in price.tiers if (rate := getattr(each, ours)) is not None]
        if base is None and tiers:
            base = price.output if ours == "reasoning" else price.input  # what holds where it is not said
        listed[theirs] = TieredPrices(base, tiers) if base is not None and tiers else base
    request = None if price.request is None else price.request.scaleb(3)
    return ModelPrice(**listed, requests_kcount=request)
