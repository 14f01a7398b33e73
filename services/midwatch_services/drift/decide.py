"""Which changes of an agent's runs are no chance and no trifle. Pure: no clock, no database, and no draw."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from itertools import groupby, islice
from typing import Literal, NamedTuple

from msgspec import Struct

from . import measures, words
from .facts import Facts
from .measures import Figure, Kind, Measure, Trait
from .onset import Onset, onset
from .policy import POLICY, Policy
from .statistics import benjamini_hochberg, cohens_h, in_tenths, kolmogorov_smirnov, merged, quantile, stability_index

Against = Literal["days", "version"]
Phase = Literal["passed", "failed", "inconclusive"]
_WEEKS = 4


class Comparison(NamedTuple):
    """Runs of now beside runs of before: of the days before, or of the version before, whose name is `label`."""

    against: Against
    recent: tuple[Facts, ...]
    baseline: tuple[Facts, ...]
    label: str = ""


class Finding(Struct, frozen=True, kw_only=True):
    """One change. `recent` and `baseline` are what the sentence says: shares, or figures at its place. `distance` is
    Cohen's h of shares, Kolmogorov-Smirnov's of figures. `runs`: those of now that show it best."""

    against: Against
    label: str
    cause: str
    name: str
    sentence: str
    test: str
    p: float
    q: float
    recent: float
    baseline: float
    distance: float
    psi: float
    recent_runs: int
    baseline_runs: int
    runs: list[str]
    onset: str
    onset_day: str | None


class Verdict(Struct, frozen=True, kw_only=True):
    """How one comparison ended: with too few runs it is inconclusive, never passed."""

    against: Against
    label: str
    phase: Phase
    recent_runs: int
    baseline_runs: int
    least: int
    tests: int = 0
    findings: list[Finding] = []


class _Change(NamedTuple):
    """What a test found, before it is known how many tests there are."""

    comparison: Comparison
    measure: Measure
    p: float


class _Shown(NamedTuple):
    """A change in words, and by what each run is measured that shows it."""

    sentence: str
    name: str
    by: Trait | Figure
    place: float  # of a figure: the quantile that changed
    recent: float
    baseline: float
    distance: float
    psi: float


def judge(comparisons: Iterable[Comparison], policy: Policy = POLICY) -> list[Verdict]:
    """A verdict on each comparison. All tests of all of them are corrected together."""
    some = [_one_a_ticket(comparison) for comparison in comparisons]
    changes = [
        _Change(one, measure, measure.p(one.recent, one.baseline))
        for one in some
        if min(len(one.recent), len(one.baseline)) >= policy.least
        for measure in measures.of(one.recent, one.baseline, policy)
    ]
    corrected = benjamini_hochberg([change.p for change in changes])
    found: dict[Against, list[Finding]] = {}
    tests = Counter(change.comparison.against for change in changes)
    for change, q in zip(changes, corrected, strict=True):
        if q <= policy.q and (finding := _finding(change, q, policy)):
            found.setdefault(change.comparison.against, []).append(finding)
    return [_verdict(one, tests[one.against], found.get(one.against, []), policy) for one in some]


def _verdict(one: Comparison, tests: int, findings: list[Finding], policy: Policy) -> Verdict:
    enough = min(len(one.recent), len(one.baseline)) >= policy.least
    phase: Phase = "inconclusive" if not enough else "failed" if findings else "passed"
    if any(finding.cause == "hand_offs" for finding in findings):  # how they end says the same again
        findings = [one for one in findings if (one.cause, one.name) != ("resolutions", "handed_off")]
    order = {cause: place for place, cause in enumerate(measures.CAUSES)}
    findings.sort(key=lambda finding: (order[finding.cause], -abs(finding.distance), finding.name))  # type: ignore[index]
    findings = [one for _, some in groupby(findings, lambda one: one.cause) for one in islice(some, policy.most_said)]
    return Verdict(
        against=one.against, label=one.label, phase=phase, recent_runs=len(one.recent),
        baseline_runs=len(one.baseline), least=policy.least, tests=tests, findings=findings,
    )  # fmt: skip


def _one_a_ticket(comparison: Comparison) -> Comparison:
    """The runs of a ticket resemble one another: as many runs they would seem more certain than they are. One of each
    ticket counts, drawn by its id."""
    return comparison._replace(recent=_firsts(comparison.recent), baseline=_firsts(comparison.baseline))


def _firsts(runs: Sequence[Facts]) -> tuple[Facts, ...]:
    kept: dict[str, Facts] = {}
    for run in sorted(runs, key=lambda run: (run.draw, run.run_id)):
        kept.setdefault(f"t{run.ticket}" if run.ticket else f"r{run.run_id}", run)
    return tuple(sorted(kept.values(), key=lambda run: (run.ended_at, run.run_id)))


def _finding(change: _Change, q: float, policy: Policy) -> Finding | None:
    one = change.comparison
    shown = _shown(change.measure, one, policy)
    if shown is None or (one.against == "days" and _is_rhythm(shown, one, policy)):
        return None
    when = _onset(shown, one)
    return Finding(
        against=one.against, label=one.label, cause=change.measure.cause, name=shown.name, sentence=shown.sentence,
        test=measures.TESTS[type(change.measure)], p=change.p, q=q, recent=shown.recent, baseline=shown.baseline,
        distance=shown.distance, psi=shown.psi, recent_runs=len(one.recent), baseline_runs=len(one.baseline),
        runs=_examples(shown, one.recent, policy), onset=when.how, onset_day=when.day,
    )  # fmt: skip


def _shown(measure: Measure, one: Comparison, policy: Policy) -> _Shown | None:
    """The change in words, or None where it is a trifle."""
    if isinstance(measure, Trait):
        return _trait(measure, one, policy)
    if isinstance(measure, Kind):
        return _kind(measure, one, policy)
    return _figure(measure, one, policy)


def _trait(trait: Trait, one: Comparison, policy: Policy) -> _Shown | None:
    a, b = (sum(map(trait.of, runs)) for runs in (one.recent, one.baseline))
    n, m = len(one.recent), len(one.baseline)
    distance = cohens_h(a / n, b / m)
    if abs(distance) < policy.least_h or (trait.cause in ("words", "tools") and max(a / n, b / m) < policy.least_share):
        return None
    sentence = words.trait(trait.cause, _said(trait, one), a / n, b / m)
    psi = stability_index((a, n - a), (b, m - b))
    return _Shown(sentence, trait.name, trait, 0.5, a / n, b / m, distance, psi)


def _said(trait: Trait, one: Comparison) -> str:
    """A tool's name, or a stem as customers write it most."""
    if trait.cause != "words":
        return trait.name
    spelt = Counter(run.words[trait.name] for run in (*one.recent, *one.baseline) if trait.name in run.words)
    return min(spelt, key=lambda word: (-spelt[word], word))


