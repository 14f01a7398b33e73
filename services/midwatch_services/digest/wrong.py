"""What went wrong, and what was stopped: from alerts, and from how runs ended. Pure."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

from midwatch.contracts.subjects import FLEET

from . import words
from .facts import Alert, Facts, Run, Sentence, Source
from .policy import SAMPLES

_ANOTHER = "for a reason that this digest has no words for yet"
# Why an alert is raised, by its rule, as the rest of a sentence; `it` is the run, or the agent.
WHY = {
    "budget_run": "because it had spent all that one run may cost",
    "budget_ticket": "because one ticket had spent all that it may cost",
    "budget_hour": "because the money for the hour was spent",
    "budget_day": "because the money for the day was spent",
    "budget_fleet_day": "because the money of the whole shop for the day was spent",
    "budget_run_tokens": "because it had used more text than one run may",
    "budget_run_steps": "because it had called its model more often than one run may",
    "loop_no_new_state": "because it went in circles and learnt nothing new",
    "loop_writes": "because it made the same change again and again",
    "loop_cycle": "because it went through the same round of steps again and again",
    "loop_text": "because it said the same thing again and again",
    "loop_hand_offs": "because one case was passed on again and again",
    "velocity": "because it spent far faster than is usual",
    "stalled": "because a run stood still without an end",
    "cost_differs": "because the cost that was reported does not fit the price",
    "not_armed": "because a running copy does not follow the stop switch",
    "activity_after_containment": "because it went on after the stop",
    "tripped": "because too much went wrong at once",
    "drill_overdue": "because the stop switch was not tried out in time",
    "channel_dead": "because messages to people did not arrive",
    "watchdog_behind": "because the watch over costs fell behind",
}


def tell(facts: Facts) -> Iterator[Sentence]:
    """What needs to be known first."""
    stopped = [alert for alert in facts.alerts if stops(alert)]
    for (agent, rule), some in _grouped(stopped):
        for action, same in _by_action(some):
            yield _stop(agent, rule, action, same)
            yield from _taken_on(same)
    warnings = [alert for alert in facts.alerts if alert.severity != "info" and not stops(alert)]
    for (agent, rule), some in _grouped(warnings):
        yield _warning(agent, rule, some)
        yield from _taken_on(some)
    yield from _runs(facts, {(alert.agent, alert.run_id) for alert in stopped})


def stops(alert: Alert) -> bool:
    """Whether something was stopped, or would have been."""
    return alert.action.startswith(("halted_", "would_halt_"))


def _grouped(alerts: Iterable[Alert]) -> Iterator[tuple[tuple[str, str], list[Alert]]]:
    ordered = sorted(alerts, key=lambda one: (one.agent, one.rule, one.raised_at, one.alert_id))
    for key, some in groupby(ordered, key=lambda one: (one.agent, one.rule)):
        yield key, list(some)


def _by_action(alerts: Sequence[Alert]) -> Iterator[tuple[str, list[Alert]]]:
    # What was done comes before what would have been.
    ordered = sorted(alerts, key=lambda one: (one.action.startswith("would"), one.action))
    for action, some in groupby(ordered, key=lambda one: one.action):
        yield action, list(some)


def _stop(agent: str, rule: str, action: str, alerts: Sequence[Alert]) -> Sentence:
    would = action.startswith("would_")
    whom, why, who = action.rpartition("_")[2], why_of(rule), words.name(agent)
    runs = len({alert.run_id for alert in alerts}) if whom == "run" else 1
    if runs > 1:
        why = why.replace("because it ", "because they ").replace(" its ", " their ")
    done = "would have been stopped" if would else f"{words.was(runs)} stopped"
    if whom == "run":
        what = words.many(runs, "run") + ("" if agent == FLEET else f" of {who}")
    else:
        what = "all agents" if whom == "fleet" or agent == FLEET else f"the agent {who}"
        if what == "all agents" and not would:
            done = "were stopped"
    return about(words.upper(f"{what} {done} {why}."), alerts)


def _warning(agent: str, rule: str, alerts: Sequence[Alert]) -> Sentence:
    times = words.many(len(alerts), "warning")
    on = "" if agent == FLEET else f" on {words.name(agent)}"
    return about(f"There {words.was(len(alerts))} {times}{on} {why_of(rule)}; nothing was stopped.", alerts)


def why_of(rule: str) -> str:
    """Why an alert of the rule is raised, as the rest of a sentence."""
    return WHY.get(rule, _ANOTHER)


def _taken_on(alerts: Sequence[Alert]) -> Iterator[Sentence]:
    """Who has seen to it, and whether it is over."""
    by: dict[str, list[Alert]] = {}
    for alert in alerts:
        if alert.acknowledged_by:
            by.setdefault(words.plain(alert.acknowledged_by)[:40] or "Somebody", []).append(alert)
    for who, some in by.items():
        which = "it" if len(alerts) == 1 else f"{len(some):,} of them" if len(some) < len(alerts) else "all of them"
        yield about(f"{words.upper(who)} took {which} on.", some)


def about(text: str, alerts: Sequence[Alert]) -> Sentence:
    """A sentence on alerts: their runs, and the alerts themselves where they are of no single run."""
    found = dict.fromkeys(
        Source("run", one.agent, one.run_id) if one.run_id else Source("alert", one.agent, one.alert_id)
        for one in alerts
    )
    return Sentence(text, tuple(found)[:SAMPLES], len(found))


def _runs(facts: Facts, told: set[tuple[str, str | None]]) -> Iterator[Sentence]:
    """What the ends of runs say that no alert has said."""
    ends: dict[str, list[Run]] = {}
    for run in facts.runs:
        ends.setdefault(run.resolution or "", []).append(run)
    halted = [run for run in ends.get("halted", []) if run.key not in told]
    for who, some in _by(halted, lambda run: _who_halted(run)):
        yield words.about_runs(f"{words.many(len(some), 'run')} {words.was(len(some))} stopped by {who}.", some)
    if some := ends.get("fell_back", []):
        text = f"In {words.many(len(some), 'run')} the customer went on with the stand-in of a stopped agent."
        yield words.about_runs(text, some)
    if some := ends.get("failed", []):
        yield words.about_runs(f"{words.many(len(some), 'run')} failed.", some)
        yield from _most_common(some)
    if some := ends.get("abandoned", []):
        text = f"{words.many(len(some), 'run')} broke off: the customer left, or the program did."
        yield words.about_runs(text, some)
    if some := [run for run in facts.runs if run.tool_errors]:
        times = words.many(sum(run.tool_errors for run in some), "time")
        yield words.about_runs(f"A tool failed in {words.many(len(some), 'run')}, {times} in all.", some)


def _by(runs: Iterable[Run], key: Callable[[Run], str]) -> Iterator[tuple[str, list[Run]]]:
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(key(run), []).append(run)
    yield from sorted(found.items(), key=lambda one: (-len(one[1]), one[0]))


def _who_halted(run: Run) -> str:
    by = words.plain(run.halted_by or "").split("/")[0][:40]
    if by.startswith(("cost-watchdog", "kill-switch")):
        return "the watch over costs" if by.startswith("cost") else "the stop switch by itself"
    return by or "the stop switch"


def _most_common(failed: Sequence[Run]) -> Iterator[Sentence]:
    """The reason that most of the failed runs gave, where there is one."""
    reasons = _by([run for run in failed if run.error], lambda run: words.quote(run.error or "", 12))
    reason, some = next(iter(reasons), ("", []))
    if reason and (len(some) > 1 or len(failed) == 1):
        which = "The reason" if len(some) == len(failed) else f"The reason in {len(some):,} of them"
        yield words.about_runs(f"{which}: {reason}.", some, quotes=True)
