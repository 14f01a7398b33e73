"""The gate: a version's results held against the baseline's, case by case. Pure.

A pair is a case that gates in both, with the same meaning in both, and of which both know how it ended. What is no pair
decides nothing by itself, and is listed.
"""

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct, structs

from midwatch.contracts.governance import GateVerdict

from . import gate_words
from .mcnemar import fewest, got_worse, smallest_drop
from .outcome import CaseResult, Results, broke

# Why the verdict is what it is, in the order in which it is looked for.
Reason = Literal[
    "no_baseline", "worse", "broken", "not_run", "nothing_gates", "part", "too_few", "lacking", "unseen", "no_worse"
]  # fmt: skip
Kind = Literal["new", "gone", "changed", "not_agreed", "not_run"]


class Policy(Struct, frozen=True, kw_only=True):
    """When a change does not ship. Shares are from 0 to 1."""

    alpha: float = 0.05  # chance that an equal agent fails
    power: float = 0.8  # with which a drop has to be seen to count as seen
    max_drop: float = 0.10  # a set that could not have seen this much calls more regressions than repairs inconclusive
    lacking: float = 0.10  # of the cases that gate, in the set or in the baseline, that may not be compared


POLICY = Policy()


class Turned(Struct, frozen=True, kw_only=True):
    """A case that ended otherwise than in the baseline. `finding`: the first criterion that it missed, now or then.
    `unstable`: its attempts differ, in either."""

    case: str
    finding: str
    unstable: bool = False


class Apart(Struct, frozen=True, kw_only=True):
    """A case that was not compared, and why not in words."""

    case: str
    kind: Kind
    said: str
    passed: bool | None = None  # now; None where it was not replayed


class Stressed(Struct, frozen=True, kw_only=True):
    """The stress twins of one perturbation. `fell`: passed in the baseline, and not now. `weaker`: fail where the case
    that they are twins of passes."""

    perturbation: str
    twins: int
    passed: int
    fell: int
    repaired: int
    weaker: int


class Cost(Struct, frozen=True, kw_only=True):
    """What a replay cost. `usd`: None where it is not known; with `unpriced` replays in it, the known part."""

    usd: str | None = None
    unpriced: int = 0


class Gate(Struct, frozen=True, kw_only=True):
    """The verdict and what it stands on. `cases`: pairs, or without a baseline those that gate. `gating`: of the
    whole set, None where that is not known. `sees`: the smallest drop that these pairs would have shown, as a share;
    None where none. `unstable`: names of those whose attempts differ now."""

    agent: str
    version: str
    at: str
    baseline: str
    baseline_at: str
    verdict: GateVerdict
    reason: Reason
    why: str
    policy: Policy
    cases: int
    gating: int | None
    passed: int
    baseline_passed: int
    regressions: list[Turned]
    repaired: list[Turned]
    p_value: float | None
    sees: float | None
    unstable: list[str]
    apart: list[Apart]
    lacking: int
    lacking_of: int
    twins: list[Stressed]
    repeats: int
    broken: list[str]
    eval_set: str
    cost: Cost
    baseline_cost: Cost | None


def compare(new: Results, baseline: Results | None, *, policy: Policy = POLICY) -> Gate:
    """The gate of a version."""
    before = {case.case: case for case in (baseline.results if baseline else ())}
    now = [case for case in new.results if not case.twin_of]
    pairs, apart = _paired(now, before, baseline is not None)
    compared = pairs if baseline else [(case, case) for case in now if case.gates]
    fell = [(was, case) for was, case in pairs if was.passed and not case.passed]
    rose = [(was, case) for was, case in pairs if case.passed and not was.passed]
    passed_before = sum(was.passed for was, _ in pairs)
    gating = {name for name, was in before.items() if was.gates and not was.twin_of}
    comparable = {case.case for case in now if case.gates and (was := before.get(case.case)) and was.hash == case.hash}
    gate = Gate(
        agent=new.agent, version=new.version, at=new.at, baseline=baseline.version if baseline else "",
        baseline_at=baseline.at if baseline else "", verdict="inconclusive", reason="no_baseline", why="",
        policy=policy, cases=len(compared), gating=new.gating, passed=sum(case.passed for _, case in compared),
        baseline_passed=passed_before,
        regressions=[_turned(was, case, case) for was, case in fell],
        repaired=[_turned(was, case, was) for was, case in rose],
        p_value=got_worse(len(fell), len(rose)) if pairs else None,
        sees=_sees(len(pairs), len(fell) + len(rose), passed_before, policy),
        unstable=[case.case for _, case in compared if is_unstable(case)], apart=apart,
        lacking=len(gating - comparable), lacking_of=len(gating), twins=_twins(new.results, before),
        repeats=new.repeats, broken=[*new.broken, *(baseline.broken if baseline else ())], eval_set=new.eval_set,
        cost=_cost(new), baseline_cost=_cost(baseline) if baseline else None,
    )  # fmt: skip
    reason = _reason(gate)
    verdicts: dict[Reason, GateVerdict] = {"worse": "failed", "no_worse": "passed"}
    gate = structs.replace(gate, reason=reason, verdict=verdicts.get(reason, "inconclusive"))
    return structs.replace(gate, why=gate_words.why(gate))


