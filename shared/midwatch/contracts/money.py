"""Money on the wire: a decimal string of US dollars, never a float."""

from decimal import Decimal
from typing import Annotated

from msgspec import Meta

Money = Annotated[str, Meta(pattern=r"^[0-9]+(\.[0-9]+)?$", description="US dollars as a decimal string, not negative")]

_TRILLIONTH = Decimal("0.000000000001")


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
