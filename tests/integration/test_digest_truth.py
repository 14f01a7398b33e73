"""Every sentence of the digest of the real runs against the published files, counted here without any code of ours.

Of the 653 runs those 353 are taken whose times were recorded. Every third is put on the day, the others into the week
before. `index.csv` has how each ended, what it cost and what failed in it; the runs' own file what was said.
"""

import asyncio
import csv
import gzip
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest

import real_log
from midwatch.runtime.settings import Settings
from midwatch_services.digest import render
from midwatch_services.digest.decide import Digest
from midwatch_services.digest.facts import Sentence
from midwatch_services.digest.policy import Policy
from midwatch_services.digest.readability import grade
from midwatch_services.digest.sources import Sources

pytestmark = pytest.mark.proof

DAY = date(2026, 11, 25)
NOW = datetime(2026, 11, 26, 7, 0, tzinfo=UTC)
WORDS = {"settled": "settled", "handed over": "handed", "failed": "failed", "broken off": "broken"}


@dataclass(frozen=True)
class Truth:
    """A run as its publishers' files have it."""

    run_id: str
    agent: str
    back: int  # days before the day
    end: str
    term: str
    cost: float | None
    seconds: float
    tool_errors: int
    messages: int
    calls: int
    asked: str
    tools: frozenset[str]


def truths(data: Path) -> dict[str, Truth]:
    """All of them, by run id, in the order of the file."""
    rows = csv.DictReader((data / "agent-runs" / "index.csv").read_text().splitlines())
    index = {row["run_id"]: row for row in rows}
    found: dict[str, Truth] = {}
    with gzip.open(data / "agent-runs" / "runs.jsonl.gz") as lines:
        for line in lines:
            run = json.loads(line)
            if run["timing"] == "recorded":
                found[run["run_id"]] = truth(run, index[run["run_id"]], len(found))
    return found


def truth(run: dict[str, Any], row: dict[str, str], place: int) -> Truth:
    last = str(run["messages"][-1]["content"])
    if row["term"] not in ("user_stop", "agent_stop"):
        end = "failed"
    elif int(row["n_transfers"]):
        end = "handed"
    else:
        end = "broken" if "###TRANSFER###" in last or "###OUT-OF-SCOPE###" in last else "settled"
    began, ended = (datetime.fromisoformat(run[name]) for name in ("started_at", "ended_at"))
    cost = float(row["agent_cost"] or 0)
    spoken = [
        one for one in run["messages"] if one["role"] in ("user", "assistant") and str(one["content"] or "").strip()
    ]
    mine = [call for one in run["messages"] if one["role"] == "assistant" for call in one.get("tool_calls") or ()]
    mine = [call for call in mine if call.get("requestor", "assistant") == "assistant"]
    return Truth(
        run_id=run["run_id"], agent=f"{row['domain']}-{row['agent']}".replace("_", "-"),
        back=0 if place % 3 == 0 else 1 + place % 7, end=end, term=row["term"],
        cost=cost or None,
        seconds=(ended - began).total_seconds(), tool_errors=int(row["n_tool_errors"]), messages=len(spoken),
        calls=len(mine), asked=next((str(one["content"]) for one in spoken if one["role"] == "user"), ""),
        tools=frozenset(call["name"] for call in mine),
    )  # fmt: skip


@pytest.fixture(scope="module")
def known(data_dir: Path) -> dict[str, Truth]:
    return truths(data_dir)


