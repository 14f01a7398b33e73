"""What a check of the log found, in words, and what it counted. Pure."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from .record import Record, where

What = Literal[
    "altered", "missing", "inserted", "reordered", "blanked", "doubled", "chain", "truncated", "checkpoint", "run",
]  # fmt: skip

KEPT = 200  # findings of one sort that are told; the rest are counted
_OF_RECORDS = ("altered", "missing", "inserted", "reordered", "blanked", "doubled")


class Finding(msgspec.Struct, frozen=True):
    """One thing that is not as it was sealed. `text` names it for people."""

    what: What
    text: str
    agent: str = ""
    run_id: str = ""
    id: str = ""
    place: int = 0
    block: int = 0


class Odd(msgspec.Struct, frozen=True):
    """A record at a place that has another leaf or none; `leaf`: what was sealed there."""

    record: Record
    leaf: bytes | None


class Lost(msgspec.Struct, frozen=True):
    """A leaf of which no record is there. `near`: the record before it."""

    agent: str
    place: int
    leaf: bytes
    block: int
    made_at: str
    near: str


@dataclass
class Report:
    """The outcome. `findings` are the first of each sort, in order of place; `counts` has all."""

    findings: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)  # sentences: what is not proved, and what was listed as done
    events: int = 0
    sealed: int = 0
    unsealed: int = 0
    unproved: int = 0  # stored before there was evidence
    erased: int = 0
    removed: int = 0
    elsewhere: int = 0  # sealed, and not in this part of the log
    blocks: int = 0
    checkpoints: int = 0
    oldest_unsealed: str = ""
    newest_checkpoint: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether nothing was found."""
        return not self.counts

    def add(self, finding: Finding) -> None:
        """Counts a finding, and keeps it while there are few of its sort."""
        self.counts[finding.what] += 1
        if self.counts[finding.what] <= KEPT:
            self.findings.append(finding)


@dataclass
class Oddities:
    """What did not match, until it is known whether some of it only changed places."""

    odd: list[Odd] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)

    def settle(self, report: Report) -> None:
        """Names each: what was sealed elsewhere is reordered; the rest is altered, inserted or missing."""
        sealed = {one.leaf: one.record.place for one in self.odd if one.leaf is not None}
        sealed |= {one.leaf: one.place for one in self.lost}
        found, moved_from = [], set()
        for one in self.odd:
            home = next((at for leaf, at in sealed.items() if one.record.leaf_at(at) == leaf), None)
            if home is not None:
                moved_from.add(home)
                found.append(_about(one.record, "reordered", f"{one.record} was sealed at {where(home)}"))
            elif one.leaf is not None:
                why = one.record.wrong or "it does not hash to what was sealed at its place"
                found.append(_about(one.record, "altered", f"{one.record} was altered: {why}"))
            else:
                found.append(_about(one.record, "inserted", f"{one.record} was inserted: the chain has no such record"))
        found += [_missing(one) for one in self.lost if one.place not in moved_from]
        for finding in sorted(found, key=lambda one: (one.place, one.what)):
            report.add(finding)
        self.odd, self.lost = [], []

    @property
    def is_full(self) -> bool:
        """Whether it is time to settle."""
        return len(self.odd) + len(self.lost) >= KEPT


def altered(record: Record, why: str) -> Finding:
    """A record whose leaf is right and whose other columns are not."""
    return _about(record, "altered", f"{record} was altered: {why}")


def blanked(record: Record) -> Finding:
    """A record without its text, of which no erasure tells."""
    return _about(record, "blanked", f"{record} was blanked, and no erasure in the chain lists it")


def doubled(agent: str, place: int, block: int) -> Finding:
    """A place that the chain has twice."""
    text = f"{where(place)} of agent {agent} is sealed twice, again in block {block}"
    return Finding("doubled", text, agent=agent, place=place, block=block)


def in_order(report: Report) -> Report:
    """The findings about records first, by place."""
    report.findings.sort(key=lambda one: (one.what not in _OF_RECORDS, one.place, one.agent, one.block))
    return report


def _about(record: Record, what: What, text: str) -> Finding:
    return Finding(what, text, record.agent, record.run_id, record.id, record.place)


def _missing(one: Lost) -> Finding:
    after = f"; it came after {one.near}" if one.near else "; nothing of its agent is before it"
    text = (
        f"the event at {where(one.place)} (agent {one.agent}) is missing: block {one.block}, made {one.made_at}, "
        f"has its leaf{after}"
    )
    return Finding("missing", text, agent=one.agent, place=one.place, block=one.block)
