"""What a replay comes to, case by case. Pure."""

from dataclasses import dataclass, field
from decimal import Decimal

from midwatch.contracts.money import to_money

from .outcome import CaseResult, broke
from .replay import first_failing


@dataclass(frozen=True, slots=True)
class Failed:
    """A case that did not pass."""

    case: str
    passed: int
    attempts: int
    why: str


@dataclass(slots=True)
class Part:
    """The cases, or their perturbed twins."""

    count: int = 0
    passed: int = 0
    failed: list[Failed] = field(default_factory=list)


@dataclass(slots=True)
class Totals:
    """All of it. `known`: US dollars of the attempts whose cost is known; `unknown`: how many have a cost that nobody
    knows; `billed`: attempts that called a model. `broken`: a line for each case of which an attempt could not be made
    as it should."""

    cases: Part = field(default_factory=Part)
    twins: Part = field(default_factory=Part)
    known: Decimal = Decimal(0)
    unknown: int = 0
    billed: int = 0
    broken: list[str] = field(default_factory=list)

    @property
    def cost_usd(self) -> str | None:
        """The sum, or None where it is not known whole."""
        return to_money(self.known) if self.billed and not self.unknown else None

    def add(self, result: CaseResult) -> None:
        """One more case."""
        part = self.twins if result.twin_of else self.cases
        part.count += 1
        part.passed += result.passed
        attempts = result.attempts
        if not result.passed:
            passed = sum(one.passed for one in attempts)
            part.failed.append(Failed(result.case, passed, len(attempts), first_failing(result)))
        for one in attempts:
            if one.outcome.cost_basis != "none":
                self.billed += 1
                self.known += Decimal(one.outcome.cost_usd or 0)
                self.unknown += one.outcome.cost_usd is None
        errors = [one.outcome.error for one in attempts if broke(one)]
        if errors:
            times = f" ({len(errors)} of {len(attempts)} attempts)" if len(attempts) > 1 else ""
            self.broken.append(f"{result.case}: {errors[0]}{times}")
