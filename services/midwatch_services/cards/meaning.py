"""A card's meaning: every default filled in, independent of how the file is written; its hash and its words."""

import hashlib
import json
import re
from typing import Any

import msgspec

from midwatch.contracts.control import (
    AlertRule,
    BudgetRule,
    Card,
    LogRule,
    LoopRule,
    RedactRule,
    ReviewRule,
    SwitchRule,
    ToolRule,
    TripRule,
)

from .log import Redact
from .model import CardFile
from .review import Review
from .values import in_words, percent

# What came after these changes no hash where it stands at its default.
_FIRST = {
    "switch": ("lease", "lost_control"), "budget": ("run", "ticket"), "loops": ("alert_at", "halt_at"), "log": (),
    "review": ("rate",),
}  # fmt: skip
_MONEY = ("run", "ticket", "hour", "day")
_NOT_MEANING = ("hash", "applied_by", "applied_at")


def to_card(model: CardFile) -> Card:
    """The card as the bucket holds it, with the hash of its meaning."""
    trips = model.switch.trips
    card = Card(
        agent=model.agent,
        owner=model.owner,
        purpose=model.purpose,
        can=model.can,
        cannot=model.cannot,
        escalate_when=model.escalate_when,
        tools={name: ToolRule(kind=tool.kind, cost=tool.cost) for name, tool in sorted(model.tools.items())},
        fallback=model.fallback,
        budget=msgspec.convert(model.budget.model_dump(), BudgetRule),
        loops=msgspec.convert(model.loops.model_dump(), LoopRule),
        review=_review(model.review),
        switch=SwitchRule(
            lease=model.switch.lease,
            lost_control=model.switch.lost_control,
            drill=model.switch.drill,
            drill_hours=model.switch.drill_hours,
            trips=TripRule(
                mode=trips.mode, alerts=trips.alerts, halted_runs=trips.halted_runs, failed_runs=trips.failed_runs
            ),
        ),
        alerts=AlertRule(page=model.alerts.page, ticket=model.alerts.ticket),
        log=LogRule(
            keep=model.log.keep, redact=tuple(map(_rule, model.log.redact)), digest_words=model.log.digest_words
        ),
    )
    return msgspec.structs.replace(card, hash=meaning_hash(card))


def _review(model: Review) -> ReviewRule:
    rule = msgspec.convert(model.model_dump(), ReviewRule)
    return msgspec.structs.replace(rule, taper=rule.steps[1:])


def _rule(model: Redact) -> RedactRule:
    # A field is replaced by its own name, in the letters that other rules are named in.
    name = model.name or re.sub(r"[^a-z0-9]+", "_", str(model.field).lower())
    return RedactRule(name=name, pattern=model.pattern, field=model.field, reversible=model.reversible)


def meaning(card: Card) -> dict[str, Any]:
    """What the card says, defaults included, in the names of the wire."""
    said = {name: _plain(value) for name, value in msgspec.structs.asdict(card).items() if name not in _NOT_MEANING}
    said["review"]["taper"] = list(card.review.steps[1:])
    return said


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return {name: _plain(part) for name, part in msgspec.structs.asdict(value).items()}
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return value


def meaning_hash(card: Card) -> str:
    """SHA-256 of the meaning as JSON with sorted keys, in hex."""
    said = meaning(card)
    usual = meaning(Card(agent="", owner="", purpose="", can=[], review=ReviewRule(rate=card.review.rate)))
    for section, first in _FIRST.items():
        parts = said[section].items()
        said[section] = {name: part for name, part in parts if name in first or part != usual[section][name]}
    said["tools"] = {name: _said(rule) for name, rule in said["tools"].items()}
    if card.alerts == AlertRule():
        del said["alerts"]
    if not said["log"]:
        del said["log"]
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def as_words(card: Card) -> dict[str, Any]:
    """What the card says, as a person writes it in YAML: `$1`, `20%`, `5s`."""
    said = meaning(card)
    said["tools"] = {name: _tool(rule) for name, rule in said["tools"].items()}
    budget = _said(said["budget"])
    said["budget"] = {name: f"${part}" if name in _MONEY else part for name, part in budget.items()}
    said["loops"]["stalled"] = in_words(card.loops.stalled)
    said["review"] = _reading(card.review)
    redact = [_redaction(rule) for rule in card.log.redact]
    said["log"] = {"keep": in_words(card.log.keep), "redact": redact, "digest_words": card.log.digest_words}
    said["switch"]["lease"] = in_words(card.switch.lease)
    said["switch"]["trips"]["failed_runs"] = percent(card.switch.trips.failed_runs)
    return said


def _reading(rule: ReviewRule) -> dict[str, Any]:
    said = _plain(rule)
    shares = {name: percent(said[name]) for name in ("rate", "fail_limit", "second_review")}
    times = {name: in_words(said[name]) for name in ("claim", "age")}
    besides = _said(said["besides"])
    if rule.besides.cost is not None:
        besides["cost"] = f"${rule.besides.cost}"
    return {**said, **shares, **times, "taper": [percent(share) for share in rule.steps[1:]], "besides": besides}


def _said(parts: dict[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in parts.items() if part is not None}


def _redaction(rule: RedactRule) -> Any:
    if rule.field is not None:
        parts: dict[str, Any] = {"field": rule.field}
    elif rule.pattern is not None:
        parts = {"name": rule.name, "pattern": rule.pattern}
    else:
        parts = {"name": rule.name}
    if rule.reversible:
        return {**parts, "reversible": True}
    return rule.name if list(parts) == ["name"] else parts


def _tool(rule: dict[str, Any]) -> Any:
    return rule["kind"] if rule["cost"] is None else {**rule, "cost": f"${rule['cost']}"}
