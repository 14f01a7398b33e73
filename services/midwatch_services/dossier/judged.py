"""The rules that judged a run, each with its limit and how far the run went, as figures and in words. Pure.

The run's logged events are judged anew by the watchdog's own decisions, with the card that was in force.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from msgspec import Struct

from midwatch.contracts.codec import RunEvent
from midwatch.contracts.control import Card, RepeatRule
from midwatch.contracts.money import dollars
from midwatch_services.cost_watchdog import policy
from midwatch_services.cost_watchdog.budgets import BUDGET_RUN, BUDGET_TICKET, RUN_STEPS, RUN_TOKENS
from midwatch_services.cost_watchdog.decide import Clock, decide
from midwatch_services.cost_watchdog.observe import observe
from midwatch_services.cost_watchdog.rules.memory import Most
from midwatch_services.cost_watchdog.rules.words import CYCLE, HAND_OFFS, NO_NEW_STATE, TEXT, WRITES
from midwatch_services.cost_watchdog.state import RunState


class Rule(Struct, frozen=True, kw_only=True):
    """One rule: what it watches, its limit and the run's figure in words, and what came of it."""

    rule: str
    watches: str
    limit: str
    figure: str
    outcome: str


class Said(NamedTuple):
    """Something to be put in words: which, and the figures in it. Words for each stand in `_WORDS`, and in those of the
    console."""

    name: str
    values: dict[str, Any] = {}  # noqa: RUF012  never changed


class Judged(NamedTuple):
    """One rule: its limit, the run's figure, and what came of it: nothing where the run stayed within it."""

    rule: str
    limit: Said
    figure: Said
    outcomes: tuple[Said, ...] = ()


_WORDS = {
    "money_alert": "{amount}, then people are told", "money_halt_run": "{amount}, then the run is stopped",
    "money_fall_back": "{amount}, then the fallback takes over",
    "money_halt_agent": "{amount}, then the agent is stopped", "in_a_row": "told at {told}, stopped at {stopped}",
    "times": "{times}, then the run is stopped", "times_observed": "{times}, only observed",
    "elsewhere": "see the alert", "number": "{number}", "amount": "{amount}", "nothing": "nothing",
    "spent": "{amount} ({basis})", "spent_at_least": "at least {amount} ({basis})",
    "row_at_most": "{number} in a row at most", "once_at_most": "at most 1", "did_none": "people were told: {title}",
}  # fmt: skip
_WATCHES = {
    BUDGET_RUN: "What the run may cost",
    BUDGET_TICKET: "What all runs of the ticket may cost",
    NO_NEW_STATE: "Tool calls in a row that brought nothing new",
    RUN_TOKENS: "Tokens of a run whose price is not known",
    RUN_STEPS: "Model calls of a run whose price is not known",
    WRITES: "How often the same change was made successfully",
    CYCLE: "Rounds of the same few tool calls",
    TEXT: "How often the agent said the same",
    HAND_OFFS: "How often the case was handed off",
}
_COUNTED = (WRITES, CYCLE, TEXT, HAND_OFFS)


def judged(
    events: Sequence[RunEvent], card: Card, alerts: Iterable[dict[str, Any]], ticket_usd: Decimal | None
) -> list[Rule]:
    """The same as `figures`, in words."""
    return [
        Rule(
            rule=one.rule, watches=_WATCHES.get(one.rule, "Judged over more than this run"), limit=_said(one.limit),
            figure=_said(one.figure), outcome="; ".join(map(_said, one.outcomes)) or "within",
        )
        for one in figures(events, card, alerts, ticket_usd)
    ]  # fmt: skip


def _said(what: Said) -> str:
    done = what.name.removeprefix("did_").replace("_", " ")
    values = {name: f"{value:,}" if isinstance(value, int) else value for name, value in what.values.items()}
    return _WORDS.get(what.name, f"{done}: {{title}}").format(**values)


def figures(
    events: Sequence[RunEvent], card: Card, alerts: Iterable[dict[str, Any]], ticket_usd: Decimal | None
) -> list[Judged]:
    """Every rule that judges a run by itself, as the card had it. `events`: those of the run that can be read, in
    order. `ticket_usd`: what all runs of its ticket cost by then, None where it has no ticket."""
    limits, run, streak = policy.of(card), RunState(), 0
    for event in events:
        seen = observe(event, card.tools)
        run = decide(run, None, seen, limits, Clock(event.time, event.time)).run
        streak = max(streak, run.streak)
    said: dict[str, tuple[Said, ...]] = {}
    for alert in alerts:
        outcome = Said(f"did_{alert['action_taken']}", {"title": alert["title"]})
        said[alert["rule"]] = (*said.get(alert["rule"], ()), outcome)
    rules = [
        (BUDGET_RUN, _budget(limits.run), _spent(run)),
        (NO_NEW_STATE, Said("in_a_row", {"told": limits.alert_at, "stopped": limits.halt_at}),
         Said("row_at_most", {"number": streak})),
        *[(rule, _repeats(_limit(card, rule)), _most(run, rule)) for rule in _COUNTED],
    ]  # fmt: skip
    if ticket_usd is not None:
        rules.insert(1, (BUDGET_TICKET, _budget(limits.ticket), Said("amount", {"amount": dollars(ticket_usd)})))
    if run.spent.unpriced:
        rules += [
            (RUN_TOKENS, Said("number", {"number": limits.run_tokens}), Said("number", {"number": run.tokens})),
            (RUN_STEPS, Said("number", {"number": limits.run_steps}), Said("number", {"number": run.steps})),
        ]
    known = {rule for rule, *_ in rules}
    rows = [Judged(rule, limit, figure, said.get(rule, ())) for rule, limit, figure in rules]
    elsewhere = Said("elsewhere")
    return rows + [Judged(rule, elsewhere, elsewhere, found) for rule, found in said.items() if rule not in known]


def _limit(card: Card, rule: str) -> RepeatRule:
    loops = card.loops
    return {WRITES: loops.writes, CYCLE: loops.cycle, TEXT: loops.text, HAND_OFFS: loops.hand_offs}[rule]


def _budget(limit: policy.Limit) -> Said:
    return Said(f"money_{limit.action}", {"amount": dollars(limit.amount)})


def _repeats(rule: RepeatRule) -> Said:
    return Said("times" if rule.mode == "act" else "times_observed", {"times": rule.halt_at})


def _most(run: RunState, rule: str) -> Said:
    count = run.loops.most.get(rule, Most()).count
    return Said("number", {"number": count}) if count else Said("once_at_most")


def _spent(run: RunState) -> Said:
    if not run.spent.basis:
        return Said("nothing")
    name = "spent_at_least" if run.spent.unpriced else "spent"
    return Said(name, {"amount": dollars(run.spent.amount), "basis": run.spent.basis})
