"""What a replay comes to. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from midwatch.contracts.money import to_money

from .outcome import CaseResult
from .replay import broke, first_failing


@dataclass(frozen=True, slots=True)
class Cost:
    """US dollars of all attempts whose cost is known, and how many there are whose cost nobody knows."""

    known: Decimal
    unknown: int
    attempts: int  # of those that called a model

    @property
    def written(self) -> str | None:
        """The sum, or None where it is not known whole."""
        return to_money(self.known) if self.attempts and not self.unknown else None


@dataclass(frozen=True, slots=True)
class Failed:
    """A case that did not pass."""

    case: str
    passed: int
    attempts: int
    why: str


def cost_of(results: Iterable[CaseResult]) -> Cost:
    """What all attempts cost together."""
    outcomes = [one.outcome for result in results for one in result.attempts if one.outcome.cost_basis != "none"]
    known = sum((Decimal(one.cost_usd) for one in outcomes if one.cost_usd is not None), Decimal(0))
    return Cost(known, sum(1 for one in outcomes if one.cost_usd is None), len(outcomes))


def failed_of(results: Iterable[CaseResult]) -> list[Failed]:
    """The cases that did not pass, each with what went wrong first."""
    return [
        Failed(one.case, sum(attempt.passed for attempt in one.attempts), len(one.attempts), first_failing(one))
        for one in results
        if not one.passed
    ]


def broken_of(results: Iterable[CaseResult]) -> list[str]:
    """One line for each case of which an attempt could not be made as it should."""
    found = []
    for result in results:
        errors = [one.outcome.error for one in result.attempts if broke(one)]
        if errors:
            times = f" ({len(errors)} of {len(result.attempts)} attempts)" if len(result.attempts) > 1 else ""
            found.append(f"{result.case}: {errors[0]}{times}")
    return found


def split(results: Sequence[CaseResult]) -> tuple[list[CaseResult], list[CaseResult]]:
    """The cases, and their perturbed twins."""
    return [one for one in results if not one.twin_of], [one for one in results if one.twin_of]
