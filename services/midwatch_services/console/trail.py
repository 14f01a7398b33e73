"""Who did what, on these pages and on the command line: read from the bus, whatever becomes of any database."""

import asyncio
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
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


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that somebody did. `where`: `console`, or `bus` for what came over it from elsewhere."""

    at: datetime
    by: str
    role: str
    action: str
    agent: str
    target: str
    detail: str
    where: str


@dataclass(frozen=True, slots=True)
class Trail:
    """The newest first. `cut`: there was more than can be shown."""

    entries: list[Entry]
    cut: bool


async def read(nc: Client, begin: datetime, end: datetime, person: str = "") -> Trail:
    """What was done in the time, by everybody or by one. Raises Temporary."""
    found = await asyncio.gather(*(_of(nc, noun, event, begin, end) for noun, event in _READ))
    entries = once(entry for some in found for entry in some)
    if person:
        entries = [one for one in entries if one.by == person]
    entries.sort(key=lambda one: one.at, reverse=True)
    return Trail(entries[:MOST], len(entries) > MOST)


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
        detail = ", ".join(f"{name}: {value}" for name, value in data.detail.items())
        return Entry(at, data.by, data.role, data.action, agent, data.target, detail, "console")
    if noun == "switch":
        target = data.key if data.target is None else f"{data.key} {data.target}"
        detail = f"reason: {data.record.reason}, epoch: {data.epoch}"
        return Entry(at, data.record.by, "", f"switch.{event}", agent, target, detail, "bus")
    return Entry(at, data.by, "", f"{noun}.{event}", agent, _target(data), _detail(data), "bus")


def _target(data: Any) -> str:
    names = ("alert_id", "case_id", "hold_id", "erasure_id", "run_id")
    return next((str(getattr(data, name)) for name in names if getattr(data, name, None)), "")


def _detail(data: Any) -> str:
    """Figures and names alone: what reviewers wrote of a customer's words is no part of a trail."""
    names = ("reason", "verdict", "reference")
    return ", ".join(f"{name}: {getattr(data, name)}" for name in names if getattr(data, name, None))


_SAME = {"switch.halted": "switch.halt", "switch.resumed": "switch.resume"}


def once(entries: Iterable[Entry]) -> list[Entry]:
    """What was done on these pages is there twice, as it was recorded and as what it did: the record stays."""
    some = list(entries)
    recorded = {_what(one) for one in some if one.where == "console"}
    return [one for one in some if one.where == "console" or _what(one) not in recorded]


def _what(one: Entry) -> tuple[str, ...]:
    epoch = ""
    if one.action.startswith("switch."):
        epoch = next((part for part in one.detail.split(", ") if part.startswith("epoch: ")), "")
    return (one.by, _SAME.get(one.action, one.action), one.target, epoch)
