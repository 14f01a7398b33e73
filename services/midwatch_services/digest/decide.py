"""From the facts of a day to its digest: sections in the order of what needs a person, within so many words. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from midwatch.contracts.subjects import FLEET

from . import changes, costs, reading, waiting, words, wrong
from .facts import Facts, Key, Sentence
from .policy import BACK, Policy
from .reading import Pick

_WORD = re.compile(r"\w")


@dataclass(frozen=True, slots=True)
class Section:
    heading: str
    sentences: tuple[Sentence, ...]


@dataclass(frozen=True, slots=True)
class Digest:
    """What people read. `lead`: the day in one look. `closing`: what was left out, and how the day is counted."""

    agent: str
    day: date
    zone: str
    mode: str
    title: str
    lead: tuple[Sentence, ...]
    sections: tuple[Section, ...]
    closing: tuple[Sentence, ...]
    left_out: int = 0

    @property
    def words(self) -> int:
        """Words of all that is prose: title, headings and sentences."""
        return count_words(" ".join([self.title, *self.headings, *(one.text for one in self.sentences)]))

    @property
    def headings(self) -> list[str]:
        return [section.heading for section in self.sections]

    @property
    def sentences(self) -> list[Sentence]:
        """Every sentence, in the order in which it is read."""
        inner = [sentence for section in self.sections for sentence in section.sentences]
        return [*self.lead, *inner, *self.closing]

    @property
    def runs(self) -> list[Key]:
        """The runs that it names or quotes."""
        return sorted({key for sentence in self.sentences for key in sentence.runs})


def count_words(text: str) -> int:
    """How many words a text has: what stands between spaces and holds a letter or a digit."""
    return sum(1 for token in text.split() if _WORD.search(token))


def write(facts: Facts, picks: Sequence[Pick], policy: Policy) -> Digest:
    """The digest; where it does not fit, the last of the least important section goes first, and it is said."""
    sections = [
        Section("What went wrong and was stopped", tuple(wrong.tell(facts)) or _nothing(facts)),
        Section("What waits for a person", tuple(waiting.tell(facts, policy))),
        Section("What changed since last week", tuple(changes.tell(facts, policy))),
        Section("What it cost", tuple(costs.tell(facts)) if facts.runs else ()),
        Section("Runs most worth reading", tuple(reading.tell(facts, picks, alone=facts.agent is not None))),
    ]
    title = words.title(facts.agent or FLEET, facts.day)
    whole = Digest(
        facts.agent or FLEET, facts.day, facts.zone, facts.mode, title, tuple(_lead(facts)),
        tuple(section for section in sections if section.sentences), (_counting(facts),),
    )  # fmt: skip
    return _fit(whole, policy.words)


def _nothing(facts: Facts) -> tuple[Sentence, ...]:
    if not facts.runs:
        return ()
    return (words.about_runs("Nothing went wrong that the watch would see, and nothing was stopped.", facts.runs),)


def _lead(facts: Facts) -> list[Sentence]:
    kind = {"live": "", "replay": "replayed "}.get(facts.mode, f"{facts.mode} ")
    if not facts.runs:
        whose = "" if facts.agent is None else f" of {words.name(facts.agent)}"
        return [words.of_day(f"No {kind}run{whose} began on this day.", facts.agent, facts.day), *_unsure(facts)]
    agents = len({run.agent for run in facts.runs})
    of = f" of {words.many(agents, 'agent')}" if facts.agent is None and agents > 1 else ""
    text = f"{words.many(len(facts.runs), f'{kind}run')}{of} began on this day: {changes.ends(facts.runs)}."
    return [words.about_runs(text, facts.runs), *_unsure(facts)]


def _unsure(facts: Facts) -> list[Sentence]:
    """A digest of a log that is behind says so before all else."""
    if not facts.is_behind:
        return []
    text = "The run log was not complete when this was written, so runs may be missing here."
    return [words.of_day(text, facts.agent, facts.day)]


def _counting(facts: Facts) -> Sentence:
    stand = facts.now.astimezone(ZoneInfo(facts.zone))
    stood = f"{stand:%H:%M} on {stand.day} {stand:%B} {stand.year}"
    text = f"A run counts on the day on which it began, by the time of {_zone(facts.zone)}. "
    text += f"What is open is told as it stood at {stood}."
    if any(run.resolution == "resolved" for run in facts.runs):
        text += " A run is called settled where the agent said so itself."
    return words.of_day(text, facts.agent, facts.day)


def _zone(name: str) -> str:
    return name.rpartition("/")[2].replace("_", " ")


def _fit(digest: Digest, limit: int) -> Digest:
    sections, left_out = list(digest.sections), 0
    while digest.words > limit and sections:
        last = sections[-1]
        left_out += 1
        if len(last.sentences) > 1:
            sections[-1] = replace(last, sentences=last.sentences[:-1])
        else:
            sections.pop()
        verb = "was" if left_out == 1 else "were"
        text = f"To stay within {words.many(limit, 'word')}, {words.many(left_out, 'line')} {verb} left out."
        note = replace(digest.closing[-1], text=text)
        digest = replace(
            digest, sections=tuple(sections), closing=(note, digest.closing[-1]), left_out=left_out
        )  # fmt: skip
    return digest


def due(now: datetime, policy: Policy) -> list[date]:
    """The days of which the digest is to be there by now, oldest first: yesterday from the hour on, and before that the
    one that a service that was away may have missed."""
    here = now.astimezone(ZoneInfo(policy.zone))
    newest = here.date() - timedelta(days=1 if here.time() >= policy.at else 2)
    return [newest - timedelta(days=back) for back in reversed(range(BACK))]


def hour_of(day: date, policy: Policy) -> datetime:
    """When a day's digest is to be written: the next day at the hour."""
    return datetime.combine(day + timedelta(days=1), policy.at, ZoneInfo(policy.zone))


def bounds(day: date, zone: str) -> tuple[datetime, datetime]:
    """Where a day begins and where it is over, in a time zone."""
    there = ZoneInfo(zone)
    begin = datetime(day.year, day.month, day.day, tzinfo=there)
    after = day + timedelta(days=1)
    return begin, datetime(after.year, after.month, after.day, tzinfo=there)
