"""Whether an agent did what a case asks: one finding a criterion, in one plain sentence. Pure."""

from collections.abc import Iterator, Sequence
from decimal import Decimal, InvalidOperation

from midwatch.contracts.money import dollars

from .case import AGREE, CallRule, Case
from .conditions import has
from .match import Unmatched, assign, close, fits
from .outcome import Called, Finding, Outcome
from .say import call_made, call_wanted, calls_made, quoted


def evaluate(case: Case, outcome: Outcome, judged: bool | None = None, why: str = "") -> list[Finding]:
    """One finding for each criterion of the case, and before them one for an agent that did not get to the end.
    `judged`: what the case's judge said, `why` in its words; None where it gave no answer."""
    findings = [] if outcome.error is None else [_ended(outcome)]
    return [*findings, *_said(case, outcome), *_called(case, outcome), *_sums(case, outcome, judged, why)]


def passed(findings: Sequence[Finding]) -> bool:
    """Whether all of it holds."""
    return all(one.ok for one in findings)


def gates(case: Case) -> tuple[bool, str]:
    """Whether a release may hang on the case; and if not, what is missing."""
    expect = case.expect
    if case.twin_of:
        return False, f"a twin of {case.twin_of} is reported and never gates"
    if not asks(case):
        return False, "it asks nothing yet: fill in `expect`"
    only = expect.judge is not None and not asks(case, judge=False)
    if only and not case.judge_trusted:
        return False, (
            f"its only criterion is the judge {expect.judge}, with which people have not agreed often enough: "
            "add another, or `midwatch eval judge`"
        )
    missing = AGREE - len(case.agrees)
    if missing > 0:
        people = "two people have" if missing == AGREE else "one more person has"
        return False, f"{people} to agree with its criteria (`midwatch eval agree`)"
    return True, ""


def asks(case: Case, *, judge: bool = True) -> bool:
    """Whether the case asks anything, with or without its judge."""
    expect = case.expect
    first = bool(expect.says or expect.says_not or expect.calls or expect.calls_not)
    given = (expect.writes, expect.hands_off, expect.max_cost, expect.max_steps, expect.judge if judge else None)
    return first or any(one is not None for one in given)


def _ended(outcome: Outcome) -> Finding:
    return Finding(criterion="end", ok=False, said=f"It did not get to the end: {quoted(outcome.error or '')}.")


def _said(case: Case, outcome: Outcome) -> Iterator[Finding]:
    heard = [_folded(text) for text in outcome.said]
    for phrase in case.expect.says:
        ok = any(_folded(phrase) in text for text in heard)
        came = "it did" if ok else f"it ended with “{quoted(outcome.said[-1])}”" if outcome.said else "it said nothing"
        yield Finding(criterion=f"says: {phrase}", ok=ok, said=f"Wanted it to say “{quoted(phrase)}”; {came}.")
    for phrase in case.expect.says_not:
        at = next((place for place, text in enumerate(heard) if _folded(phrase) in text), None)
        came = "it did not" if at is None else f"it said “{quoted(outcome.said[at], around=phrase)}”"
        yield Finding(
            criterion=f"says_not: {phrase}", ok=at is None, said=f"Wanted it not to say “{quoted(phrase)}”; {came}."
        )


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _called(case: Case, outcome: Outcome) -> Iterator[Finding]:
    for rule in case.expect.calls:
        yield _must(rule, outcome.calls)
    for rule in case.expect.calls_not:
        yield _must_not(rule, outcome.calls)
    if case.expect.writes is not None:
        yield _writes(case, case.expect.writes, outcome)


def _must(rule: CallRule, calls: Sequence[Called]) -> Finding:
    criterion, wanted = f"calls: {rule.tool}", call_wanted(rule)
    if any(fits(rule, call) is None for call in calls):
        return Finding(criterion=criterion, ok=True, said=f"Wanted {wanted}; it was called so.")
    of_tool = [call for call in calls if call.tool == rule.tool]
    if not of_tool:
        return Finding(criterion=criterion, ok=False, said=f"Wanted {wanted}; it was not called.")
    return Finding(criterion=criterion, ok=False, said=f"W{_instead(rule, close(rule, of_tool))[1:]}.")