def first_miss(result: CaseResult) -> str:
    """The first criterion that a replay of the case missed, in words; or why none came to its end."""
    failed = [attempt for attempt in result.attempts if not attempt.passed]
    missed = [finding.said for attempt in failed for finding in attempt.findings if not finding.ok]
    errors = [attempt.outcome.error for attempt in failed if attempt.outcome.error]
    return next(iter([*missed, *errors]), "nothing is said of it")


def is_unstable(result: CaseResult) -> bool:
    """Whether its attempts ended differently."""
    return len({attempt.passed for attempt in result.attempts}) > 1


def is_known(result: CaseResult) -> bool:
    """Whether it is known how the case ended: it passed, or would not have if those replays had passed that did not
    come to their end."""
    if result.passed:
        return True
    might = sum(attempt.passed or broke(attempt) for attempt in result.attempts)
    return bool(result.attempts) and might * 2 <= len(result.attempts)


def _reason(gate: Gate) -> Reason:
    worse = len(gate.regressions) > len(gate.repaired)
    if not gate.baseline_cost:
        return "no_baseline"
    if worse and gate.p_value is not None and gate.p_value <= gate.policy.alpha:
        return "worse"
    if gate.broken:
        return "broken"
    if any(one.kind == "not_run" for one in gate.apart):
        return "not_run"
    if not gate.cases:
        return "nothing_gates"
    if gate.gating and gate.gating - gate.cases > gate.policy.lacking * gate.gating:
        return "part"
    if gate.baseline_passed < fewest(gate.policy.alpha):
        return "too_few"
    if gate.lacking > gate.policy.lacking * gate.lacking_of:
        return "lacking"
    if worse and (gate.sees is None or gate.sees > gate.policy.max_drop):
        return "unseen"
    return "no_worse"


def _paired(
    now: Iterable[CaseResult], before: dict[str, CaseResult], has_baseline: bool
) -> tuple[list[tuple[CaseResult, CaseResult]], list[Apart]]:
    pairs, apart = [], []
    replayed = set()
    for case in now:
        replayed.add(case.case)
        was = before.get(case.case)
        why = _why_apart(case, was) if has_baseline or not case.gates else None
        if why:
            apart.append(Apart(case=case.case, kind=why[0], said=why[1], passed=case.passed))
        elif was:
            pairs.append((was, case))
    apart += [
        Apart(case=name, kind="gone", said="it was not replayed now")
        for name, was in before.items()
        if was.gates and not was.twin_of and name not in replayed
    ]
    return pairs, apart


def _why_apart(case: CaseResult, was: CaseResult | None) -> tuple[Kind, str] | None:
    if not case.gates:
        return "not_agreed", case.why_not or "too few people have agreed on its criteria"
    if was is None or was.twin_of:
        return "new", "the baseline was not replayed on it"
    if was.hash != case.hash:
        return "changed", "it asks something else than when the baseline was replayed"
    if not was.gates:
        return "new", "people have agreed on it since the baseline was replayed"
    for one, when in ((case, "now"), (was, "in the baseline")):
        if not is_known(one):
            return "not_run", f"it did not come to its end {when}: {_error(one)}"
    return None


def _error(result: CaseResult) -> str:
    errors = (attempt.outcome.error for attempt in result.attempts)
    return next((error for error in errors if error), "it was never replayed")


def _turned(was: CaseResult, case: CaseResult, missed: CaseResult) -> Turned:
    unstable = is_unstable(was) or is_unstable(case)
    return Turned(case=case.case, finding=first_miss(missed), unstable=unstable)


def _sees(pairs: int, changed: int, passed_before: int, policy: Policy) -> float | None:
    """Of the cases that changed half are taken to have changed by chance each way, as if the agents were equal."""
    if not pairs:
        return None
    return smallest_drop(pairs, changed / pairs, policy.alpha, policy.power, passed_before / pairs)


def _twins(results: list[CaseResult], before: dict[str, CaseResult]) -> list[Stressed]:
    originals = {case.case: case for case in results if not case.twin_of}
    found: dict[str, list[CaseResult]] = {}
    for case in results:
        if case.twin_of:
            found.setdefault(case.perturbation, []).append(case)
    rows = []
    for perturbation, twins in sorted(found.items()):
        both = [(was, twin) for twin in twins if (was := before.get(twin.case)) and was.hash == twin.hash]
        beside = [(twin, original) for twin in twins if (original := originals.get(twin.twin_of))]
        rows.append(Stressed(
            perturbation=perturbation, twins=len(twins), passed=sum(twin.passed for twin in twins),
            fell=sum(was.passed and not twin.passed for was, twin in both),
            repaired=sum(twin.passed and not was.passed for was, twin in both),
            weaker=sum(original.passed and not twin.passed for twin, original in beside),
        ))  # fmt: skip
    return rows


def _cost(results: Results) -> Cost:
    attempts = (attempt for case in results.results for attempt in case.attempts)
    return Cost(usd=results.cost_usd, unpriced=sum(attempt.outcome.cost_basis == "unpriced" for attempt in attempts))
