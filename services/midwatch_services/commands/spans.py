"""What people type for a time, a span, an amount. Pure."""

import re
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from zoneinfo import ZoneInfo

from midwatch.errors import MidwatchError

_SPAN = re.compile(r"^(\d+(?:\.\d+)?)(s|m|h|d)$")
_MOST_DOLLARS = 1_000_000
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class NoSpan(MidwatchError):
    """{value!r} is no span: write 90s, 15m, 2h or 7d"""


class NoTime(MidwatchError):
    """{value!r} is neither a span (15m, 2h, 7d) nor a time (2026-11-22T02:00)"""


class TooFarBack(MidwatchError):
    """{value!r} reaches back too far"""


class NoAmount(MidwatchError):
    """{value!r} is no amount of US dollars: write 0.50"""


def span(value: str) -> timedelta:
    """Raises NoSpan, TooFarBack."""
    found = _SPAN.match(value)
    if not found:
        raise NoSpan(value=value)
    try:
        return timedelta(**{_UNITS[found[2]]: float(found[1])})
    except OverflowError:
        raise TooFarBack(value=value) from None


def moment(value: str, now: datetime, zone: ZoneInfo | None = None) -> datetime:
    """The time that is written, or that many hours before `now`; a time without a zone is one of `zone`, or of this
    machine. Raises NoTime, TooFarBack."""
    if _SPAN.match(value):
        try:
            return now - span(value)
        except OverflowError:
            raise TooFarBack(value=value) from None
    try:
        time = datetime.fromisoformat(value)
        return time if time.tzinfo else time.replace(tzinfo=zone) if zone else time.astimezone()
    except (ValueError, OverflowError):
        raise NoTime(value=value) from None


def dollars(value: str) -> Decimal:
    """Raises NoAmount."""
    try:
        amount = Decimal(value.removeprefix("$"))
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or not 0 <= amount < _MOST_DOLLARS:
        raise NoAmount(value=value)
    return amount
