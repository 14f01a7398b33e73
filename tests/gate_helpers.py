"""Results of replays, as tests of the gate need them: a letter a case."""

from collections.abc import Mapping
from typing import Any

from midwatch_services.evals.outcome import REPLAYED, Attempt, CaseResult, Finding, Outcome, Results

AGENT = "refund-desk"
AT = "2026-11-22T02:00:00Z"
_ATTEMPT = {
    "p": Attempt(passed=True, findings=[Finding(criterion="says", ok=True, said="it says refund")]),
    "f": Attempt(passed=False, findings=[
        Finding(criterion="says", ok=True, said="it says refund"),
        Finding(criterion="calls", ok=False, said="lookup_order was not called"),
    ]),
    "e": Attempt(
        passed=False, findings=[Finding(criterion=REPLAYED, ok=False, said="no answer within 60 s")],
        outcome=Outcome(error="no answer within 60 s"),
    ),
}  # fmt: skip


def case(name: str, attempts: str = "p", **fields: Any) -> CaseResult:
    """A case whose replays passed (p), failed (f) or did not come to an end (e)."""
    tried = [_ATTEMPT[letter] for letter in attempts]
    passed = sum(one.passed for one in tried) * 2 > len(tried)
    return CaseResult(
        **{"case": name, "hash": f"h-{name}", "passed": passed, "gates": True, "attempts": tried, **fields}
    )


def results(cases: str | Mapping[str, str] | list[CaseResult], version: str = "new", **fields: Any) -> Results:
    """Results of cases named c0, c1 …, one letter each; of cases by name; or of cases as they are."""
    if isinstance(cases, str):
        cases = {f"c{place}": letter for place, letter in enumerate(cases)}
    if not isinstance(cases, list):
        cases = [case(name, attempts) for name, attempts in cases.items()]
    return Results(**{"agent": AGENT, "version": version, "target": "m:f", "at": AT, "results": cases, **fields})


def pair(regressions: int, repairs: int, kept: int, failing: int = 0) -> tuple[Results, Results]:
    """New results and those of a baseline that passed `kept` cases which still pass."""
    was = "p" * regressions + "f" * repairs + "p" * kept + "f" * failing
    now = "f" * regressions + "p" * repairs + "p" * kept + "f" * failing
    return results(now), results(was, "old")
