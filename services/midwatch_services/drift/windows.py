"""Which runs are held against which. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from typing import NamedTuple

from midwatch.contracts.runs import Mode

from .decide import Against
from .facts import draw_of
from .policy import POLICY, Policy


class Ended(NamedTuple):
    """A run that has ended, as far as choosing needs to know it. `events`: how many the log had of it."""

    agent: str
    run_id: str
    mode: Mode
    version: str
    ended_at: str
    events: int

    @property
    def day(self) -> str:
        return self.ended_at[:10]

    @property
    def key(self) -> tuple[str, str]:
        return self.agent, self.run_id


class Chosen(NamedTuple):
    """The runs of one comparison, by id."""

    against: Against
    label: str
    recent: tuple[str, ...]
    baseline: tuple[str, ...]


def first_day(day: str, policy: Policy = POLICY) -> str:
    """The earliest day whose runs may be held against those of `day`."""
    return before(day, policy.baseline_days + policy.recent_days - 1)


def before(day: str, days: int) -> str:
    """So many days before that day."""
    return (date.fromisoformat(day) - timedelta(days=days)).isoformat()


def choose(runs: Sequence[Ended], day: str, policy: Policy = POLICY) -> list[Chosen]:
    """The comparisons of one agent and mode on `day`: with the 28 days before, and with the version before where there
    is one."""
    seen = [run for run in runs if first_day(day, policy) <= run.day <= day]
    since = _since(seen, day, policy)
    recent = [run for run in seen if run.day >= since]
    earliest = before(since, policy.baseline_days)
    baseline = [run for run in seen if earliest <= run.day < since]
    label = f"the {policy.baseline_days} days before"
    return [_chosen("days", label, recent, baseline, policy), *_versions(seen, day, policy)]


def _since(seen: Iterable[Ended], day: str, policy: Policy) -> str:
    """The day from which on runs are of now: `day` itself, if it has enough."""
    counts, total = Counter(run.day for run in seen), 0
    for back in range(policy.recent_days):
        total += counts[before(day, back)]
        if total >= policy.least:
            return before(day, back)
    return before(day, policy.recent_days - 1)


def _versions(seen: Sequence[Ended], day: str, policy: Policy) -> list[Chosen]:
    firsts: dict[str, str] = {}
    for run in seen:
        firsts[run.version] = min(run.ended_at, firsts.get(run.version, run.ended_at))
    if len(firsts) < 2:
        return []
    old, new = sorted(firsts, key=lambda version: (firsts[version], version))[-2:]
    recent = [run for run in seen if run.version == new]
    return [_chosen("version", old, recent, [run for run in seen if run.version == old], policy)]


def _chosen(against: Against, label: str, recent: Sequence[Ended], baseline: Sequence[Ended], policy: Policy) -> Chosen:
    return Chosen(against, label, sample(recent, policy.most_recent), sample(baseline, policy.most_baseline))


def sample(runs: Sequence[Ended], most: int) -> tuple[str, ...]:
    """At most so many of them, always the same."""
    ids = [run.run_id for run in runs]
    return tuple(ids if len(ids) <= most else sorted(ids, key=lambda id: (draw_of(id), id))[:most])
