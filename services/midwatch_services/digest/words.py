"""How counts, money, time and other people's words are put into plain sentences. Pure."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from decimal import ROUND_HALF_UP, Decimal

from midwatch.contracts.money import dollars
from midwatch.contracts.subjects import FLEET

from .facts import Key, Run, Sentence, Source
from .policy import QUOTED, SAMPLES

_QUOTE = 16  # words of a customer that are shown
_LONGEST = 24  # characters of one word
_EDGES = ".,;:!?\"'()[]{}<>#“”‘’*`"
_ORDINARY = re.compile(
    r"\d{1,4}|\d{1,2}(st|nd|rd|th|am|pm|x|h|k)|\$?\d[\d,]*(\.\d+)?%?|\d{1,2}:\d{2}(am|pm)?", re.IGNORECASE
)
_CODE = re.compile(r"[A-Z]{5,}")  # of a reservation and the like
_GREETING = re.compile(r"(hi|hello|hey|good (morning|afternoon|evening))( there| again)?[\s,.!–-]+", re.IGNORECASE)
_LONG_NUMBER = re.compile(r"\+?\d(?:[ -]?\d){8,}")  # of a card, an account or a phone, however it is written
_MARKUP = re.compile(r"#{3}[A-Z-]+#{3}")
_DASH = "–"
_THIN = "\u00a0"  # a space at which no line breaks


def many(count: int, one: str, several: str = "") -> str:
    """`1 run`, `3 runs`, `no runs`."""
    noun = one if count == 1 else several or f"{one}s"
    return f"{count:,} {noun}" if count else f"no {noun}"


def was(count: int) -> str:
    return "was" if count == 1 else "were"


def has(count: int) -> str:
    return "has" if count == 1 else "have"


def share(part: int, whole: int) -> str:
    """A part of a whole in per cent, rounded; what is there is never nothing, and what is not all is never all."""
    if not whole or not part:
        return f"0{_THIN}%"
    rounded = int((Decimal(100 * part) / whole).to_integral_value(ROUND_HALF_UP))
    if rounded == 0:
        return f"less than 1{_THIN}%"
    return f"more than 99{_THIN}%" if rounded == 100 and part < whole else f"{rounded}{_THIN}%"


def percent(ratio: Decimal) -> str:
    """How much of a limit is used, cut, so that it is not reached in words before it is in fact."""
    whole = int(100 * ratio)
    return f"{whole:,}{_THIN}%" if whole else f"less than 1{_THIN}%"


def money(amount: Decimal) -> str:
    """An amount for people. Sums of a database's floating point are put right at the millionth of a cent first."""
    return dollars(amount.quantize(Decimal("0.00000001")))


def length(seconds: float) -> str:
    """A length of time in words: `40 seconds`, `2 minutes`, `1 hour 5 minutes`, `3 days`."""
    if seconds < 1:
        return "less than a second"
    if round(seconds) < 120:
        return many(round(seconds), "second")
    minutes = round(seconds / 60)
    if minutes < 120:
        return many(minutes, "minute")
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return many(round(hours / 24), "day")
    rest = f" {many(minutes, 'minute')}" if minutes and hours < 12 else ""
    return f"{many(hours, 'hour')}{rest}"


def title(agent: str, of: date) -> str:
    """The title of a digest."""
    return f"{upper(name(agent))}: {day(of)}"


def day(of: date) -> str:
    """`Wednesday, 25 November 2026`."""
    return f"{of:%A}, {of.day} {of:%B} {of.year}"


def listed(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1]))) if parts else ""


def upper(text: str) -> str:
    """The text with a capital letter at its beginning."""
    return text[:1].upper() + text[1:]


def name(agent: str) -> str:
    """An agent as people are told of it."""
    return "the whole shop" if agent == FLEET else agent.replace("_", "-").strip("-")


def tool(named: str) -> str:
    """A tool's name as words."""
    return " ".join(
        re.sub(r"(?<=[a-z])(?=[A-Z])", " ", plain(named)).replace("_", " ").replace("-", " ").lower().split()
    )


def plain(text: str) -> str:
    """What somebody wrote, on one line: without what could steer a screen, ids left out, field names as words."""
    text = _MARKUP.sub(" ", "".join(char if char.isprintable() else " " for char in text))
    text = _LONG_NUMBER.sub("…", text)
    found: list[str] = []
    letters = [char for char in text if char.isalpha()]
    shouts = sum(char.isupper() for char in letters) > len(letters) / 2
    for token in text.split():
        core = token.strip(_EDGES)
        if "_" in core and core.replace("_", "").isalpha():
            token = token.replace("_", " ").strip()
        elif _is_id(core) or (not shouts and _CODE.fullmatch(core)):
            token = "…" + token[-1] if token[-1] in ".,;:!?" else "…"
        if token[0] != "…" or not found or found[-1][0] != "…":
            found.append(token)
    return " ".join(found)


def _is_id(core: str) -> bool:
    if "_" in core or "@" in core or "://" in core or len(core) > _LONGEST:
        return True
    if _ORDINARY.fullmatch(core) and (core[0] == "$" or sum(char.isdigit() for char in core) < 6):
        return False
    return any(char.isdigit() for char in core) and len(core) >= 4


def quote(text: str, limit: int = _QUOTE) -> str:
    """A customer's words in quotation marks, cut where they are long; empty where there are none."""
    line = plain(text[: 100 * limit])
    begin = _GREETING.match(line)
    some = upper(line[begin.end() :] if begin else line).replace("“", "'").replace("”", "'").replace('"', "'").split()
    if not some:
        return ""
    cut = " ".join(some[:limit]).rstrip(_EDGES + "…" * (len(some) > limit) + " ")
    for mark in ".!?":  # each would end the sentence around it
        cut = cut.replace(f"{mark} ", f" {_DASH} ")
    ending = "?" if len(some) <= limit and some[-1].endswith("?") else "" if len(some) <= limit else " …"
    return f"“{cut}{ending}”" if cut else ""


def about_runs(text: str, runs: Sequence[Run], *, quotes: bool = False) -> Sentence:
    """A sentence on these runs; `quotes`: with words of theirs."""
    keys = [run.key for run in runs]
    return replace(of_keys(text, keys), quoted=tuple(keys[:QUOTED])) if quotes else of_keys(text, keys)


def of_keys(text: str, keys: Sequence[Key]) -> Sentence:
    """A sentence on the runs of these names."""
    return Sentence(text, tuple(Source("run", *key) for key in keys[:SAMPLES]), len(keys))


def of_day(text: str, agent: str | None, when: date) -> Sentence:
    """A sentence on the day as a whole, or on what is not there."""
    return Sentence(text, (Source("day", agent or FLEET, when.isoformat()),), 1)
