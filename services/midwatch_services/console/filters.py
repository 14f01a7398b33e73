"""How values are written on a page: other people's words, times, money, spans. Pure."""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from markupsafe import Markup, escape

from midwatch.contracts.money import dollars
from midwatch_services.commands import story

from . import plain, texts

CUT = 600  # characters of one text, unless all of it is asked for
_CELL = re.compile(r"<t([dh])((?: [^>]*)?>)")
# What steers a terminal or a line's direction, or cannot be seen at all; but not what joins letters and emoji.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\ue000-\uf8ff\U000e0000-\U000e007f]"
)


def said(value: Any, limit: int | None = None) -> str:
    """What an agent or a customer wrote, as plain text in which nothing hides: the template escapes it."""
    text = plain.words(value, None if limit is None else limit + 1)
    if limit is not None and len(text) > limit:
        text = f"{text[:limit]}…"
    return _HIDDEN.sub(_shown, text.replace("\r\n", "\n"))


def _shown(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)  # the letter's own picture, such as ␛
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"


def is_cut(value: Any, limit: int = CUT) -> bool:
    """Whether `said` cuts it at that length."""
    return len(plain.words(value, limit + 1)) > limit


def when(at: datetime | str | None) -> Markup | str:
    """A moment, which the browser writes in its reader's zone and in words; without scripts it is UTC."""
    if at is None or at == "":
        return "–"
    moment = (datetime.fromisoformat(at) if isinstance(at, str) else at).astimezone(UTC)
    written = moment.isoformat(timespec="seconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}" data-when>{:%Y-%m-%d %H:%M} UTC</time>').format(written, moment)


def money(amount: Decimal | str | float | None) -> str:
    """US dollars; what nobody knows is no zero."""
    if amount is None:
        return texts.load()("base.unknown")
    if isinstance(amount, float):
        amount = round(amount, 8)  # a sum of nine times $0.10 falls short of $0.90, and amounts are cut
    return dollars(amount if isinstance(amount, Decimal) else Decimal(str(amount)))


def took(seconds: float | None) -> str:
    """A span of time as a person says it."""
    if seconds is None:
        return "–"
    return f"{seconds * 1000:.0f} ms" if seconds < 0.1 else f"{seconds:.1f} s" if seconds < 10 else story.span(seconds)


def number(value: float | None) -> str:
    """A count with its thousands apart."""
    return "–" if value is None else f"{value:,}"


def share(part: float | None) -> str:
    """A part of one as per cent; what is there is never nothing, and what is not all is never all."""
    if part is None:
        return "–"
    t = texts.load()
    if 0 < part < 0.01:
        return t("base.share.least")
    return t("base.share.most") if 0.99 < part < 1 else t("base.share.some", part=f"{part * 100:.0f}")


def day(of: date | str, form: str = "day") -> str:
    """A day, which may be ISO text, as people write it: `day`, `year`, `short` or `date`, as the catalogue has them."""
    t, of = texts.load(), date.fromisoformat(of) if isinstance(of, str) else of
    names = {"weekday": t(f"base.weekdays.{of.isoweekday()}"), "month": t(f"base.months.{of.month}")}
    return t(f"base.days.{form}", **names, day=str(of.day), year=str(of.year))


def lines(text: str) -> Markup:
    """A text of ours with its line breaks."""
    return Markup("<br>").join(escape(line) for line in text.splitlines())


def coded(text: str) -> Markup:
    """A sentence in which commands stand between backticks, as a page shows them."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    shown = (Markup("<code>{}</code>").format(part) if at % 2 else escape(part) for at, part in enumerate(parts))
    return Markup("").join(shown)


def cost(run: dict[str, Any]) -> str:
    """What a run cost; how that is known is said where it is less than sure."""
    if run["cost_basis"] == "priced" and run["cost_usd"] is not None:
        return money(run["cost_usd"])
    return story.cost(run)


def labelled(cells: str, columns: Sequence[str]) -> Markup:
    """The cells of a row, each with the name of its column for screens that are too narrow for a table; one that has a
    name of its own keeps it."""
    names = iter(columns)

    def label(match: re.Match[str]) -> str:
        name = next(names, "").lstrip("#")
        kind, rest = match[1], match[2]
        wanted = kind == "d" and name and "data-label=" not in rest
        return f'<td data-label="{escape(name)}"{rest}' if wanted else match[0]

    return Markup(_CELL.sub(label, cells))  # noqa: S704 — a template made the cells, and escaped what is in them


FILTERS = {
    "said": said, "opened": plain.opened, "is_cut": is_cut, "when": when, "day": day, "money": money, "took": took,
    "number": number, "share": share, "lines": lines, "coded": coded, "cost": cost, "labelled": labelled,
    "run_took": story.took,
}  # fmt: skip
