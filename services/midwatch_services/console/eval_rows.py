"""The cases of an eval set as a page lists them: what got worse first. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

State = str  # regression, failed, passed or unknown: texts of `evals.state`
_ORDER = ("regression", "failed", "unknown", "passed")


@dataclass(frozen=True, slots=True)
class Row:
    """A case, how its last replay went, and its twins."""

    case: Any
    gates: bool
    why_not: str
    state: State
    twins: list["Row"] = field(default_factory=list)

    @property
    def twins_failed(self) -> int:
        return sum(one.state == "failed" for one in self.twins)


def rows(cases: Sequence[Any], gate_of: Any, results: Mapping[str, Any], regressions: Collection[str]) -> list[Row]:
    """`results`: of the last replay by the case's name; what asked something else then tells nothing now."""
    made = []
    for case in cases:
        does, why_not = gate_of(case)
        made.append(Row(case, does, why_not, _state(case, results.get(case.name), regressions)))
    by_name = {row.case.name: row for row in made if not row.case.twin_of}
    for row in made:
        if row.case.twin_of in by_name:
            by_name[row.case.twin_of].twins.append(row)
    return sorted(by_name.values(), key=lambda row: (_ORDER.index(row.state), row.case.name))


def _state(case: Any, result: Any, regressions: Collection[str]) -> State:
    if case.name in regressions:
        return "regression"
    if result is None or result.hash != case.hash:
        return "unknown"
    return "passed" if result.passed else "failed"
