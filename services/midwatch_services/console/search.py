"""What a search asks, as its address says it: `?agent=desk&since=7d`. Pure."""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from midwatch_services.commands import spans

FILTERS = (
    "text", "agent", "version", "ticket", "customer", "mode", "resolution", "tool", "alert", "verdict", "cost_over",
    "cost_under", "slower_than", "since", "until",
)  # fmt: skip
MODES = ("live", "shadow", "eval", "drill", "replay")
RESOLUTIONS = ("resolved", "handed_off", "halted", "fell_back", "failed", "abandoned", "open")
VERDICTS = ("pass", "fail", "unsure", "waiting", "any")
_LONGEST = 500  # letters of one filter
# Why it cannot be asked, by names of `runs.wrong`.
_WHY = {spans.NoSpan: "span", spans.NoTime: "time", spans.TooFarBack: "far", spans.NoAmount: "amount"}
_CHOICES = {"mode": MODES, "resolution": RESOLUTIONS, "verdict": VERDICTS}

Place = tuple[str, str, str]  # of a run in the list: when its first event was, its id, its agent


@dataclass(frozen=True, slots=True)
class Search:
    """`typed`: what people wrote, by filter. `wrong`: by filter why it cannot be asked, a name of `runs.wrong`; the
    rest is as it is meant."""

    typed: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    cost_over: Decimal | None = None
    cost_under: Decimal | None = None
    slower_than: timedelta | None = None
    since: datetime | None = None
    until: datetime | None = None

    def word(self, name: str) -> str | None:
        """A filter that is asked as it is typed."""
        return self.typed.get(name)

    @property
    def narrows(self) -> bool:
        return bool(self.typed)

    def address(self, **more: str | None) -> str:
        """The part behind the question mark that asks the same."""
        return urlencode({**self.typed, **{name: value for name, value in more.items() if value}})


def parse(given: Mapping[str, str], now: datetime, zone: str) -> Search:
    """What an address asks. A time without a zone is one of `zone`."""
    typed = {name: text for name in FILTERS if (text := given.get(name, "").strip())}
    wrong = {name: "long" for name, text in typed.items() if len(text) > _LONGEST or "\0" in text}
    wrong |= {
        name: "choice" for name, some in _CHOICES.items() if name in typed and typed[name] not in some
    }  # fmt: skip
    place, found = ZoneInfo(zone), dict[str, Decimal | timedelta | datetime]()
    for name, text in typed.items():
        if name in wrong:
            continue
        try:
            if name in ("cost_over", "cost_under"):
                found[name] = spans.dollars(text)
            elif name == "slower_than":
                found[name] = spans.span(text)
            elif name in ("since", "until"):
                found[name] = spans.moment(text, now, place)
        except tuple(_WHY) as error:
            wrong[name] = _WHY[type(error)]
    return Search(typed=typed, wrong=wrong, **found)  # type: ignore[arg-type]


def packed(place: Place) -> str:
    """A place in a list, as an address holds it."""
    return base64.urlsafe_b64encode(json.dumps(place, ensure_ascii=False).encode()).decode().rstrip("=")


def unpacked(text: str) -> Place | None:
    """What `packed` made; None for what it did not."""
    try:
        found = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        first_at, run_id, agent = found
    except (ValueError, TypeError, binascii.Error, RecursionError):
        return None
    if not all(isinstance(part, str) for part in (first_at, run_id, agent)) or "\0" in f"{first_at}{run_id}{agent}":
        return None
    try:
        f"{run_id}{agent}".encode()  # no database takes half a letter
        return (first_at, run_id, agent) if datetime.fromisoformat(first_at).tzinfo else None
    except ValueError:
        return None
