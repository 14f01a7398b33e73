"""A case in words, for whoever is to agree with it. Pure."""

from collections.abc import Iterator
from decimal import Decimal

from midwatch.contracts.money import dollars

from .case import CallRule, Case, Expect
from .say import call_wanted

Line = tuple[str, str]  # heading, or nothing, and text


def lines(case: Case) -> Iterator[Line]:
    """What the case is, what is said, and what is asked; not who agreed."""
    yield case.name, case.note or case.task
    if case.run_id:
        yield "From", f"run {case.run_id}" + (f" of version {case.version}" if case.version else "")
    if case.twin_of:
        yield "Twin", f"of {case.twin_of}: {case.perturbation}"
    for message in case.earlier:
        yield f"Earlier, {message.role}:", message.text
    for at, turn in enumerate(case.turns, 1):
        yield f"{at}. Customer:", turn
    if case.recorded:
        yield "Tools that answer:", ", ".join(dict.fromkeys(call.tool for call in case.recorded))
    yield "The agent has to", ""
    asked = list(criteria(case.expect))
    yield from (("", f"- {one}") for one in asked or ["… nothing yet: fill in `expect`"])


def criteria(expect: Expect) -> Iterator[str]:
    """What is asked, each in a line."""
    yield from (f"say “{phrase}”" for phrase in expect.says)
    yield from (f"not say “{phrase}”" for phrase in expect.says_not)
    yield from (f"call {call_wanted(rule)}" for rule in expect.calls)
    yield from (f"not call {call_wanted(rule)}" for rule in expect.calls_not)
    if expect.writes is not None:
        yield from _writes(expect.writes)
    if expect.hands_off is not None:
        yield "hand the case off" if expect.hands_off else "keep the case, without a hand-off"
    if expect.max_cost is not None:
        yield f"cost at most {dollars(Decimal(expect.max_cost))}"
    if expect.max_steps is not None:
        yield f"take at most {expect.max_steps} steps (model and tool calls)"
    if expect.judge is not None:
        yield f"satisfy the judge {expect.judge}"


def _writes(rules: tuple[CallRule, ...]) -> Iterator[str]:
    if not rules:
        yield "change nothing: no write succeeds"
        return
    yield "make exactly these writes succeed, and no others:"
    yield from (f"    {call_wanted(rule)}" for rule in rules)
