"""Every way to cheat a draw is found from the revealed key."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from midwatch.contracts.reviews import ReviewKeyCommitted, ReviewKeyRevealed, ReviewRated, ReviewSampled
from midwatch_services.reviewer_sampler.decide import DayKey, Run, draw
from midwatch_services.reviewer_sampler.verify import Evidence, Said, days_of, verify

DAY, RATE = "2026-11-22", 0.5
KEY = DayKey(DAY, bytes(range(32)))
RUNS = [Run("desk", f"run-{n}", "live") for n in range(20)] + [Run("desk", "run-0", "replay")]
DRAWN = [run for run in RUNS if draw(KEY.key, run) < RATE]
OUT = next(run for run in RUNS if draw(KEY.key, run) >= RATE and run.track == "live")


def sampled(run: Run) -> ReviewSampled:
    mode: Any = "replay" if run.track == "replay" else "live"
    return ReviewSampled(
        run_id=run.run_id, agent=run.agent, rate=RATE, draw=draw(KEY.key, run), day=DAY, key_hash=KEY.hash, mode=mode
    )  # fmt: skip


def said() -> list[Said]:
    events: list[Any] = [ReviewKeyCommitted(day=DAY, key_hash=KEY.hash), *map(sampled, DRAWN)]
    events.append(ReviewKeyRevealed(day=DAY, key=KEY.key.hex(), key_hash=KEY.hash))
    return [Said(position, f"id-{position}", data) for position, data in enumerate(events, 1)]


def rows() -> list[dict[str, Any]]:
    return [
        {**run._asdict(), "day": DAY, "rate": RATE, "draw": draw(KEY.key, run), "drawn": int(run in DRAWN)}
        for run in RUNS
    ]


def evidence() -> Evidence:
    return Evidence(said(), rows(), set(DRAWN), {DAY: []}, {DAY: len(RUNS)})


def test_an_honest_day_passes() -> None:
    report = verify(DAY, evidence())
    assert (report.verdict, report.mismatches, report.note) == ("passed", [], "")
    assert (report.sampled, report.decided, report.logged) == (len(DRAWN), 21, 21)
    assert 0 < len(DRAWN) < 21


def test_an_event_that_was_published_again_is_no_second_sample() -> None:
    honest = evidence()
    again = [*honest.said, *(event._replace(position=100 + event.position) for event in honest.said)]
    assert verify(DAY, replace(honest, said=again)).verdict == "passed"


def changed(place: int, **fields: Any) -> list[Said]:
    events = said()
    events[place] = events[place]._replace(data=msgspec.structs.replace(events[place].data, **fields))
    return events


def row_changed(run: Run, **fields: Any) -> list[dict[str, Any]]:
    return [{**row, **fields} if (row["run_id"], row["track"]) == (run.run_id, run.track) else row for row in rows()]


def lucky(e: Evidence) -> Evidence:
    """The sampler claims that a run was passed over."""
    return replace(e, said=[*e.said[:1], *e.said[2:]], decided=row_changed(DRAWN[0], drawn=0), queued=set(DRAWN[1:]))


CHEATS: dict[str, tuple[Callable[[Evidence], Evidence], str]] = {
    "a drawn run is not published": (
        lambda e: replace(e, said=[*e.said[:1], *e.said[2:]]), f"desk {DRAWN[0].run_id} was drawn",
    ),
    "a drawn run is called passed over": (lucky, f"desk {DRAWN[0].run_id} is recorded as passed over"),
    "a drawn run is not in the queue": (
        lambda e: replace(e, queued=set(DRAWN[1:])), "and is not in the queue",
    ),
    "another draw is claimed": (lambda e: replace(e, said=changed(1, draw=0.1)), "was drawn with 0.100000, the key"),
    "another draw is recorded": (
        lambda e: replace(e, decided=row_changed(OUT, draw=0.999)), "is recorded with 0.999000, the key gives",
    ),
    "a run is sampled that was not drawn": (
        lambda e: replace(e, said=[*e.said, Said(99, "x", sampled(OUT))]), "is not below its rate 0.5",
    ),
    "a run is sampled that the sampler never saw": (
        lambda e: replace(e, said=[*e.said, Said(99, "x", msgspec.structs.replace(sampled(DRAWN[0]), run_id="new"))]),
        "desk new was published and is not among the sampler's runs",
    ),
    "another rate is published than recorded": (
        lambda e: replace(e, said=changed(1, rate=1.0)), "was published with rate 1, recorded with 0.5",
    ),
    "a sample names another key": (lambda e: replace(e, said=changed(1, key_hash="ab" * 32)), "names another key"),
    "a run is sampled twice": (
        lambda e: replace(e, said=[*e.said, Said(99, "x", sampled(DRAWN[0]))]), "was sampled twice",
    ),
    "the key is not the one committed to": (
        lambda e: replace(e, said=changed(-1, key="00" * 32)), "committed was",
    ),
    "two keys are revealed": (
        lambda e: replace(e, said=[*e.said, Said(99, "x", ReviewKeyRevealed(day=DAY, key="00", key_hash=""))]),
        "2 different keys were revealed",
    ),
    "two hashes are committed to": (
        lambda e: replace(e, said=[*e.said, Said(99, "x", ReviewKeyCommitted(day=DAY, key_hash="ab" * 32))]),
        "committed was",
    ),
    "no hash was committed to": (lambda e: replace(e, said=e.said[1:]), "no hash of the key was published"),
    "a run is drawn before the hash is published": (
        lambda e: replace(e, said=[Said(99, "id-1", e.said[0].data), *e.said[1:]]), "before the key's hash",
    ),
    "a logged run was never decided": (
        lambda e: replace(e, unseen={DAY: [Run("desk", "hidden", "live")]}), "desk hidden is in the run log and was",
    ),
    "the key is no key": (lambda e: replace(e, said=changed(-1, key="no")), "the revealed key is not in hex"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(CHEATS))
def test_cheating_is_found(name: str) -> None:
    cheat, expected = CHEATS[name]
    report = verify(DAY, cheat(evidence()))
    assert report.verdict == "failed"
    assert any(expected in line for line in report.mismatches), report.mismatches


def test_without_the_samplers_runs_only_the_draws_are_judged() -> None:
    assert verify(DAY, Evidence(said())).verdict == "inconclusive"
    assert verify(DAY, Evidence(changed(1, draw=0.1))).verdict == "failed"


def test_without_the_run_log_it_is_said_so() -> None:
    report = verify(DAY, Evidence(said(), rows(), set(DRAWN)))
    assert (report.verdict, report.logged) == ("passed", None)
    assert report.note.startswith("the run log cannot be read here")


def test_a_day_whose_key_is_secret_is_inconclusive() -> None:
    report = verify(DAY, replace(evidence(), said=said()[:-1]))
    assert (report.verdict, report.note) == ("inconclusive", "the key of this day is not revealed yet")


def test_a_day_that_the_sampler_has_forgotten_is_judged_by_the_bus_alone() -> None:
    report = verify(DAY, replace(evidence(), decided=[], unseen={DAY: RUNS}, forgotten=DAY))
    assert (report.verdict, report.mismatches, report.decided) == ("inconclusive", [], None)


def test_other_days_do_not_matter() -> None:
    other = ReviewKeyRevealed(day="2026-11-23", key="00", key_hash="")
    honest = evidence()
    both = replace(honest, said=[*honest.said, Said(99, "x", other)])
    assert verify(DAY, both).verdict == "passed"
    assert days_of(both.said) == [DAY, "2026-11-23"]


def rated(at: float, rate: float, agent: str = "desk") -> Said:
    return Said(1000 + int(at), f"rated-{at}", ReviewRated(agent=agent, rate=rate, step=0, cause="card"), at)


def decided(at: float) -> Evidence:
    """The honest day, all of it decided at that time."""
    honest = evidence()
    return replace(honest, decided=[{**row, "decided_at": at} for row in honest.decided or ()])


@pytest.mark.parametrize(
    ("published", "is_fair"),
    [
        ([], True),  # from before there were schedules
        ([rated(1000, RATE)], True),
        ([rated(1000, 0.2)], False),
        ([rated(1000, 0.2), rated(5000, RATE)], True),
        ([rated(1000, RATE), rated(5000, 0.2)], False),
        ([rated(1000, RATE), rated(9900, 0.2)], True),  # within five minutes, as clocks differ
        ([rated(1000, 0.2), rated(10_200, RATE)], True),
        ([rated(1000, 0.2), rated(10_400, RATE)], False),
        ([rated(20_000, 0.2)], True),  # its first rate was published later
        ([rated(1000, 0.2, "other"), rated(1000, RATE)], True),
    ],
)
def test_a_rate_has_to_be_one_that_was_published_when_the_run_was_decided(published: list[Said], is_fair: bool) -> None:
    found = decided(10_000.0)
    report = verify(DAY, replace(found, said=[*found.said, *published]))
    assert report.verdict == ("passed" if is_fair else "failed")
    if not is_fair:
        live = [run for run in RUNS if run.track == "live"]
        assert len(report.mismatches) == len(live)  # a replay has its card's rate
        assert report.mismatches[0].endswith("was drawn at a rate of 0.5, published was 0.2")
