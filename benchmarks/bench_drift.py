"""Drift on published runs of real agents: how soon another model's runs are noticed, how often chance is.

`python benchmarks/bench_drift.py [--json] [--data FOLDER]`. A group is the runs of one agent and model in one domain.

Mixed in: the runs of a group are the days before; from some day on the runs are another group's of its domain, all of
them, or every second one (the others are its own, kept back for it). They are looked at after every fifth run, as if a
day had ended there, in several orders. What only one of the two files records (costs, tokens, times) is taken from
both: it would be noticed at once, and says nothing of the agent. The customers were models too, and not the same ones
in every file: so it is also measured without what they write.

Chance: a group is split in two at random, and each half held against the other.
"""

import argparse
import json
import os
import random
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain
from math import sqrt
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from bench_rules import DATA, real_runs, said
from msgspec.structs import replace

from midwatch.contracts import runs
from midwatch_services.drift import facts
from midwatch_services.drift.decide import Comparison, Verdict, judge
from midwatch_services.drift.facts import Facts
from midwatch_services.drift.policy import POLICY
from midwatch_services.logger.decide import RunRow, fold, text_of
from midwatch_services.replay.mapping import PlayedRun, to_played

EVENTS = {data: event for event, data in runs.RUN_EVENTS.items()}
STEP, MOST = 5, 60  # runs of a mix between two looks, and to the last
ORDERS, SPLITS = 5, 200
PARTLY = ("cost", "tokens", "written", "seconds", "call_seconds")  # that files record or not


class Group(NamedTuple):
    domain: str
    agent: str
    model: str

    def __str__(self) -> str:
        return f"{self.agent}, {self.model.split(' ')[0]}"


def facts_of(played: PlayedRun) -> Facts:
    """A run's facts, as the logger would have logged it."""
    events = list(said(played))
    row = fold(RunRow(agent=played.agent, run_id=played.run_id), [(event, text_of(event.time)) for event in events])
    took = (played.ended_at - played.started_at) if played.started_at and played.ended_at else None
    run = msgspec.structs.asdict(row) | {
        "latency_ms": took and took.total_seconds() * 1000, "model_ms": row.model_us / 1000,
    }  # fmt: skip
    some = [{"event": EVENTS[type(event.data)], "data": msgspec.to_builtins(event.data)} for event in events]
    return facts.of(run, some)


def groups(folder: Path) -> dict[Group, list[Facts]]:
    """The runs of each group, those of which there are enough."""
    found: defaultdict[Group, list[Facts]] = defaultdict(list)
    for run in real_runs(folder):
        group = Group(run.domain, run.agent.name, run.agent.model or "")
        found[group].append(facts_of(to_played(run)))
    return {group: some for group, some in found.items() if len(some) >= POLICY.least}


def verdict(recent: Sequence[Facts], baseline: Sequence[Facts]) -> Verdict:
    return judge([Comparison("days", tuple(recent), tuple(baseline))])[0]


def pairs(found: dict[Group, list[Facts]]) -> Iterator[tuple[Group, Group]]:
    """Every two groups of one domain whose models differ, both ways round."""
    for own in found:
        for other in found:
            if own.domain == other.domain and own.model != other.model:
                yield own, other


def alike(one: Sequence[Facts], two: Sequence[Facts]) -> tuple[list[Facts], list[Facts]]:
    """Both without what only one of them records."""
    gone = {
        name: None
        for name in PARTLY
        if any(getattr(run, name) is not None for run in one) != any(getattr(run, name) is not None for run in two)
    }
    return [replace(run, **gone) for run in one], [replace(run, **gone) for run in two]


