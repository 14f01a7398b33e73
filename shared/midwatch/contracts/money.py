"""Money on the wire: a decimal string of US dollars, never a float. And as people write and read it."""

import re
from decimal import ROUND_DOWN, Context, Decimal
from typing import Annotated

from msgspec import Meta

Money = Annotated[str, Meta(pattern=r"^[0-9]+(\.[0-9]+)?$", description="US dollars as a decimal string, not negative")]

WRITTEN = r"^\$?[0-9]{1,12}(\.[0-9]{1,12})?$"  # in a file of ours
_TRILLIONTH = Decimal("0.000000000001")
_exact = Context(prec=60)


def to_money(amount: Decimal | float | int | str) -> str:
    """The wire form of an amount in US dollars, rounded to 12 places, without exponent or trailing zeros.

    A float is read by its shortest form, so that 0.1 stays "0.1".
    Raises ValueError for an amount that is negative or no number.
    """
    value = Decimal(repr(amount)) if isinstance(amount, float) else Decimal(str(amount))
    if not value.is_finite() or value < 0:
        raise ValueError(f"{amount!r} is no amount of money: give US dollars, zero or more")
    text = format(value.quantize(_TRILLIONTH), "f").rstrip("0").rstrip(".")
    return text or "0"


def read_money(value: object) -> str:
    """`$1`, 1 or 0.50, as a file of ours writes it, in the form of the wire. Raises ValueError."""
    # Booleans, lists and mappings are no amount in any spelling.
    plain = isinstance(value, str | int | Decimal) and not isinstance(value, bool)
    text = str(value).strip() if plain else ""
    if text.lstrip("$").startswith("-"):
        raise ValueError("must not be negative: write US dollars such as $1 or 0.50")
    if not re.match(WRITTEN, text):
        raise ValueError("must be US dollars such as $1 or 0.50")
    return to_money(text.removeprefix("$"))


def dollars(amount: Decimal) -> str:
    """An amount for people: cents, or more places where it is small, then without trailing zeros. Cut, so that a
    budget is not reached in words before it is in fact."""
    places = 2 if amount >= Decimal("0.1") or not amount else 4 if amount >= Decimal("0.001") else 8
    shown = amount.quantize(Decimal(1).scaleb(-places), rounding=ROUND_DOWN, context=_exact)
    return f"${shown:,f}".rstrip("0") if places == 8 and shown else f"${shown:,f}"
