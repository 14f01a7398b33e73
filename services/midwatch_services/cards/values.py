"""How a card writes shares and times."""

import re
from decimal import Decimal

SHARE = r"^(100(\.0+)?|[0-9]{1,2}(\.[0-9]{1,12})?) ?%$"
TIME = r"^[0-9]{1,9}(\.[0-9]{1,6})? ?(s|m|h|days?)$"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "day": 86_400, "days": 86_400}


def share(value: object) -> float:
    """`20%` or 0.2 as a number from 0 to 1. Raises ValueError."""
    text = _plain(value)
    if text.endswith("%"):
        if not re.match(SHARE, text):
            raise ValueError("must be a share from 0% to 100%, such as 20%")
        return float(Decimal(text[:-1].strip()) / 100)
    try:
        number = Decimal(text)
    except ArithmeticError:
        number = Decimal("NaN")
    if not number.is_finite() or not re.match(r"^-?[0-9.]+$", text):
        raise ValueError("must be a share such as 20% or 0.2")
    if number < 0:
        raise ValueError("must not be negative: write a share from 0% to 100%")
    if number == 1:
        raise ValueError(f"{text} could be 1% or all: write 1% or 100%")
    if number > 1:
        raise ValueError(f"is a share: write {text}%" if number <= 100 else "must be a share from 0% to 100%")
    return float(number)


def seconds(value: object) -> float:
    """`5s`, `2m`, `1h` or `7 days` in seconds. Raises ValueError."""
    text = _plain(value)
    if re.match(r"^[0-9.]+$", text):
        raise ValueError(f"needs a unit: write {text}s (or m, h, days)")
    found = re.match(TIME, text)
    if not found:
        raise ValueError("must be a time such as 5s, 2m, 1h or 7 days")
    unit = found.group(2)
    return float(Decimal(text[: -len(unit)].strip()) * _SECONDS[unit])


def in_words(value: float) -> str:
    """Seconds as a card writes them: the largest unit that divides them."""
    for unit, size in (("days", 86_400), ("h", 3600), ("m", 60)):
        if value >= size and value % size == 0:
            count = int(value // size)
            return f"{count} {'day' if count == 1 else unit}" if unit == "days" else f"{count}{unit}"
    return f"{value:g}s"


def percent(value: float) -> str:
    """A share as a card writes it: 0.2 is `20%`."""
    return f"{(Decimal(repr(value)) * 100).normalize():f}%"


def _plain(value: object) -> str:
    # Booleans, lists and mappings are no number in any spelling.
    return str(value).strip() if isinstance(value, str | int | Decimal) and not isinstance(value, bool) else ""