@pytest.fixture(scope="module")
def log(data_dir: Path, known: dict[str, Truth], tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return filled(data_dir, known, tmp_path_factory.mktemp("home"))


def filled(data: Path, known: dict[str, Truth], home: Path) -> Settings:
    """A run log of them in this folder."""
    settings = Settings(home=home)
    begins = {
        one.run_id: datetime(2026, 11, 25, 1, tzinfo=UTC) - timedelta(days=one.back) + timedelta(minutes=place * 3)
        for place, one in enumerate(known.values())
    }
    asyncio.run(real_log.fill(settings, begins, real_log.played(data)))
    return settings


def made(settings: Settings, agent: str | None, least: int = 30) -> Digest:
    with Sources(settings, Policy(least=least)) as sources:
        return sources.digest(DAY, agent, NOW)


def moved(ratio: float, more: str, less: str, same: str) -> str:
    """What is said of a figure that changed so."""
    return more if ratio >= 1.2 else less if ratio <= 1 / 1.2 else same


class Checker:
    """Knows each kind of sentence, and checks it: `mine` are the runs of the day, `theirs` those of the week."""

    def __init__(self, mine: list[Truth], theirs: list[Truth], least: int = 30) -> None:
        self.mine, self.theirs, self.least = mine, theirs, least
        self.met: Counter[str] = Counter()
        self.kinds: dict[str, Callable[..., Iterator[bool]]] = {
            r"(\d+) runs?(?: of (\d+) agents)? began on this day: (.+)\.": self.lead,
            r"(\d+) runs? failed\.": lambda n: self.count(n, lambda one: one.end == "failed"),
            r"The reason(?: in (\d+) of them)?: “Stopped by the harness: (.+)”\.": self.reason,
            r"(\d+) runs? broke off: the customer left, or the program did\.":
                lambda n: self.count(n, lambda one: one.end == "broken"),
            r"A tool failed in (\d+) runs?, (\d+) times? in all\.": self.tool_failures,
            r"Nothing went wrong that the watch would see, and nothing was stopped\.": self.nothing,
            r"(\d+) runs? began(, (?:more|fewer) than on any day of that week|); in the week before it was "
            r"(\d+|fewer than 1) a day, and (\d+) on the Wednesday before\.": self.volume,
            r"(\d+) runs? against (\d+) runs? in the seven days before are too few runs to say more\.": self.few,
            r"The share of runs (that the agent settled|handed over|that failed|that broke off) (.+)\.": self.share,
            r"Where it is known, a run cost \$([\d.]+) on average, much as before \(\$([\d.]+)\)\.": self.cost,
            r"Where it is known, the cost of a run (rose|fell) from \$([\d.]+) to \$([\d.]+) on average\.":
                self.cost_moved,
            r"Runs (take longer than|are faster than|are about as fast as) before: half of the runs took no longer "
            r"than (\d+) (seconds|minutes); then it was (\d+) (seconds|minutes)\.": self.speed,
            r"(\S+) had (\d+) runs?: (.+)\.": self.agent,
            r"The day cost at least \$([\d.]+)\.": self.total,
            r"The day cost \$([\d.]+)\.": self.total,
            r"All( of it| that is known of it) was reported with the answers\.": self.reported,
            r"What the day cost is not known\.": self.unknown,
            r"Too few runs have a known cost to say what changed in that\.": self.too_few_costs,
            r"What (\d+) runs? cost is not known at all\.": lambda n: self.count(n, lambda one: one.cost is None),
            r"The three dearest runs cost \$([\d.]+), \$([\d.]+) and \$([\d.]+)\.": self.dearest,
        }  # fmt: skip

    def check(self, sentence: Sentence) -> None:
        """Fails where a figure of the sentence, or what it is linked to, is not so."""
        text = sentence.text.replace("\u00a0", " ")
        for pattern, judge in self.kinds.items():
            if found := re.fullmatch(pattern, text):
                assert all(judge(*found.groups())), text
                self.met[pattern] += 1
                return
        raise AssertionError(f"no check for: {text}")

    def of(self, is_so: Callable[[Truth], bool]) -> list[Truth]:
        return [one for one in self.mine if is_so(one)]

    def count(self, number: str, is_so: Callable[[Truth], bool]) -> Iterator[bool]:
        yield int(number) == len(self.of(is_so))

    def ends(self, text: str, some: list[Truth]) -> bool:
        said = {WORDS[what]: int(number) for number, what in re.findall(r"(\d+) ([a-z ]+?)(?:,| and |$)", text)}
        return said == dict(Counter(one.end for one in some))

    def lead(self, number: str, agents: str | None, text: str) -> Iterator[bool]:
        yield int(number) == len(self.mine)
        yield agents is None or int(agents) == len({one.agent for one in self.mine})
        yield self.ends(text, self.mine)

    def reason(self, number: str | None, reason: str) -> Iterator[bool]:
        terms = Counter(one.term.replace("_", " ") for one in self.of(lambda one: one.end == "failed"))
        yield terms[reason] == max(terms.values()) == int(number or terms.total())

    def tool_failures(self, number: str, times: str) -> Iterator[bool]:
        failing = self.of(lambda one: one.tool_errors > 0)
        yield int(number) == len(failing)
        yield int(times) == sum(one.tool_errors for one in failing)

    def nothing(self) -> Iterator[bool]:
        yield not self.of(lambda one: one.end in ("failed", "broken") or one.tool_errors > 0)

    def volume(self, number: str, more: str, a_day: str, weekday: str) -> Iterator[bool]:
        days = Counter(one.back for one in self.theirs)
        yield int(number) == len(self.mine)
        yield ("more" in more) == (len(self.mine) > max(days[back] for back in range(1, 8)))
        yield ("fewer" in more) == (len(self.mine) < min(days[back] for back in range(1, 8)))
        yield a_day == (f"{len(self.theirs) / 7:.0f}" if len(self.theirs) >= 7 else "fewer than 1")
        yield int(weekday) == days[7]

    def few(self, now: str, then: str) -> Iterator[bool]:
        yield (int(now), int(then)) == (len(self.mine), len(self.theirs))
        yield min(int(now), int(then)) < self.least

    def share(self, which: str, said: str) -> Iterator[bool]:
        end = {"that the agent settled": "settled", "handed over": "handed", "that failed": "failed"}.get(
            which, "broken"
        )
        mine, theirs = ([one for one in some if one.end == end] for some in (self.mine, self.theirs))
        now, then = (int(100 * len(part) / len(whole) + 0.5) for part, whole in
                     ((mine, self.mine), (theirs, self.theirs)))  # fmt: skip
        together = (len(mine) + len(theirs)) / (len(self.mine) + len(self.theirs))
        spread = (together * (1 - together) * (1 / len(self.mine) + 1 / len(self.theirs))) ** 0.5
        gap = len(mine) / len(self.mine) - len(theirs) / len(self.theirs)
        by_chance = 2 * (1 - NormalDist().cdf(abs(gap) / spread)) if spread else 1
        if by_chance < 0.01 and abs(gap) >= 0.02:
            yield said == f"{'rose' if gap > 0 else 'fell'} from {then} % to {now} %"
        elif now == then:
            yield said == f"is the same as in the week before: {now} %"
        else:
            yield said == f"is {now} %; it was {then} % in the week before, a difference that chance can make"

    def cost(self, now: str, then: str) -> Iterator[bool]:
        for said, some in ((now, self.mine), (then, self.theirs)):
            costs = [one.cost for one in some if one.cost is not None]
            yield float(said) == pytest.approx(sum(costs) / len(costs), abs=10 ** -len(said.split(".")[1]))

    def cost_moved(self, how: str, then: str, now: str) -> Iterator[bool]:
        yield from self.cost(now, then)
        yield how == moved(float(now) / float(then), "rose", "fell", "")

    def speed(self, how: str, now: str, unit: str, then: str, its_unit: str) -> Iterator[bool]:
        halves = []
        for said, in_, some in ((now, unit, self.mine), (then, its_unit, self.theirs)):
            took = sorted(one.seconds for one in some)
            halves.append(took[(len(took) - 1) // 2])
            yield int(said) == round(halves[-1] / {"seconds": 1, "minutes": 60}[in_])
        yield how == moved(halves[0] / halves[1], "take longer than", "are faster than", "are about as fast as")

    def agent(self, name: str, number: str, text: str) -> Iterator[bool]:
        some = self.of(lambda one: one.agent == name.lower())
        yield int(number) == len(some)
        yield self.ends(text, some)

    def total(self, said: str) -> Iterator[bool]:
        exact = sum(one.cost or 0 for one in self.mine)
        yield float(said) <= exact + 1e-6 < float(said) + 0.01

    def reported(self, which: str) -> Iterator[bool]:
        yield (which == " of it") == all(one.cost for one in self.mine)
        yield any(one.cost for one in self.mine)  # the files hold costs that were reported, and no other

    def unknown(self) -> Iterator[bool]:
        yield not any(one.cost for one in self.mine)

    def too_few_costs(self) -> Iterator[bool]:
        yield min(sum(one.cost is not None for one in some) for some in (self.mine, self.theirs)) < self.least

    def dearest(self, *said: str) -> Iterator[bool]:
        top = sorted((one.cost or 0 for one in self.mine), reverse=True)[:3]
        yield all(float(one) <= exact < float(one) + 0.01 for one, exact in zip(said, top, strict=True))


READ = re.compile(r"(?:(?P<why>.+?)\. )?A customer(?: of (?P<agent>\S+))? wrote “(?P<asked>.*?)”; "
                  r"(?P<end>[a-z ]+?) after "
                  r"(?P<took>.+?)(?:, for \$(?P<cost>[\d.]+)|, at an unknown cost)\.")  # fmt: skip
ENDS = {"the agent settled it": "settled", "it failed": "failed", "it broke off": "broken",
        "a person was to take it on": "handed"}  # fmt: skip


def check_read(sentence: Sentence, known: dict[str, Truth], mine: list[Truth]) -> str | None:
    """A line on one run: what the customer wrote, how it ended, after how long, at what cost, and why it is here."""
    text = sentence.text.replace("\u00a0", " ")
    found = READ.fullmatch(text)
    assert found, text
    (source,) = sentence.sources
    one = known[source.name]
    assert source.agent.replace("_", "-") == one.agent == (found["agent"] or one.agent)
    for part in re.findall(r"[a-z]{3,}", found["asked"].lower()):
        if one.asked:  # an agent that works alone has no customer, and the log says so
            assert part in one.asked.lower(), text
    assert ENDS[found["end"]] == one.end, text
    number, unit = found["took"].split()[:2]
    assert int(number) == round(one.seconds / {"s": 1, "m": 60}[unit[0]]), text
    if found["cost"] is None:
        assert one.cost is None, text
    else:
        assert one.cost is not None
        assert float(found["cost"]) <= one.cost + 1e-9 < float(found["cost"]) + 0.01, text
    for why in re.split(r", (?=the|with)", found["why"] or ""):
        why = why.lower()
        if why.startswith("with the tool "):
            assert why.removeprefix("with the tool ").replace(" ", "_") in one.tools, text
        elif why:
            measure = {
                "the dearest": lambda run: run.cost or 0, "the slowest": lambda run: run.seconds,
                "the one in which tools failed most": lambda run: run.tool_errors,
                "the longest talk": lambda run: run.messages, "the one with the most steps": lambda run: run.calls,
            }[why]  # fmt: skip
            assert measure(one) == max(map(measure, mine)), text
    return found["why"]


WHO: list[str | None] = [None, "airline-llm_agent", "telecom-llm_agent"]


@pytest.mark.parametrize("agent", WHO)
def test_each_sentence_on_the_real_runs_is_true(log: Settings, known: dict[str, Truth], agent: str | None) -> None:
    whose = [one for one in known.values() if agent is None or one.agent == agent.replace("_", "-")]
    mine, theirs = [one for one in whose if one.back == 0], [one for one in whose if one.back > 0]
    assert len(mine) > 10 and len(theirs) > 20
    digest, checker = made(log, agent), Checker(mine, theirs)
    sections = {section.heading: section.sentences for section in digest.sections}
    waits = sections.pop("What waits for a person")
    for sentence in sections.pop("Runs most worth reading"):
        check_read(sentence, known, mine)
    for sentence in (*digest.lead, *(one for some in sections.values() for one in some)):
        checker.check(sentence)
    assert [one.text for one in waits] == [  # no other service has a database here, and no alert was raised
        "It is not known which cases wait for a person: their list could not be read.",
        "No alert waits for somebody to take it on.",
        "It is not known how many runs wait for a reviewer: their list could not be read.",
        "Promises made to customers are not tracked yet, so none are listed here.",
    ]


def test_every_kind_of_sentence_was_met(log: Settings, known: dict[str, Truth], data_dir: Path, tmp_path: Path) -> None:
    # Costs change where the dear runs of one agent fall on one day.
    dear = {name: replace(one, back=0 if (one.cost or 0) > 0.15 else one.back or 3) for name, one in known.items()}
    met: Counter[str] = Counter()
    for settings, truth in ((log, known), (filled(data_dir, dear, tmp_path), dear)):
        with Sources(settings, Policy()) as sources:
            named: list[str | None] = [None, *sources.agents(DAY)]
        for agent, least in [(agent, least) for agent in named for least in (5, 30)]:  # of fewer runs more is said
            whose = [one for one in truth.values() if agent is None or one.agent == agent.replace("_", "-")]
            mine, theirs = [one for one in whose if one.back == 0], [one for one in whose if one.back > 0]
            checker, digest = Checker(mine, theirs, least), made(settings, agent, least)
            inner = [part.sentences for part in digest.sections if part.heading.split()[1] not in ("waits", "most")]
            for sentence in (*digest.lead, *(one for some in inner for one in some)):
                checker.check(sentence)
            met += checker.met
    assert [kind for kind in checker.kinds if not met[kind]] == []


@pytest.mark.parametrize("agent", WHO)
def test_what_a_sentence_is_linked_to_is_what_it_speaks_of(
    log: Settings, known: dict[str, Truth], agent: str | None
) -> None:
    digest = made(log, agent)
    begin = {"failed": "failed", "broke off": "broken"}
    for sentence in digest.sentences:
        assert sentence.sources, sentence.text
        runs = [known[one.name] for one in sentence.sources if one.kind == "run"]
        assert all(one.back == 0 for one in runs), "every run is of the day"
        found = re.match(r"(\d+) runs? (failed|broke off)", sentence.text)
        if found:
            assert int(found[1]) == sentence.total
            assert {one.end for one in runs} == {begin[found[2]]}
        if found := re.match(r"What (\d+) runs? cost is not known", sentence.text):
            assert int(found[1]) == sentence.total
            assert {one.cost for one in runs} == {None}
        if found := re.match(r"A tool failed in (\d+)", sentence.text):
            assert int(found[1]) == sentence.total
            assert all(one.tool_errors for one in runs)


@pytest.mark.parametrize("agent", WHO)
def test_it_is_ten_minutes_of_plain_words(log: Settings, known: dict[str, Truth], agent: str | None) -> None:
    digest = made(log, agent)
    prose = " ".join([digest.title, *digest.headings, *(one.text for one in digest.sentences)])
    assert digest.words <= 2000
    assert digest.left_out == 0
    assert grade(one.text for one in digest.sentences) <= 9
    assert not re.findall(r"\w*[a-zA-Z]_\w+", prose)
    assert not [run_id for run_id in known if run_id in prose]
    assert not re.findall(r"\b(?=[A-Z0-9#]*\d)(?=[A-Z0-9#]*[A-Z])[A-Z0-9#]{6,}\b", prose), "no number of an order"
    assert made(log, agent) == digest, "the same day is the same digest"
    assert "<script" not in render.html(digest)
