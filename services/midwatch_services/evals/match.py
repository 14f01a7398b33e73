"""Which calls fit which rules. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .case import CallRule
from .conditions import Unanswered, has, holds
from .outcome import Called


@dataclass(frozen=True, slots=True)
class Doubt:
    """A call does not fit. `why`: its condition could not be answered; else it plainly does not."""

    why: str = ""


def fits(rule: CallRule, call: Called) -> Doubt | None:
    """Why the call does not fit the rule; None if it does."""
    if call.tool != rule.tool or not all(has(call.arguments, name, one) for name, one in rule.arguments.items()):
        return Doubt()
    if rule.when is None:
        return None
    try:
        return None if holds(rule.when, call.arguments) else Doubt()
    except Unanswered as error:
        return Doubt(f"its condition `{rule.when}` could not be answered: {error}")


def assign(rules: Sequence[CallRule], calls: Sequence[Called]) -> dict[int, int]:
    """As many rules as can be, each with a call of its own: rule by rule, earlier ones make way (Kuhn)."""
    fitting = [[at for at, call in enumerate(calls) if fits(rule, call) is None] for rule in rules]
    taken: dict[int, int] = {}  # call -> rule
    for rule in range(len(rules)):
        _place(rule, fitting, taken, set())
    return {rule: call for call, rule in taken.items()}


def _place(rule: int, fitting: Sequence[Sequence[int]], taken: dict[int, int], tried: set[int]) -> bool:
    for call in fitting[rule]:
        if call in tried:
            continue
        tried.add(call)
        if call not in taken or _place(taken[call], fitting, taken, tried):
            taken[call] = rule
            return True
    return False


def close(rule: CallRule, calls: Sequence[Called]) -> Called:
    """The call with most of the rule's arguments as they are wanted; the first of several."""
    return max(calls, key=lambda call: sum(has(call.arguments, name, one) for name, one in rule.arguments.items()))


@dataclass(frozen=True, slots=True)
class Unmatched:
    """What an assignment left over on both sides."""

    rules: list[CallRule]
    calls: list[Called]

    def pairs(self) -> Iterator[tuple[CallRule, Called | None]]:
        """Each rule with the call of its tool that was probably meant, if one is left."""
        free = list(self.calls)
        for rule in self.rules:
            same = [call for call in free if call.tool == rule.tool]
            found = close(rule, same) if same else None
            if found is not None:
                free.pop(next(at for at, one in enumerate(free) if one is found))
            yield rule, found

    def over(self) -> list[Called]:
        """The calls that no rule is told with."""
        told = [id(call) for _, call in self.pairs() if call is not None]
        return [call for call in self.calls if id(call) not in told]