def _kind(kind: Kind, one: Comparison, policy: Policy) -> _Shown | None:
    """The name whose share has changed most stands for all of them."""
    recent, baseline = kind.counts(one.recent), kind.counts(one.baseline)
    n, m = recent.total(), baseline.total()
    name = max(sorted({*recent, *baseline}), key=lambda name: abs(cohens_h(recent[name] / n, baseline[name] / m)))
    share, before = recent[name] / n, baseline[name] / m
    distance = cohens_h(share, before)
    if abs(distance) < policy.least_h:
        return None
    table = merged(recent, baseline)
    by = Trait(kind.cause, name, lambda run: kind.of(run) == name)
    psi = stability_index(table.recent, table.baseline)
    return _Shown(words.kind(kind.cause, name, share, before), name, by, 0.5, share, before, distance, psi)


def _figure(figure: Figure, one: Comparison, policy: Policy) -> _Shown | None:
    """What the middle run says, or where that is as before, the tenth of runs at either end."""
    recent, baseline = figure.values(one.recent), figure.values(one.baseline)
    distance = kolmogorov_smirnov(recent, baseline).d
    if distance < policy.least_d:
        return None
    for place in (0.5, 0.9, 0.1):
        now, before = quantile(recent, place), quantile(baseline, place)
        high, low = max(now, before), min(now, before)
        if high > low * policy.least_ratio:
            sentence = words.figure(figure.name, place, now, before)
            psi = stability_index(*in_tenths(recent, baseline))
            return _Shown(sentence, figure.name, figure, place, now, before, distance, psi)
    return None


def _is_rhythm(shown: _Shown, one: Comparison, policy: Policy) -> bool:
    """Whether the same days of earlier weeks differed likewise: then it is how the week goes."""
    days = {date.fromisoformat(run.day) for run in one.recent}
    likewise = 0
    for weeks in range(1, _WEEKS + 1):
        then = {(day - timedelta(weeks=weeks)).isoformat() for day in days}
        runs = [run for run in one.baseline if run.day in then]
        rest = [run for run in one.baseline if run.day not in then]
        if min(len(runs), len(rest)) < policy.least:
            continue
        now, before = _level(shown, one.recent), _level(shown, one.baseline)
        week, around = _level(shown, runs), _level(shown, rest)
        if None not in (now, before, week, around):
            likewise += (week - around) * (1 if now > before else -1) >= 0.7 * abs(now - before)  # type: ignore[operator]
    return likewise >= policy.rhythm


def _level(shown: _Shown, runs: Sequence[Facts]) -> float | None:
    if isinstance(shown.by, Trait):
        return sum(map(shown.by.of, runs)) / len(runs)
    values = shown.by.values(runs)
    return quantile(values, shown.place) if values else None


def _onset(shown: _Shown, one: Comparison) -> Onset:
    runs = sorted((*one.baseline, *one.recent), key=lambda run: (run.ended_at, run.run_id))
    marked = [(float(value), run.day) for run in runs if (value := shown.by.of(run)) is not None]
    return onset([value for value, _ in marked], [day for _, day in marked])


def _examples(shown: _Shown, recent: Sequence[Facts], policy: Policy) -> list[str]:
    """The runs of now farthest to the side to which it went, the newest of them first."""
    rose = shown.recent > shown.baseline

    def weight(run: Facts) -> float:
        value = shown.by.of(run)
        return float("-inf") if value is None else value if rose else -value

    ordered = sorted(recent, key=lambda run: (weight(run), run.ended_at, run.run_id), reverse=True)
    return [run.run_id for run in ordered[: policy.shown] if shown.by.of(run) is not None]