def _instead(rule: CallRule, call: Called) -> str:
    """What was wanted and what came, in the arguments that differ."""
    differ = [name for name, one in rule.arguments.items() if not has(call.arguments, name, one)]
    if differ:
        bare = CallRule(rule.tool, {name: rule.arguments[name] for name in differ})
        return f"wanted {call_wanted(bare)}; it was called {call_made(call, only=differ)}"
    doubt = fits(rule, call)
    why = f" ({doubt.why})" if doubt and doubt.why else ""
    return f"wanted {call_wanted(rule)}; it was called {call_made(call)}{why}"


def _must_not(rule: CallRule, calls: Sequence[Called]) -> Finding:
    wanted = f"Wanted no {call_wanted(rule)}"
    for call in calls:
        doubt = fits(rule, call)
        if doubt is None:
            came = f"it was called {call_made(call)}"
        elif doubt.why:
            came = f"whether it was cannot be told: it was called {call_made(call)}, and {doubt.why}"
        else:
            continue
        return Finding(criterion=f"calls_not: {rule.tool}", ok=False, said=f"{wanted}; {came}.")
    return Finding(criterion=f"calls_not: {rule.tool}", ok=True, said=f"{wanted}; there was none.")


def _writes(case: Case, rules: Sequence[CallRule], outcome: Outcome) -> Finding:
    made = [call for call in outcome.calls if case.kinds.get(call.tool, call.kind) == "write" and call.error is None]
    pairs = assign(rules, made)
    left = Unmatched([one for at, one in enumerate(rules) if at not in pairs],
                     [one for at, one in enumerate(made) if at not in pairs.values()])  # fmt: skip
    if not left.rules and not left.calls:
        told = f"it did {calls_made(made)}" if made else "there was none"
        wanted = "these writes and no others" if made else "no write"
        return Finding(criterion="writes", ok=True, said=f"Wanted {wanted}; {told}.")
    parts = []
    for rule, call in left.pairs():
        if call is not None:
            parts.append(_instead(rule, call))
        else:
            parts.append(f"wanted {call_wanted(rule)}; it did not happen{_tried(rule, outcome)}")
    parts += [f"nobody wanted {call.tool}, which was called {call_made(call)}" for call in left.over()]
    text = "; ".join(parts)
    return Finding(criterion="writes", ok=False, said=f"{text[0].upper()}{text[1:]}.")


def _tried(rule: CallRule, outcome: Outcome) -> str:
    failed = next((call for call in outcome.calls if call.tool == rule.tool and call.error is not None), None)
    return f" (a call failed: {quoted(failed.error or '')})" if failed else ""


def _sums(case: Case, outcome: Outcome, judged: bool | None, why: str) -> Iterator[Finding]:
    expect = case.expect
    if expect.hands_off is not None:
        ok = outcome.handed_off == expect.hands_off
        wanted = "a hand-off" if expect.hands_off else "no hand-off"
        came = "it handed the case off" if outcome.handed_off else "it kept the case"
        yield Finding(criterion="hands_off", ok=ok, said=f"Wanted {wanted}; {came}.")
    if expect.max_cost is not None:
        cost, came = _cost(outcome)
        limit = Decimal(expect.max_cost)
        ok = cost is not None and cost <= limit
        yield Finding(criterion="max_cost", ok=ok, said=f"Wanted at most {dollars(limit)}; {came}.")
    if expect.max_steps is not None:
        steps = outcome.model_calls + len(outcome.calls)
        ok = steps <= expect.max_steps
        yield Finding(criterion="max_steps", ok=ok, said=f"Wanted at most {expect.max_steps} steps; it took {steps}.")
    if expect.judge is not None:
        said = {True: "it said yes", False: "it said no", None: "it gave no answer"}[judged]
        because = f" ({quoted(why)})" if why else ""
        yield Finding(
            criterion="judge", ok=judged is True, said=f"Wanted the judge {expect.judge} to say yes; {said}{because}."
        )


def _cost(outcome: Outcome) -> tuple[Decimal | None, str]:
    """What it cost, None where nobody knows; and how that is said. An unknown cost is not $0."""
    if outcome.cost_usd is None and outcome.model_calls == 0 and outcome.cost_basis != "unpriced":
        return Decimal(0), "it called no model"
    try:
        known = None if outcome.cost_usd is None else Decimal(outcome.cost_usd)
    except InvalidOperation:
        known = None
    if known is None:
        return None, "what it cost is not known"
    if outcome.cost_basis == "unpriced":
        return None, f"it cost at least {dollars(known)}, and a call of it has no known price"
    return known, f"it cost {dollars(known)}"
