"""What the gate says in words. Nothing that an agent wrote is in it, so that it may stand anywhere. Pure."""

from decimal import Decimal
from typing import TYPE_CHECKING

from midwatch.contracts.money import dollars

if TYPE_CHECKING:
    from .gate import Cost, Gate


def why(gate: "Gate") -> str:
    """The verdict's reason: one plain sentence with its figures."""
    if gate.reason == "no_baseline":
        return (
            f"There is no baseline to hold it against; {_of(gate.passed, gate.cases)} that gate {_pass(gate.passed)}."
        )
    if gate.reason == "worse":
        return f"It got worse: {_turned(gate)}, which chance alone does {_odds(gate.p_value)}."
    if gate.reason == "broken":
        return f"{_count(len(gate.broken), 'file')} of the eval set could not be read, so not all of it was replayed."
    if gate.reason == "not_run":
        missing = sum(one.kind == "not_run" for one in gate.apart)
        return (
            f"{_count(missing, 'case')} that should gate did not come to an end, so it is not known whether they pass: "
            "mend the target and replay them."
        )
    if gate.reason == "nothing_gates":
        return "No case gates in both: two people have to agree on its criteria, and the baseline be replayed on it."
    if gate.reason == "part":
        return (
            f"Only {_of(gate.cases, gate.gating or 0)} that gate were compared: replay the version and the baseline on "
            "the whole set as it is now."
        )
    if gate.reason == "too_few":
        return (
            f"The baseline passes only {_of(gate.baseline_passed, gate.cases)} that gate: with so few to fall from, "
            "nothing could be told from chance."
        )
    if gate.reason == "lacking":
        return (
            f"{gate.lacking} of the {_count(gate.lacking_of, 'case')} that the baseline was judged by have gone, ask "
            "something else or gate no more: replay the baseline on the set as it is now."
        )
    if gate.reason == "unseen":
        return (
            f"It may have got worse: {_turned(gate)}, which chance alone does {_odds(gate.p_value)}; {sight(gate)}, "
            f"and {points(gate.policy.max_drop)} is the most that may go unseen."
        )
    return f"Nothing says that it got worse: {_turned(gate)}; {sight(gate)}."


def sight(gate: "Gate") -> str:
    """What the set could have seen at all."""
    many = f"with {_count(gate.cases, 'case')}"
    if gate.sees is None:
        return f"{many}, of which the baseline passes {gate.baseline_passed}, even a fall to nought could go unseen"
    return f"{many} you could only have seen a drop of {points(gate.sees)} or more"


def points(share: float) -> str:
    """A difference of shares: a tenth of a point counts."""
    text = f"{share * 100:.1f}".removesuffix(".0")
    return f"{text} point{'' if text == '1' else 's'}"


def cost(cost: "Cost | None") -> str:
    """What a replay cost; what is not known is never $0."""
    if cost is None or cost.usd is None:
        return "not known"
    return dollars(Decimal(cost.usd)) + (
        f" and {_count(cost.unpriced, 'replay')} without a price" if cost.unpriced else ""
    )


def _turned(gate: "Gate") -> str:
    worse, better = len(gate.regressions), len(gate.repaired)
    if not worse and not better:
        return f"all {_count(gate.cases, 'case')} end as they did in the baseline"
    fail = "fails" if worse == 1 else "fail"
    return f"of {_count(gate.cases, 'case')} {worse} {fail} that passed in the baseline, {better} the other way round"


def _odds(p: float | None) -> str:
    if p is None or p >= 0.1:
        return f"{round(100 * (p or 0))} times in 100"
    return f"{p * 100:.2g} times in 100" if p >= 0.001 else "less than once in 1,000 times"


def _of(some: int, whole: int) -> str:
    return f"{some} of {_count(whole, 'case')}"


def _pass(count: int) -> str:
    return "passes" if count == 1 else "pass"


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