def noticed(
    own: Sequence[Facts], other: Sequence[Facts], order: int, *, half: bool = False, deaf: bool = False
) -> int | None:
    """At which run of the mix it is noticed that runs are another's; None for not within the first sixty. `deaf`: what
    customers write is not counted."""
    draw = random.Random(order)
    before, mixed = alike(draw.sample(own, len(own)), draw.sample(other, len(other)))
    if half:
        kept = min(MOST // 2, len(mixed), len(before) - POLICY.least)
        mixed = list(chain.from_iterable(zip(mixed, before[:kept], strict=False)))
        before = before[kept:]
    for count in range(POLICY.least, min(MOST, len(mixed)) + 1, STEP):
        found = verdict(mixed[:count], before).findings
        if any(not deaf or finding.cause not in ("words", "language") for finding in found):
            return count
    return None


def wilson(hits: int, of: int) -> tuple[float, float]:
    """The share's bounds at 95 % (Wilson, Journal of the American Statistical Association 22, 1927)."""
    z = 1.959964
    middle, width = (hits + z * z / 2) / (of + z * z), z / (of + z * z) * sqrt(hits * (of - hits) / of + z * z / 4)
    return middle - width, middle + width


def flagged(some: Sequence[Facts], splits: int) -> int:
    """How many random halves are said to differ."""
    count = 0
    for seed in range(splits):
        shuffled = random.Random(seed).sample(some, len(some))
        half = len(some) // 2
        count += bool(verdict(shuffled[:half], shuffled[half:]).findings)
    return count


def row(name: str, value: Any, unit: str, target: str, peer: str, peer_value: Any) -> dict[str, Any]:
    return {
        "name": name, "value": value, "unit": unit, "target": target, "peer": peer, "peer_value": peer_value,
        "ratio": None,
    }  # fmt: skip


def mixes(found: dict[Group, list[Facts]], orders: int) -> Iterator[dict[str, Any]]:
    total = seen = 0
    for own, other in pairs(found):
        at = [noticed(found[own], found[other], order) for order in range(orders)]
        total, seen = total + orders, seen + sum(one is not None for one in at)
        last = "never" if None in at else max(one for one in at if one is not None)
        shown = ", ".join(str(one or "never") for one in at)
        name = f"{own.domain}, {own}: all runs are {other}'s, noticed at run"
        yield row(name, last, "", f"≤ {MOST}", "in each order", shown)
    name = f"all runs are another model's: mixes noticed within {MOST} runs"
    yield row(name, seen, "mixes", str(total), "mixes", total)
    deaf = [
        noticed(found[own], found[other], order, deaf=True) for own, other in pairs(found) for order in range(orders)
    ]
    name = f"the same without what customers write: mixes noticed within {MOST} runs"
    yield row(name, sum(one is not None for one in deaf), "mixes", "", "mixes", len(deaf))


def halves(found: dict[Group, list[Facts]], orders: int) -> Iterator[dict[str, Any]]:
    for own in found:
        if len(found[own]) < 2 * POLICY.least:
            continue
        others = [other for one, other in pairs(found) if one == own]
        at = [noticed(found[own], found[other], order, half=True) for other in others for order in range(orders)]
        kept = len(found[own]) - min(MOST // 2, len(found[own]) - POLICY.least)
        name = f"{own.domain}, {own}: every second run is another model's, noticed within {MOST} runs"
        yield row(name, sum(one is not None for one in at), "mixes", "", f"runs before {kept}; mixes", len(at))


def chance(found: dict[Group, list[Facts]], splits: int) -> Iterator[dict[str, Any]]:
    every = hits = 0
    for group, some in found.items():
        if len(some) < 2 * POLICY.least:
            continue
        count = flagged(some, splits)
        every, hits = every + splits, hits + count
        yield _share(f"{group.domain}, {group}: halves of its own runs said to differ", count, splits)
    yield _share("halves of one model's runs said to differ, all groups", hits, every)


def _share(name: str, hits: int, of: int) -> dict[str, Any]:
    low, high = wilson(hits, of)
    bounds = f"{100 * low:.1f} to {100 * high:.1f} %"
    return row(name, 100 * hits / of, "%", "≤ 5", f"{hits} of {of} splits, at 95 %", bounds)


def rows(folder: Path, *, quick: bool = False) -> Iterator[dict[str, Any]]:
    found = groups(folder)
    orders, splits = (1, 20) if quick else (ORDERS, SPLITS)
    yield from mixes(found, orders)
    yield from chance(found, splits)
    yield from halves(found, orders)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--data", type=Path, default=DATA, metavar="FOLDER", help="the published runs")
    options = parser.parse_args()
    if not options.data.is_dir():
        sys.stderr.write(f"the published runs are not in {options.data}: drift is not measured\n")
        return 0
    for one in rows(options.data, quick=bool(os.environ.get("MIDWATCH_BENCH_QUICK"))):
        print(json.dumps(one) if options.json else one)
    return 0


if __name__ == "__main__":
    sys.exit(main())
