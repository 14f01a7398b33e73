"""Who did what, on these pages and on the command line: read from the bus, whatever becomes of any database."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from nats.aio.client import Client

from midwatch.contracts import codec, subjects
from midwatch.runtime.stream_read import Stored, read_range

# What people do, as the bus has it. On `switch` services move things too: their word stands there as theirs.
_READ = (
    ("audit", "acted"), ("switch", "halted"), ("switch", "resumed"), ("alert", "acknowledged"), ("case", "accepted"),
    ("case", "returned"), ("case", "closed"), ("hold", "placed"), ("hold", "lifted"), ("erasure", "requested"),
    ("review", "judged"),
)  # fmt: skip
MOST = 20_000  # entries of one answer
WITHIN = timedelta(seconds=15)  # from a record to what it says was done; a page that acts waits no longer
_TOLD_WITHIN = timedelta(minutes=5)  # from a resume to kill-switch's word of it
_NAME_LIMIT = 128  # characters of a reviewer's name, as a verdict has it
Run = tuple[str, str]  # agent and id


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that somebody did. `by` is empty where it is not to be told yet. `where`: `console`, or `bus` for what
    came over it from elsewhere. `detail`: figures and names by what they are."""

    at: datetime
    by: str
    role: str
    action: str
    agent: str
    target: str
    detail: Mapping[str, str]
    where: str
    run: Run | None = field(default=None, compare=False)  # whose review it is part of


@dataclass(frozen=True, slots=True)
class Trail:
    """The newest first. `cut`: there was more than can be shown."""

    entries: list[Entry]
    cut: bool


async def read(nc: Client, begin: datetime, end: datetime, person: str = "") -> Trail:
    """What was done in the time, by everybody or by one. Raises Temporary."""
    found, done = await asyncio.gather(
        asyncio.gather(*(_of(nc, noun, event, begin - WITHIN, end) for noun, event in _READ)), _settled(nc, begin)
    )
    entries = [one for one in blind(once(entry for some in found for entry in some), done) if one.at >= begin]
    if person:
        entries = [one for one in entries if one.by == person]
    entries.sort(key=lambda one: one.at, reverse=True)
    return Trail(entries[:MOST], len(entries) > MOST)


async def _settled(nc: Client, begin: datetime) -> set[Run]:
    """The runs of which the verdict was made known since."""
    found = set()
    reading = read_range(nc, subjects.GOVERNANCE, subjects.review("*", "agreed"), begin.astimezone(UTC) - WITHIN)
    async with aclosing(reading) as batches:
        async for batch in batches:
            for stored in batch:
                with suppress(codec.Refused):
                    data = codec.decode(stored.subject, stored.body).data
                    found.add((data.agent, data.run_id))
    return found


async def _of(nc: Client, noun: str, event: str, begin: datetime, end: datetime) -> list[Entry]:
    found: list[Entry] = []
    reading = read_range(nc, subjects.GOVERNANCE, f"midwatch.{noun}.*.{event}", begin.astimezone(UTC))
    async with aclosing(reading) as batches:
        async for batch in batches:
            for stored in batch:
                if datetime.fromisoformat(stored.stored_at) >= end:
                    return found
                if (entry := _entry(noun, event, stored)) is not None:
                    found.append(entry)
    return found


def _entry(noun: str, event: str, stored: Stored) -> Entry | None:
    try:
        data = codec.decode(stored.subject, stored.body).data
    except codec.Refused:
        return None
    at, agent = datetime.fromisoformat(stored.stored_at), stored.subject.split(".")[2]
    if noun == "audit":
        run = _reviewed(data.action, agent, data.target, data.detail)
        return Entry(at, data.by, data.role, data.action, agent, data.target, data.detail, "console", run)
    if noun == "switch":
        target = data.key if data.target is None else f"{data.key} {data.target}"
        detail = {"reason": data.record.reason, "epoch": str(data.epoch)}
        return Entry(at, data.record.by, "", f"switch.{event}", agent, target, detail, "bus")
    action, target = f"{noun}.{event}", _target(data)
    run = _reviewed(action, agent, target, {})
    return Entry(at, data.by, "", action, agent, target, _detail(data), "bus", run)


def _target(data: Any) -> str:
    names = ("alert_id", "case_id", "hold_id", "erasure_id", "run_id")
    return next((str(getattr(data, name)) for name in names if getattr(data, name, None)), "")


def _detail(data: Any) -> dict[str, str]:
    """Figures and names alone: what reviewers wrote of a customer's words, and how they judged, is no part of a
    trail."""
    return {name: str(getattr(data, name)) for name in ("reason", "reference") if getattr(data, name, None)}


def _reviewed(action: str, agent: str, target: str, detail: Mapping[str, str]) -> Run | None:
    """The run of whose review a deed is part."""
    if action.startswith("review."):
        return agent, target
    return (agent, detail["run"]) if action.startswith("eval.") and "run" in detail else None


def blind(entries: Iterable[Entry], settled: Collection[Run]) -> list[Entry]:
    """Without who reviews a run before its verdict stands, and without the case that shows how somebody judged it."""
    told = []
    for one in entries:
        if one.run is None or one.run in settled:
            told.append(one)
        elif one.action.startswith("review."):
            told.append(replace(one, by="", role="", detail={}))
    return told


_SAME = {"switch.halted": "switch.halt", "switch.resumed": "switch.resume"}


def once(entries: Iterable[Entry]) -> list[Entry]:
    """What was done on these pages is there twice, as it was recorded and as what it did: the record stays. Each
    record stands for one deed and no more, so that what the same person did elsewhere is not lost."""
    records, deeds, made = [], defaultdict[tuple[str, ...], list[Entry]](list), []
    for one in sorted(entries, key=lambda one: one.at):
        if one.where == "console":
            records.append(one)
        else:
            deeds[_what(one)].append(one)
    for record in records:
        if _did_something(record):
            some = deeds[_what(record)]
            if (found := next((deed for deed in some if _is_of(deed, record)), None)) is not None:
                some.remove(found)
        made.append(record)
    return [*made, *(deed for some in deeds.values() for deed in some)]


def _is_of(deed: Entry, record: Entry) -> bool:
    # A switch is told when kill-switch has read it. A halt is recorded with the epoch that it made, and a resume, which
    # is recorded first, with that of the halt.
    if record.action == "switch.resume":
        is_later = int(deed.detail["epoch"]) > int(record.detail.get("epoch", 0))
        return is_later and record.at <= deed.at <= record.at + _TOLD_WITHIN
    return "epoch" in record.detail or record.at <= deed.at <= record.at + WITHIN


def _did_something(record: Entry) -> bool:
    return record.detail.get("changed") != "False" and record.detail.get("standing", "may") == "may"


def _what(one: Entry) -> tuple[str, ...]:
    action = _SAME.get(one.action, one.action)
    apart = one.detail.get("epoch", "") if action == "switch.halt" else one.agent
    return one.by.strip()[:_NAME_LIMIT], action, one.target, apart
