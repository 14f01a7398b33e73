"""Checks a log against its chains and checkpoints, and names what was altered, taken, put in or moved. Pure.

Records and leaves come in order of place and are merged; memory does not grow with the log, save by what was erased and
by what is found.
"""

import heapq
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain as joined
from typing import NamedTuple, Protocol

import msgspec

from midwatch.contracts.governance import EvidenceCheckpointed as Checkpoint

from . import chain, findings, heads
from .chain import Block
from .checkpoints import Verifier, is_signed
from .findings import Finding, Lost, Odd, Oddities, Report
from .record import Record, where


class Log(Protocol):
    """A log to check: a database, or an export of one. `cursor`: how far the sequencer was, None where nobody says."""

    cursor: int | None
    late: Collection[tuple[str, int]]
    first: int  # the places to look at
    last: int
    only: str | None  # an agent
    beside: Collection[Block]  # of erasures that came after an export, and are no part of its chains
    is_part: bool  # what is not there may be elsewhere

    def agents(self) -> Iterable[str]: ...

    def blocks(self, agent: str) -> Iterable[Block]: ...

    def blocks_by_place(self) -> Iterable[Block]: ...

    def head(self, agent: str, number: int) -> bytes | None: ...

    def records(self) -> Iterable[Record]: ...

    def checkpoints(self) -> Iterable[Checkpoint | None]: ...

    def checkpoint(self, number: int) -> Checkpoint | None: ...


class Outside(NamedTuple):
    """Checkpoints that were kept outside the log, to be read as often as needed."""

    origin: str
    read: Callable[[], Iterable[Checkpoint]]


class Leaf(NamedTuple):
    """A leaf of the chain and the block that has it."""

    place: int
    agent: str
    leaf: bytes
    block: int
    made_at: str


@dataclass
class Told:
    """What the notes of the chains tell: what was erased, and how many were removed between two places."""

    erased: dict[tuple[str, int], str] = field(default_factory=dict)
    ranges: dict[str, list[tuple[int, int, int]]] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)  # by agent, the last place that its chain has
    last: dict[str, int] = field(default_factory=dict)  # by agent, the number of its last block

    def merge(self) -> None:
        """Makes ranges that overlap one."""
        for agent, some in self.ranges.items():
            merged: list[tuple[int, int, int]] = []
            for first, last, count in sorted(some):
                if merged and first <= merged[-1][1]:
                    before = merged.pop()
                    first, last, count = before[0], max(last, before[1]), count + before[2]
                merged.append((first, last, count))
            self.ranges[agent] = merged

    def removed(self, agent: str, place: int) -> int | None:
        """Which of the agent's ranges has the place."""
        some = self.ranges.get(agent, [])
        at = bisect_right(some, (place, 2**63, 0)) - 1
        return at if at >= 0 and some[at][0] <= place <= some[at][1] else None


def verify(
    log: Log, keys: Verifier | None, outside: Outside | None = None, step: Callable[[int], None] = lambda _: None
) -> Report:
    """Checks chains, checkpoints and records. `step` is told how many records were done since."""
    report, named = Report(), heads.Heads()
    _check_checkpoints(log, keys, outside, named, report)
    told = _check_chains(log, keys, named, outside, report)
    _Merge(log, told, report, step).run()
    return findings.in_order(report)


def _check_checkpoints(
    log: Log, keys: Verifier | None, outside: Outside | None, named: heads.Heads, report: Report
) -> None:
    counted = 0

    def count(found: Iterable[Checkpoint | None]) -> Iterator[Checkpoint | None]:
        nonlocal counted
        for one in found:
            counted += 1
            yield one

    heads.check(count(log.checkpoints()), keys, "the log", named, report)
    report.checkpoints = counted
    if outside is not None:
        heads.check(outside.read(), keys, outside.origin, named, report)
        for finding in heads.gone(outside.read(), log.checkpoint, outside.origin):
            report.add(finding)


def _check_chains(log: Log, keys: Verifier | None, named: heads.Heads, outside: Outside | None, report: Report) -> Told:
    told = Told()
    for agent in log.agents():
        for broken in chain.check(_heard(log.blocks(agent), told, report)):
            text = f"block {broken.number} of the chain of {broken.agent} is broken: {broken.what}"
            report.add(Finding("chain", text, agent=agent, block=broken.number))
    for block in log.beside:
        if block.kind == "erasure" and not chain.wrong(block):
            _hear(block.agent, block, told)
    told.merge()

    def signed() -> Iterator[Checkpoint]:
        for one in joined(log.checkpoints(), outside.read() if outside else ()):
            if one is not None and (keys is None or is_signed(one, keys)):
                yield one

    for agent, newest in sorted(named.items()):
        if log.only in (None, agent) and (agent in told.last or not log.is_part):
            for finding in heads.against(agent, newest, told.last.get(agent, 0), log.head, signed()):
                report.add(finding)
    return told


def _heard(blocks: Iterable[Block], told: Told, report: Report) -> Iterator[Block]:
    """The blocks, each heard for what it tells. A note that was altered tells nothing."""
    for block in blocks:
        report.blocks += 1
        agent = block.agent
        told.last[agent] = block.number
        if block.kind == "events":
            told.ends[agent] = max(told.ends.get(agent, 0), block.last_place)
        elif not chain.wrong(block):
            _hear(agent, block, told)
        yield block


class _Erasure(msgspec.Struct):
    erasure: str
    places: list[int] = []


class _Removal(msgspec.Struct):
    ranges: list[tuple[int, int, int]] = []


