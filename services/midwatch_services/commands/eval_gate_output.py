"""The gate's verdict for people. What agents wrote is cleaned: it may hold anything."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .output import clean, console, count_of

if TYPE_CHECKING:
    from midwatch_services.evals.gate import Gate, Turned

_SHOWN = 10  # names of a list
_SAID = 300  # characters of a finding
_STYLES = {"passed": "bold green", "failed": "bold red", "inconclusive": "bold yellow"}
_WORDS = {
    "new": "new to the set, not compared",
    "gone": "gone from the set",
    "changed": "changed since the baseline, not compared",
    "not_agreed": "not agreed on yet, reported only",
    "not_run": "did not come to an end",
}


def show(gate: "Gate") -> None:
    """The verdict, why, what fell first, then the rest."""
    against = f" against {clean(gate.baseline)}" if gate.baseline else ""
    verdict = f"[{_STYLES[gate.verdict]}]{gate.verdict.upper()}[/]"
    _say(f"{clean(gate.agent)} {clean(gate.version)}{against}: {verdict}")
    _say(f"  {gate.why}")
    _turned("Fell", gate.regressions, "")
    _turned("Repaired", gate.repaired, "before: ")
    if gate.unstable:
        _say(f"Unstable, their replays differ ({len(gate.unstable)}): {_names(gate.unstable)}")
    for kind, words in _WORDS.items():
        names = [one.case for one in gate.apart if one.kind == kind]
        if names:
            _say(f"{count_of(len(names), 'case')} {words}: {_names(names)}")
    for one in [one for one in gate.apart if one.kind == "not_run"][:_SHOWN]:
        _say(f"  {clean(one.case)}: {clean(one.said[:_SAID])}")
    for line in gate.broken[:_SHOWN]:
        _say(f"could not be read: {clean(line[:_SAID])}")
    for twins in gate.twins:
        _say(
            f"Stress twins, {clean(twins.perturbation)}: {twins.passed} of {twins.twins} pass, {twins.fell} fell, "
            f"{twins.repaired} repaired, {twins.weaker} fail where their case passes"
        )
    _costs(gate)


def _costs(gate: "Gate") -> None:
    from midwatch_services.evals import gate_words

    before = f"; the baseline: {gate_words.cost(gate.baseline_cost)}" if gate.baseline_cost else ""
    _say(f"Cost of the replay: {gate_words.cost(gate.cost)}{before}")


def _turned(title: str, cases: "list[Turned]", when: str) -> None:
    if not cases:
        return
    _say(f"{title} ({len(cases)}):")
    for one in cases:
        unstable = " (unstable)" if one.unstable else ""
        _say(f"  {clean(one.case)}{unstable}: {when}{clean(one.finding[:_SAID])}")


def _names(names: Iterable[str]) -> str:
    listed = list(names)
    some = ", ".join(clean(name) for name in listed[:_SHOWN])
    return f"{some} and {len(listed) - _SHOWN:,} more" if len(listed) > _SHOWN else some


def _say(text: str) -> None:
    console.print(text, soft_wrap=True)
