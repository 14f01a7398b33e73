"""The rules that judged a run, each with its limit and how far the run went. Pure.

The run's logged events are judged anew by the watchdog's own decisions, with the card that was in force.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

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


_COUNTED = {
    WRITES: "How often the same change was made successfully",
    CYCLE: "Rounds of the same few tool calls",
    TEXT: "How often the agent said the same",
    HAND_OFFS: "How often the case was handed off",
}
_ACTIONS = {
    "alert": "people are told", "halt_run": "the run is stopped", "fall_back": "the fallback takes over",
    "halt_agent": "the agent is stopped",
}  # fmt: skip


def judged(
    events: Sequence[RunEvent], card: Card, alerts: Iterable[dict[str, Any]], ticket_usd: Decimal | None
) -> list[Rule]:
    """Every rule that judges a run by itself, as the card had it. `events`: those of the run that can be read, in
    order. `ticket_usd`: what all runs of its ticket cost by then, None where it has no ticket."""
    limits, run, streak = policy.of(card), RunState(), 0
    for event in events:
        seen = observe(event, card.tools)
        run = decide(run, None, seen, limits, Clock(event.time, event.time)).run
        streak = max(streak, run.streak)
    said: dict[str, list[str]] = {}
    for alert in alerts:
        said.setdefault(alert["rule"], []).append(_outcome(alert))
    spent = f"{'at least ' if run.spent.unpriced else ''}{dollars(run.spent.amount)}" if run.spent.basis else "nothing"
    basis = f" ({run.spent.basis})" if run.spent.basis else ""
    rules = [
        (BUDGET_RUN, "What the run may cost", _budget(limits.run), spent + basis),
        (NO_NEW_STATE, "Tool calls in a row that brought nothing new",
         f"told at {limits.alert_at}, stopped at {limits.halt_at}", f"{streak} in a row at most"),
        *[(rule, words, _repeats(_limit(card, rule)), f"{run.loops.most.get(rule, Most()).count or 'at most 1'}")
          for rule, words in _COUNTED.items()],
    ]  # fmt: skip
    if ticket_usd is not None:
        rules.insert(
            1, (BUDGET_TICKET, "What all runs of the ticket may cost", _budget(limits.ticket), dollars(ticket_usd))
        )
    if run.spent.unpriced:
        rules += [
            (RUN_TOKENS, "Tokens of a run whose price is not known", f"{limits.run_tokens:,}", f"{run.tokens:,}"),
            (RUN_STEPS, "Model calls of a run whose price is not known", f"{limits.run_steps:,}", f"{run.steps:,}"),
        ]
    known = {rule for rule, *_ in rules}
    rows = [
        Rule(rule=rule, watches=words, limit=limit, figure=figure, outcome="; ".join(said.get(rule, ("within",))))
        for rule, words, limit, figure in rules
    ]
    others = [
        Rule(rule=rule, watches="Judged over more than this run", limit="see the alert", figure="see the alert",
             outcome="; ".join(found))
        for rule, found in said.items() if rule not in known
    ]  # fmt: skip
    return rows + others


def _limit(card: Card, rule: str) -> RepeatRule:
    loops = card.loops
    return {WRITES: loops.writes, CYCLE: loops.cycle, TEXT: loops.text, HAND_OFFS: loops.hand_offs}[rule]


def _budget(limit: policy.Limit) -> str:
    return f"{dollars(limit.amount)}, then {_ACTIONS[limit.action]}"


def _repeats(rule: RepeatRule) -> str:
    return f"{rule.halt_at}, then the run is stopped" if rule.mode == "act" else f"{rule.halt_at}, only observed"


def _outcome(alert: dict[str, Any]) -> str:
    did = {"none": "people were told"}.get(alert["action_taken"], alert["action_taken"].replace("_", " "))
    return f"{did}: {alert['title']}"