def _hear(agent: str, block: Block, told: Told) -> None:
    try:
        if block.kind == "erasure":
            said = msgspec.json.decode(block.note, type=_Erasure)
            told.erased.update({(agent, place): said.erasure for place in said.places})
        elif block.kind == "removal":
            told.ranges.setdefault(agent, []).extend(msgspec.json.decode(block.note, type=_Removal).ranges)
    except (msgspec.MsgspecError, UnicodeEncodeError):
        return  # it tells nothing, so that what it was to explain is found


def _leaves(log: Log) -> Iterator[Leaf]:
    """The leaves of all chains in order of place. Only blocks that overlap are open at a time."""
    waiting: list[tuple[int, int, Iterator[Leaf], Leaf]] = []

    def put(serial: int, leaves: Iterator[Leaf]) -> None:
        if (first := next(leaves, None)) is not None:
            heapq.heappush(waiting, (first.place, serial, leaves, first))

    def pop() -> Leaf:
        _, serial, leaves, first = heapq.heappop(waiting)
        put(serial, leaves)
        return first

    for serial, block in enumerate(log.blocks_by_place()):
        while waiting and waiting[0][0] < block.first_place:
            yield pop()
        put(serial, _of_block(block, log.first, log.last))
    while waiting:
        yield pop()


def _of_block(block: Block, first: int, last: int) -> Iterator[Leaf]:
    # Sorted, though they are unless somebody was at them: then the chain says so, and the merge must not go astray.
    for place, leaf in sorted(chain.entries(block.leaves)):
        if first <= place <= last:
            yield Leaf(place, block.agent, leaf, block.number, block.made_at)


class _Merge:
    """Records beside leaves."""

    def __init__(self, log: Log, told: Told, report: Report, step: Callable[[int], None]) -> None:
        self._log, self._told, self._report, self._step = log, told, report, step
        self._oddities = Oddities()
        self._near: dict[str, Record] = {}  # by agent, the record before
        self._removed: Counter[tuple[str, int]] = Counter()  # by agent and range

    def run(self) -> None:
        """Looks at every record and every leaf once."""
        leaves, records = _leaves(self._log), self._records()
        leaf, record = next(leaves, None), next(records, None)
        while leaf is not None or record is not None:
            place = min(one.place for one in (leaf, record) if one is not None)
            here: list[Record] = []
            while record is not None and record.place <= place:
                here.append(record)
                record = next(records, None)
            there: list[Leaf] = []
            while leaf is not None and leaf.place <= place:
                there.append(leaf)
                leaf = next(leaves, None)
            self._match(here, there)
            if self._oddities.is_full:
                self._oddities.settle(self._report)
        self._oddities.settle(self._report)
        self._count_removed()

    def _records(self) -> Iterator[Record]:
        for record in self._log.records():
            self._report.events += 1
            if self._report.events % 1000 == 0:
                self._step(1000)
            if record.place > 0:
                yield record
            elif record.is_proved:
                self._oddities.odd.append(Odd(record, None))
            else:
                self._report.unproved += 1
        self._step(self._report.events % 1000)

    def _match(self, here: list[Record], there: list[Leaf]) -> None:
        left: list[Leaf] = []
        for leaf in there:
            record = next((one for one in here if one.leaf == leaf.leaf and one.agent == leaf.agent), None)
            if record is None:
                left.append(leaf)
            else:
                here.remove(record)
                self._good(record)
        agents = [leaf.agent for leaf in there]
        for leaf in left:
            if agents.count(leaf.agent) > 1:
                self._report.add(findings.doubled(leaf.agent, leaf.place, leaf.block))
            elif here:
                record = next((one for one in here if one.agent == leaf.agent), here[0])
                here.remove(record)
                self._oddities.odd.append(Odd(record, leaf.leaf))
            else:
                self._lost(leaf)
        for record in here:
            self._extra(record)

    def _good(self, record: Record) -> None:
        self._report.sealed += 1
        self._near[record.agent] = record
        self._agrees(record)

    def _agrees(self, record: Record) -> None:
        if record.wrong:
            self._report.add(findings.altered(record, record.wrong))
        elif record.erased and self._told.erased.get((record.agent, record.place)) != record.erased:
            self._report.add(findings.blanked(record))
        elif record.erased:
            self._report.erased += 1

    def _extra(self, record: Record) -> None:
        passed = self._log.cursor if self._log.cursor is not None else self._told.ends.get(record.agent, 0)
        if record.place <= passed and (record.agent, record.place) not in self._log.late:
            self._oddities.odd.append(Odd(record, None))
            return
        self._report.unsealed += 1
        self._report.oldest_unsealed = min(self._report.oldest_unsealed or record.stored_at, record.stored_at)
        self._agrees(record)

    def _lost(self, leaf: Leaf) -> None:
        at = self._told.removed(leaf.agent, leaf.place)
        if at is not None:
            self._removed[leaf.agent, at] += 1
            return
        if self._log.is_part:
            self._report.elsewhere += 1
            return
        near = self._near.get(leaf.agent)
        lost = Lost(leaf.agent, leaf.place, leaf.leaf, leaf.block, leaf.made_at, str(near) if near else "")
        self._oddities.lost.append(lost)

    def _count_removed(self) -> None:
        for (agent, at), count in sorted(self._removed.items()):
            first, last, listed = self._told.ranges[agent][at]
            self._report.removed += min(count, listed)
            if count > listed:
                text = (
                    f"{count} events of agent {agent} are missing between {where(first)} and {where(last)}, "
                    f"and the removals in its chain list {listed}"
                )
                self._report.add(Finding("missing", text, agent=agent, place=first))
