"""`midwatch prices show|check`: what a model call would cost by our reckoning, and the file of your own prices."""

from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import FAILED, USAGE, JsonOption, clean, console, emit_json, fail

if TYPE_CHECKING:
    from midwatch.contracts.runs import Usage
    from midwatch.runtime.pricing import Cost, Rate, Rates, Tariff

_EXAMPLE = "input=1000,output=500"
_NAMES = {
    "input": "input_tokens", "output": "output_tokens", "cache_read": "cache_read_tokens",
    "cache_write": "cache_write_tokens", "reasoning": "reasoning_tokens",
}  # fmt: skip


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    prices = typer.Typer(help="Show and check the prices of models.", no_args_is_help=True)
    prices.command("show")(show)
    prices.command("check")(check)
    app.add_typer(prices, name="prices")


def show(
    provider: Annotated[str, typer.Argument(help="The provider as calls name it; `-` for none.")],
    model: Annotated[str, typer.Argument(help="The model as calls name it.")],
    tokens: Annotated[
        str, typer.Option(help="The example: input, output, cache_read, cache_write, reasoning.", metavar="NAME=N,…")
    ] = _EXAMPLE,
    on: Annotated[str | None, typer.Option(help="The price of this day, such as 2026-01-31. Default: today's.")] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Show the price that a model call would be charged at, where it comes from, and what an example costs.

    Exit code 1 if nobody knows a price, 2 for a mistake in the command.

    Example: midwatch prices show openai gpt-4o-mini --tokens input=2040,output=135,cache_read=1152
    """
    from midwatch.runtime import price_book, pricing
    from midwatch.runtime.price_file import PriceErrors
    from midwatch.runtime.settings import Settings

    usage, at = _usage(tokens), _day(on)
    settings = Settings()
    try:
        price_book.use(settings)
    except PriceErrors as error:
        for line in error.lines:
            typer.echo(clean(line), err=True)
        fail("your own prices have mistakes: a service keeps those that it read before them")
    name = None if provider == "-" else provider
    found = pricing.tariff(name, model)
    if found is None:
        fail(
            f"nobody lists a price of {model!r} of {provider!r}, so its calls are unpriced: "
            f"write one into {settings.prices_path}"
        )
    tariff, rates = found.at(at)
    cost = pricing.price(name, model, usage, None, at)
    if as_json:
        emit_json([_row(provider, model, tariff, rates, usage, cost)])
    else:
        _print(provider, model, tariff, rates, usage, cost)


def check(
    file: Annotated[
        Path | None, typer.Argument(help="Default: MIDWATCH_PRICES_FILE, or prices.yaml in the state folder.")
    ] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Check a file of your own prices. Exit code 1 if it has a mistake; each is named with its place.

    Example: midwatch prices check prices.yaml
    """
    from midwatch.runtime import price_book
    from midwatch.runtime.price_file import PriceErrors
    from midwatch.runtime.settings import Settings

    settings = Settings()
    path = file or settings.prices_path
    try:
        found = price_book.find(path, needed=bool(file or settings.prices_file))
    except PriceErrors as error:
        if as_json:
            emit_json({"error": line} for line in error.lines)
        else:
            for line in error.lines:
                typer.echo("".join(char if char.isprintable() else " " for char in line), err=True)
        raise typer.Exit(FAILED) from None
    if as_json:
        emit_json([{"path": str(path), "prices": len(found.overrides), "notes": found.notes}])
        return
    for note in found.notes:
        typer.echo(f"note: {note}", err=True)
    count = len(found.overrides)
    there = "there is no such file" if not path.exists() else "1 price" if count == 1 else f"{count} prices"
    typer.echo(f"{path}: ok, {there}; genai-prices has the rest")


def _usage(tokens: str) -> "Usage":
    from midwatch.contracts.runs import Usage

    counts: dict[str, int] = {}
    for part in tokens.split(","):
        name, _, count = (each.strip() for each in part.partition("="))
        if name not in _NAMES or not count.isdecimal():
            fail(f"--tokens {tokens!r}: write {', '.join(_NAMES)} with their numbers, such as {_EXAMPLE}", USAGE)
        counts[_NAMES[name]] = int(count)
    return Usage(**counts)


def _day(on: str | None) -> datetime:
    if on is None:
        return datetime.now(UTC)
    try:
        return datetime.combine(date.fromisoformat(on), time(12), UTC)
    except ValueError:
        fail(f"--on {on!r} is no date: write it as 2026-01-31", USAGE)


def _listed(rates: "Rates") -> dict[str, "Rate | None"]:
    return {name: getattr(rates, name) for name in _NAMES}


def _a_million(rate: Decimal) -> str:
    from midwatch.contracts.money import to_money

    return to_money(rate.scaleb(6))


def _row(
    provider: str, model: str, tariff: "Tariff", rates: "Rates", usage: "Usage", cost: "Cost"
) -> dict[str, Any]:  # fmt: skip
    from midwatch.contracts.money import to_money

    return {
        "provider": provider, "model": model, "basis": tariff.basis, "origin": tariff.origin,
        "usd_per_million": {
            name: None if rate is None else _a_million(rate.base) for name, rate in _listed(rates).items()
        },
        "tiers": {
            name: [{"above": start, "usd_per_million": _a_million(price)} for start, price in reversed(rate.tiers)]
            for name, rate in _listed(rates).items() if rate is not None and rate.tiers
        },
        "usd_per_request": to_money(rates.request),
        "example": {
            "usage": usage, "cost_usd": None if cost.amount is None else to_money(cost.amount),
            "cost_basis": cost.basis,
        },
    }  # fmt: skip


def _print(provider: str, model: str, tariff: "Tariff", rates: "Rates", usage: "Usage", cost: "Cost") -> None:
    from midwatch.contracts.money import to_money

    of = "" if provider == "-" else f" of {clean(provider)}"
    console.print(f"[bold]{clean(model)}[/]{of}: {tariff.basis}, by {clean(tariff.origin)}", soft_wrap=True)
    for name, rate in _listed(rates).items():
        text = "no price" if rate is None else f"${_a_million(rate.base)} a million tokens"
        tiers = "" if rate is None else "".join(
            f", ${_a_million(price)} above {start:,} of input" for start, price in reversed(rate.tiers)
        )  # fmt: skip
        console.print(f"  {name:12}{text}{tiers}", soft_wrap=True)
    if rates.request:
        console.print(f"  {'request':12}${to_money(rates.request)} each")
    used = ", ".join(f"{count:,} {name}" for name, field in _NAMES.items() if (count := getattr(usage, field)))
    costs = "unpriced" if cost.amount is None else f"${to_money(cost.amount)} ({cost.basis})"
    console.print(f"  {used or 'no tokens'}: {costs}")
