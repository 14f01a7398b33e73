"""When a person is told: once for each cause, and again when it is over. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

from midwatch.contracts.runs import Mode

from . import words
from .decide import Finding, Verdict

_TITLE_LIMIT = 280  # characters


@dataclass(frozen=True, slots=True)
class Open:
    """An alert that stands. `against`: the comparisons that found its cause last."""

    alert_id: str
    against: tuple[str, ...]
    repeats: int = 0


@dataclass(frozen=True, slots=True)
class Raise:
    """A person is told of a cause by the finding that shows it best."""

    alert_id: str
    agent: str
    mode: Mode
    cause: str
    day: str
    title: str
    finding: Finding


@dataclass(frozen=True, slots=True)
class Resolve:
    """The cause is found no more."""

    alert_id: str
    agent: str
    cause: str
    reason: str
    repeats: int


Decision = Raise | Resolve


def follow(
    agent: str, mode: Mode, day: str, verdicts: Sequence[Verdict], standing: Mapping[str, Open]
) -> tuple[dict[str, Open], list[Decision]]:
    """The alerts that stand after the day, and what is to be said. What cannot be judged resolves nothing."""
    found: dict[str, list[Finding]] = {}
    for verdict in verdicts:
        for finding in verdict.findings:
            found.setdefault(finding.cause, []).append(finding)
    after: dict[str, Open] = {}
    decisions: list[Decision] = []
    for cause, findings in found.items():
        against = tuple(sorted({finding.against for finding in findings}))
        if cause in standing:
            after[cause] = replace(standing[cause], against=against, repeats=standing[cause].repeats + 1)
            continue
        best = min(findings, key=lambda finding: (finding.q, -abs(finding.distance), finding.name))
        alert_id = blake2b("\0".join((agent, mode, cause, day)).encode(), digest_size=16).hexdigest()
        after[cause] = Open(alert_id, against)
        decisions.append(Raise(alert_id, agent, mode, cause, day, title(agent, best, len(findings)), best))
    unclear = {verdict.against for verdict in verdicts if verdict.phase == "inconclusive"}
    is_silent = not any(verdict.recent_runs or verdict.baseline_runs for verdict in verdicts)
    for cause, one in standing.items():
        if cause in found:
            continue
        if unclear & set(one.against) and not is_silent:
            after[cause] = one
            continue
        reason = "there are no runs left to judge by" if is_silent else f"on {day} the runs differ no more"
        decisions.append(Resolve(one.alert_id, agent, cause, reason, one.repeats))
    return after, decisions


def title(agent: str, finding: Finding, count: int) -> str:
    """The sentence of an alert, whose it is, and since when."""
    sentence = finding.sentence[0].lower() + finding.sentence[1:]
    text = f"Agent {agent}: {sentence} ({told(finding)})"
    if count > 1:
        text += f", and {count - 1} more like it"
    return text if len(text) <= _TITLE_LIMIT else f"{text[: _TITLE_LIMIT - 1]}…"


def told(finding: Finding) -> str:
    """Against what a finding holds, and whether it came at once."""
    against = f"version {words.name(finding.label)}" if finding.against == "version" else finding.label
    if finding.onset == "sudden":
        return f"against {against}; sudden, since {finding.onset_day}"
    return f"against {against}; slow, over many days" if finding.onset == "slow" else f"against {against}"
