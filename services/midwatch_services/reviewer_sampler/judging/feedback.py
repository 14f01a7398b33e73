"""What people corrected in a week of an agent's runs, by reason: for whoever writes its prompts. Pure.

Each run is told once, under the reason that it shares with most others; a heading counts every run of its reason.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from .corrections import Correction

MOST = 40  # runs that one note tells of
_ASKED, _ANSWERED, _CORRECTED, _NOTE = 200, 400, 600, 300  # characters
_PASSED, _UNNAMED = "Passed, and could be better", "No reason given"


@dataclass(frozen=True, slots=True)
class Texts:
    """What the log says of a run: what the customer wanted, and the agent's last word."""

    asked: str = ""
    answered: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One run. `also`: its other reasons."""

    run_id: str
    agent: str
    ticket: str
    asked: str
    answered: str
    corrected: tuple[str, ...]
    notes: tuple[str, ...]
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """The runs of a reason: so many, and `before` in the week before. `entries`: those that are told here."""

    heading: str
    count: int
    before: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Note:
    """A week of an agent. `more`: runs for which there was no room."""

    agent: str
    week: str
    settled: int
    failed: int
    settled_before: int
    failed_before: int
    groups: tuple[Group, ...]
    more: int = 0

    @property
    def title(self) -> str:
        return f"What people corrected: {self.agent}, week {self.week}"

    @property
    def lead(self) -> str:
        """The week in two sentences."""
        if not self.settled:
            return "No run was settled in this week."
        runs = "1 run was" if self.settled == 1 else f"{self.settled:,} runs were"
        before = f"{self.failed_before:,} of {self.settled_before:,}" if self.settled_before else "none was settled"
        return f"{runs} settled, {self.failed:,} of them failed. In the week before: {before}."


def week_of(at: datetime) -> str:
    """The ISO week of a time (UTC), such as 2026-W48."""
    year, week, _ = at.astimezone(UTC).isocalendar()
    return f"{year}-W{week:02d}"


def bounds(week: str) -> tuple[datetime, datetime]:
    """When a week begins and ends. Raises ValueError for what is no week, such as 2026-W54."""
    year, _, number = week.partition("-W")
    if len(year) != 4 or len(number) != 2 or not (year + number).isascii() or not (year + number).isdigit():
        raise ValueError(week)
    begins = datetime.fromisocalendar(int(year), int(number), 1).replace(tzinfo=UTC)
    return begins, begins + timedelta(days=7)


def last_week(now: datetime) -> str:
    """The last week that is over."""
    return week_of(now - timedelta(days=7))


def note(
    agent: str, week: str, found: Sequence[Correction], before: Sequence[Correction], settled: tuple[int, int],
    texts: Mapping[str, Texts],
) -> Note:  # fmt: skip
    """The note of `found`. `settled`: how many runs were, in this week and in the one before; `texts` by run id."""
    counts, counts_before = _counts(found), _counts(before)
    order = sorted(counts, key=lambda reason: (reason == _PASSED, -counts[reason], reason))
    told: dict[str, list[Entry]] = {reason: [] for reason in order}
    for one in found[:MOST]:
        reasons = sorted(_reasons(one), key=order.index)
        told[reasons[0]].append(_entry(one, texts.get(one.run_id, Texts()), reasons[1:]))
    groups = [Group(heading(reason), counts[reason], counts_before[reason], tuple(told[reason])) for reason in order]
    failed, failed_before = (sum(one.verdict == "fail" for one in some) for some in (found, before))
    return Note(agent, week, settled[0], failed, settled[1], failed_before, tuple(groups), max(0, len(found) - MOST))


def _counts(found: Sequence[Correction]) -> Counter[str]:
    return Counter(reason for one in found for reason in _reasons(one))


def _reasons(one: Correction) -> list[str]:
    if one.verdict != "fail":
        return [_PASSED]
    return one.reasons or [_UNNAMED]


def heading(reason: str) -> str:
    """A reason of a card in words."""
    words = reason.replace("_", " ")
    return words[:1].upper() + words[1:]


def _entry(one: Correction, texts: Texts, also: Sequence[str]) -> Entry:
    return Entry(
        one.run_id, one.agent, one.ticket or "", short(texts.asked, _ASKED), short(texts.answered, _ANSWERED),
        tuple(short(text, _CORRECTED) for text in one.corrected), tuple(short(text, _NOTE) for text in one.notes),
        tuple(heading(reason) for reason in also),
    )  # fmt: skip


def short(text: str, limit: int) -> str:
    """The text on one line, cut where it is long."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def texts_of(events: Sequence[Mapping[str, Any]]) -> Texts:
    """What the events of a run, in order, say of question and answer; nothing of one that is erased."""
    asked = answered = said = model = ""
    for event in events:
        data = event["data"]
        if event["event"] == "started":
            asked = _question(data.get("input"))
        elif event["event"] == "said" and data.get("by") == "customer":
            asked = asked or _text(data.get("text"))
        elif event["event"] == "said" and data.get("by") == "agent":
            said = _text(data.get("text"))
        elif event["event"] == "model_called":
            model = _text(data.get("output")) or model
        elif event["event"] == "finished":
            answered = _text(data.get("output"))
    return Texts(asked, answered or said or model)


def _question(value: Any) -> str:
    """Of a conversation, the last message."""
    if isinstance(value, list) and value:
        value = value[-1].get("content") if isinstance(value[-1], dict) else value[-1]
    return _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)
