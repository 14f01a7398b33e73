"""What is open: cases that wait for a person, alerts that nobody took on, reviews, runs without an end. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from . import words
from .facts import Alert, Case, Facts, Sentence, Source
from .policy import SAMPLES, Policy
from .wrong import about, why_of


def tell(facts: Facts, policy: Policy) -> Iterator[Sentence]:
    """What a person has to do something about."""
    yield from _cases(facts, policy)
    yield from _alerts(facts)
    yield from _reviews(facts)
    yield from _unended(facts)
    text = "Promises made to customers are not tracked yet, so none are listed here."
    yield words.of_day(text, facts.agent, facts.day)


def _cases(facts: Facts, policy: Policy) -> Iterator[Sentence]:
    if facts.cases is None:
        text = "It is not known which cases wait for a person: their list could not be read."
        yield words.of_day(text, facts.agent, facts.day)
        return
    waiting, held = facts.cases.waiting, facts.cases.held
    if not waiting and not held:
        yield words.of_day("No case waits for a person.", facts.agent, facts.day)
    if waiting:
        verb = "waits" if waiting == 1 else "wait"
        yield _about(f"{words.many(waiting, 'case')} {verb} for a person.", facts.cases.first, waiting)
    for case in facts.cases.first[: policy.cases]:
        yield _about(f"{_asked(case)} has waited for {_since(case.opened_at, facts.now)}.", [case], 1)
    if held:
        who = words.listed(sorted({words.plain(name)[:40] for name in facts.cases.holders})[:5])
        verb = "is" if held == 1 else "are"
        yield _about(f"{words.many(held, 'case')} {verb} in hand with {who}.", facts.cases.first_held, held)


def _asked(case: Case) -> str:
    asked = words.quote(case.asked)
    customer = f"A customer of {words.name(case.agent)}"
    return f"{customer} who wrote {asked}" if asked else customer


def _since(at: datetime, now: datetime) -> str:
    return words.length(max(0.0, (now - at).total_seconds()))


def _about(text: str, cases: Sequence[Case], total: int) -> Sentence:
    some = cases[:SAMPLES]
    named = tuple(Source("case", case.agent, case.case_id) for case in some)
    return Sentence(text, named, total, quoted=tuple((case.agent, case.run_id) for case in some))


def _alerts(facts: Facts) -> Iterator[Sentence]:
    found = [alert for alert in facts.open_alerts if alert.severity != "info" and not alert.acknowledged_by]
    if not found:
        yield words.of_day("No alert waits for somebody to take it on.", facts.agent, facts.day)
        return
    groups: dict[tuple[str, str], list[Alert]] = {}
    for alert in found:
        groups.setdefault((alert.agent, alert.rule), []).append(alert)
    for (agent, rule), some in sorted(groups.items(), key=lambda one: min(alert.raised_at for alert in one[1])):
        oldest = _since(min(alert.raised_at for alert in some), facts.now)
        if len(some) == 1:
            text = f"Nobody has taken on an alert on {words.name(agent)}, open for {oldest}, {why_of(rule)}."
        else:
            text = f"Nobody has taken on {len(some):,} alerts on {words.name(agent)}, the oldest open for {oldest}, "
            text += f"{why_of(rule)}."
        yield about(text, some)


def _reviews(facts: Facts) -> Iterator[Sentence]:
    if facts.reviews is None:
        text = "It is not known how many runs wait for a reviewer: their list could not be read."
        yield words.of_day(text, facts.agent, facts.day)
    elif count := facts.reviews.waiting:
        text = f"{words.many(count, 'run')} {'waits' if count == 1 else 'wait'} for a reviewer."
        yield replace(words.of_keys(text, facts.reviews.newest), total=count)
    else:
        yield words.of_day("No run waits for a reviewer.", facts.agent, facts.day)


def _unended(facts: Facts) -> Iterator[Sentence]:
    handed = [run for run in facts.unended if run.handed_off_to]
    others = [run for run in facts.unended if not run.handed_off_to]
    if handed:
        count = len(handed)
        text = f"{words.many(count, 'run')} {words.was(count)} handed over and {words.has(count)} no end on record."
        yield words.about_runs(text, handed)
    if others:
        count = len(others)
        text = f"{words.many(count, 'run')} of the last seven days {words.has(count)} begun and not ended."
        yield words.about_runs(text, others)
