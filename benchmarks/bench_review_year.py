"""A year of an agent's reviews, day by day, through the sampler's own draw and its own decisions.

`python benchmarks/bench_review_year.py [--json] [--write FILE]`. `--write` puts the table below the mark in a document.

Each run fails with the rate given, by a random number of its own; those drawn are read on the next day, by people who
are right. Keys and failures follow from a seed, so that every machine has the same years.
"""

import argparse
import hashlib
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import load

from midwatch.contracts.control import ReviewRule
from midwatch.contracts.reviews import RateCause
from midwatch_services.reviewer_sampler.decide import Run, draw
from midwatch_services.reviewer_sampler.schedule import decide, policy
from midwatch_services.reviewer_sampler.schedule.decide import Counts, State

BEGIN, DAYS, RUNS = date(2026, 1, 1), 365, 200  # runs a day
SEEDS = 1 if load.QUICK else 3
RULE = policy.of(ReviewRule())
MARK, END = "<!-- a year: written by benchmarks/bench_review_year.py -->", "<!-- end of the year -->"
NOON = 43_200.0  # seconds of a day

Event = Callable[[State, float], State]
Rates = Callable[[int], float]


@dataclass(frozen=True, slots=True)
class Scenario:
    """`fails`: the failure rate of each day. `events`: what happens at noon, by day."""

    name: str
    fails: Rates
    events: Mapping[int, Event] = field(default_factory=dict)


@dataclass(slots=True)
class Year:
    """What came of one: the rate and the step of each day, each change with its day and cause, runs drawn and read."""

    rates: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    changes: list[tuple[int, int, RateCause]] = field(default_factory=list)  # day, step, cause
    drawn: int = 0
    failed: int = 0


def version(name: str) -> Event:
    """A version is seen for the first time."""
    return lambda state, at: decide.met_version(state, name, at)


def trigger(cause: RateCause, what: str) -> Event:
    """Something is said on the bus that brings the first rate back."""
    return lambda state, at: decide.snapped(state, cause, what, at)


EVENTS: dict[int, Event] = {
    120: version("2"), 180: trigger("incident", "budget_run"), 240: trigger("drift", "drift"),
    300: trigger("halt", "agent.desk"),
}  # fmt: skip
SCENARIOS = (
    Scenario("0.5 %", lambda _: 0.005),
    Scenario("2 %", lambda _: 0.02),
    Scenario("10 %", lambda _: 0.1),
    Scenario("30 %", lambda _: 0.3),
    Scenario("0.5 %, 10 % from day 180 on", lambda day: 0.005 if day < 180 else 0.1),
    Scenario("0.5 %; a new version on day 120, a page on 180, drift on 240, a halt on 300", lambda _: 0.005, EVENTS),
)


def live(scenario: Scenario, seed: int) -> Year:
    """The year of one agent."""
    chance, year = random.Random(f"{seed} {scenario.name}"), Year()
    drawn: list[list[tuple[float, bool]]] = []  # by day: when, and whether it fails
    state = decide.began(RULE, "1", decide.end_of((BEGIN - timedelta(days=1)).isoformat()))

    def put(day: int, after: State) -> State:
        if after.number != state.number:
            year.changes.append((day, after.step, after.cause))
        return after

    for day in range(DAYS):
        today = (BEGIN + timedelta(days=day)).isoformat()
        began = decide.end_of(today) - 86_400
        if day in scenario.events:
            state = put(day, scenario.events[day](state, began + NOON))
        year.rates.append(state.rate)
        year.steps.append(state.step)
        drawn.append(_runs_of(day, began, state.rate, scenario, seed, chance))
        read = drawn[:day]  # each on the day after
        recent = _counts(read, max(state.zero, decide.recent_from(today)))
        state = put(day + 1, decide.evaluate(state, today, _counts(read, state.zero), recent))
    year.drawn = sum(map(len, drawn))
    year.failed = sum(fails for some in drawn for _, fails in some)
    return year


def _runs_of(
    day: int, began: float, rate: float, scenario: Scenario, seed: int, chance: random.Random
) -> list[tuple[float, bool]]:
    key = hashlib.sha256(f"{seed} {scenario.name} {day}".encode()).digest()
    found = []
    for number in range(RUNS):
        fails = chance.random() < scenario.fails(day)
        if draw(key, Run("desk", f"run-{day}-{number}", "live")) < rate:
            found.append((began + 86_400 * number / RUNS, fails))
    return found


def _counts(read: list[list[tuple[float, bool]]], since: float) -> Counts:
    some = [fails for of_day in read if of_day and of_day[-1][0] >= since for at, fails in of_day if at >= since]
    return Counts(len(some) - sum(some), sum(some))


def years(scenario: Scenario) -> list[Year]:
    return [live(scenario, seed) for seed in range(SEEDS)]


def table(found: Mapping[str, list[Year]]) -> str:
    """The years as Markdown, each figure the median with its range."""
    lines = [
        "| the agent fails in | first taper | last rate | at the first rate | read in the year | why it changed |",
        "|---|---|---|---|---|---|",
    ]
    for name, some in found.items():
        first = [_first(year, "tapered") for year in some]
        last = [year.steps.index(3) for year in some if 3 in year.steps]
        cells = (
            name, f"day {_range([one for one in first if one is not None])}" if any(first) else "never",
            f"from day {_range(last)}" if last else "never", f"{_range([year.steps.count(0) for year in some])} days",
            f"{_range([year.drawn for year in some])} of {DAYS * RUNS:,}", _causes(some),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _first(year: Year, cause: RateCause) -> int | None:
    return next((day for day, _, why in year.changes if why == cause), None)


def _range(values: list[int]) -> str:
    middle = f"{median(values):,.0f}"
    return middle if min(values) == max(values) else f"{middle} ({min(values):,}–{max(values):,})"


def _causes(some: list[Year]) -> str:
    counts = Counter(cause for year in some for _, _, cause in year.changes)
    return ", ".join(f"{cause} {count / len(some):.3g}" for cause, count in counts.most_common()) or "it did not"


def write(path: Path, text: str) -> None:
    """Puts the table between the marks."""
    head, rest = path.read_text(encoding="utf-8").split(MARK)
    path.write_text(f"{head}{MARK}\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def rows(found: Mapping[str, list[Year]]) -> list[dict[str, Any]]:
    everything = DAYS * RUNS
    return [
        {
            "name": f"share of a year's runs that people read, an agent that fails in {name}", "unit": "of runs",
            "value": round(median(year.drawn for year in some) / everything, 4), "target": None,
            "peer": "the first rate all year", "peer_value": RULE.steps[0],
            "ratio": round(median(year.drawn for year in some) / everything / RULE.steps[0], 3),
        }
        for name, some in found.items()
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this document")
    options = parser.parse_args()
    found = {scenario.name: years(scenario) for scenario in SCENARIOS}
    if options.write:
        write(options.write, table(found))
    out = "\n".join(json.dumps(row) for row in rows(found)) if options.json else table(found)
    sys.stdout.write(out + "\n")


if __name__ == "__main__":
    main()
