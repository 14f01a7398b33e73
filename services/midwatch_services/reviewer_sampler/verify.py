"""Recomputes every draw of a day from its revealed key: anyone who can read the bus can do the same."""

import hashlib
from bisect import bisect_right, insort
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal, NamedTuple

from midwatch.contracts.reviews import ReviewKeyCommitted, ReviewKeyRevealed, ReviewRated, ReviewSampled

from .decide import Run, draw, name_of
from .policy import GRACE

Verdict = Literal["passed", "failed", "inconclusive"]


class Said(NamedTuple):
    """A review event as it stands on the stream: `position` is its sequence, `id` the event's, `at` its time."""

    position: int
    id: str
    data: ReviewKeyCommitted | ReviewKeyRevealed | ReviewSampled | ReviewRated
    at: float = 0.0  # Unix seconds


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of the days asked for. What could not be read is None.

    `decided`: rows of every run that the sampler decided; `queued`: runs in its queue; `unseen`: runs that the run log
    has and the sampler never decided, by day. Of days up to `forgotten` the sampler no longer has all runs.
    """

    said: Sequence[Said]
    decided: Sequence[Mapping[str, Any]] | None = None
    queued: Collection[tuple[str, str, str]] | None = None
    unseen: Mapping[str, Collection[Run]] | None = None
    logged: Mapping[str, int] = field(default_factory=dict)  # runs in the run log, by day
    forgotten: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """The verdict on one day. It is inconclusive where the runs that were not drawn cannot be checked."""

    day: str
    verdict: Verdict
    sampled: int  # on the bus
    decided: int | None  # by the sampler, drawn or not
    logged: int | None  # in the run log
    mismatches: list[str]
    note: str = ""


def days_of(said: Iterable[Said]) -> list[str]:
    """The days whose key was revealed, oldest first."""
    return sorted({one.data.day for one in said if isinstance(one.data, ReviewKeyRevealed)})


def verify(day: str, evidence: Evidence) -> Report:
    """Checks the key against its commitment, every draw against the key, that no drawn run is missing, and that each
    was drawn at a rate that had been published."""
    said = [one for one in evidence.said if not isinstance(one.data, ReviewRated) and one.data.day == day]
    committed = [one for one in said if isinstance(one.data, ReviewKeyCommitted)]
    revealed = [one.data for one in said if isinstance(one.data, ReviewKeyRevealed)]
    draws = [(one.position, one.id, one.data) for one in said if isinstance(one.data, ReviewSampled)]
    sampled = list({id: (position, data) for position, id, data in reversed(draws)}.values())  # the first of each id
    gone = day <= evidence.forgotten
    rows = None if gone or evidence.decided is None else [row for row in evidence.decided if row["day"] == day]
    unseen = None if gone or evidence.unseen is None else evidence.unseen.get(day, ())
    counts = (
        len(sampled),
        None if rows is None else len(rows),
        evidence.logged.get(day, 0) if unseen is not None else None,
    )
    if not revealed:
        return Report(day, "inconclusive", *counts, [], "the key of this day is not revealed yet")
    wrong, key = _key(committed, revealed)
    if key is not None:
        wrong += _draws(key, committed, sampled)
        if rows is not None:
            wrong += _decisions(key, rows, sampled, evidence.queued or ())
            wrong += _rates(rows, evidence.said)
    wrong += [f"{_named(run)} is in the run log and was never drawn or passed over" for run in unseen or ()]
    if wrong:
        return Report(day, "failed", *counts, wrong)
    if rows is None:
        return Report(
            day, "inconclusive", *counts, [], "the runs passed over are not known here: only the draws are right"
        )
    note = "" if unseen is not None else "the run log cannot be read here: checked against the sampler's own runs"
    return Report(day, "passed", *counts, [], note)


def _key(committed: Sequence[Said], revealed: Sequence[ReviewKeyRevealed]) -> tuple[list[str], bytes | None]:
    hashes = {one.data.key_hash for one in committed if isinstance(one.data, ReviewKeyCommitted)}
    keys = {one.key for one in revealed}
    if len(keys) > 1:
        return [f"{len(keys)} different keys were revealed"], None
    try:
        key = bytes.fromhex(revealed[0].key)
    except ValueError:
        return ["the revealed key is not in hex"], None
    found = hashlib.sha256(key).hexdigest()
    wrong = []
    if not hashes:
        wrong.append("no hash of the key was published before its day's draws")
    elif hashes != {found}:
        wrong.append(
            f"the key's hash is {found[:12]}…, committed was {', '.join(f'{one[:12]}…' for one in sorted(hashes))}"
        )
    return wrong, key


def _draws(key: bytes, committed: Sequence[Said], sampled: Sequence[tuple[int, ReviewSampled]]) -> list[str]:
    wrong = []
    began = min((one.position for one in committed), default=None)
    found = hashlib.sha256(key).hexdigest()
    met: set[Run] = set()
    for position, one in sampled:
        run = name_of(one.agent, one.run_id, one.mode)
        value = draw(key, run)
        if one.key_hash != found:
            wrong.append(f"{_named(run)} names another key: {one.key_hash[:12]}…")
        if one.draw != value:
            wrong.append(f"{_named(run)} was drawn with {one.draw:.6f}, the key gives {value:.6f}")
        if value >= one.rate:
            wrong.append(f"{_named(run)} was sampled although {value:.6f} is not below its rate {one.rate:g}")
        if began is not None and position < began:
            wrong.append(f"{_named(run)} was sampled before the key's hash was published")
        if run in met:
            wrong.append(f"{_named(run)} was sampled twice")
        met.add(run)
    return wrong


def _decisions(
    key: bytes,
    rows: Sequence[Mapping[str, Any]],
    sampled: Sequence[tuple[int, ReviewSampled]],
    queued: Collection[tuple[str, str, str]],
) -> list[str]:
    wrong = []
    said = {name_of(one.agent, one.run_id, one.mode): one for _, one in sampled}
    for row in rows:
        run = Run(row["agent"], row["run_id"], row["track"])
        value, rate = draw(key, run), row["rate"]
        if row["draw"] != value:
            wrong.append(f"{_named(run)} is recorded with {row['draw']:.6f}, the key gives {value:.6f}")
        if bool(row["drawn"]) != (value < rate):
            wrong.append(
                f"{_named(run)} is recorded as {'drawn' if row['drawn'] else 'passed over'}, {value:.6f} of {rate:g}"
            )
        one = said.pop(run, None)
        if value < rate and one is None:
            wrong.append(f"{_named(run)} was drawn ({value:.6f} of {rate:g}) and never published")
        if value < rate and run not in queued:
            wrong.append(f"{_named(run)} was drawn ({value:.6f} of {rate:g}) and is not in the queue")
        if one is not None and one.rate != rate:
            wrong.append(f"{_named(run)} was published with rate {one.rate:g}, recorded with {rate:g}")
    wrong += [f"{_named(run)} was published and is not among the sampler's runs" for run in said]
    return wrong


def _rates(rows: Sequence[Mapping[str, Any]], said: Iterable[Said]) -> list[str]:
    """A run from before its agent had a schedule is not judged, nor is a replay, which has its card's rate."""
    published: dict[str, list[tuple[float, float]]] = {}
    for one in said:
        if isinstance(one.data, ReviewRated):
            insort(published.setdefault(one.data.agent, []), (one.at, one.data.rate))
    wrong = []
    for row in rows:
        run, rates = Run(row["agent"], row["run_id"], row["track"]), published.get(row["agent"], [])
        in_force = set() if run.track == "replay" else _in_force(rates, row.get("decided_at", 0.0))
        if in_force and row["rate"] not in in_force:
            told = " or ".join(f"{rate:g}" for rate in sorted(in_force))
            wrong.append(f"{_named(run)} was drawn at a rate of {row['rate']:g}, published was {told}")
    return wrong


def _in_force(rates: Sequence[tuple[float, float]], at: float) -> set[float]:
    """The rates that held about that time: clocks of two instances differ. None where none had been published."""
    slack = GRACE.total_seconds()
    if not rates or rates[0][0] > at:
        return set()
    first = max(0, bisect_right(rates, (at - slack, inf)) - 1)
    return {rate for _, rate in rates[first : bisect_right(rates, (at + slack, inf))]}


def _named(run: Run) -> str:
    return f"{run.agent} {run.run_id}" + (" (replay)" if run.track == "replay" else "")
