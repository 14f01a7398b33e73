"""Whether an instance would obey the next halt, and since when it would not. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from midwatch.contracts import subjects

from .decide import Instance, Who, is_over
from .words import one_line

RULE = "not_armed"
FRESH = 3.0  # seconds; presence comes each second, and each second the keys are read
_NAMED = 3  # instances that an alert names
_NAME_LIMIT = 60  # characters
_MORE_LIMIT = 160


def why_not(instance: Instance, age: float, revisions: Mapping[str, int]) -> str:
    """What keeps an instance that was heard `age` seconds ago from being armed, in words; empty where it is armed.
    `revisions`: those at which its keys stand, none where a key was never written."""
    if age > FRESH:
        lease = instance.lease.total_seconds()
        return f"silent for {age:.0f} s" + (f", longer than its lease of {lease:g} s" if age > lease else "")
    if instance.without_control is not None or instance.lost_control:
        does = {"carry_on": " and carries on", "fall_back": " and falls back", None: ""}[instance.without_control]
        return f"has lost control{does}"
    if instance.control_age is not None and instance.control_age > FRESH:
        return f"has not been able to read the switch for {instance.control_age:.0f} s"
    return "has not yet obeyed the last change of the switch" if behind(instance, revisions) else ""


def behind(instance: Instance, revisions: Mapping[str, int]) -> str:
    """The first key that an instance has not applied as it stands, for whoever mends it; empty where there is none."""
    for key in subjects.switch_keys(instance.agent):
        current, applied = revisions.get(key, 0), instance.applied.get(key)
        if applied is None:
            return f"has not read {key}"
        if applied != current:  # one that is higher is of a bucket that is no more
            return f"has applied {key} at epoch {applied}, which stands at {current}"
    return ""


class Fault(NamedTuple):
    """An instance that is not armed, and why. `more`: where it runs and what it lacks, for whoever mends it."""

    instance: str
    why: str
    more: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    """One agent. `faults`: for too long already. `armed`: every instance that has not left is. Neither, where it is not
    known yet. `since`: from when on each instance was not armed."""

    total: int
    faults: tuple[Fault, ...]
    armed: bool
    since: Mapping[Who, datetime]


def judge(
    instances: Iterable[Instance],
    revisions: Mapping[str, int],
    now: datetime,
    listening_since: datetime,
    since: Mapping[Who, datetime],
    after: timedelta,
    gone: Collection[Who] = (),
) -> Judged:
    """The instances of one agent. Nobody's silence from before `listening_since` counts towards a fault, though it is
    told, nor does an instance's clock. Those who are `gone` need not be armed."""
    present = [one for one in instances if not is_over(one, now) and (one.agent, one.instance) not in gone]
    faults: list[Fault] = []
    unarmed: dict[Who, datetime] = {}
    armed = True
    for instance in present:
        armed = armed and not why_not(instance, (now - instance.seen_at).total_seconds(), revisions)
        heard = max(instance.seen_at, listening_since)
        if why_not(instance, (now - heard).total_seconds(), revisions):
            who = (instance.agent, instance.instance)
            unarmed[who] = min(since.get(who, now), _began(instance, heard, now))
            if now - unarmed[who] >= after:
                why = why_not(instance, (now - instance.seen_at).total_seconds(), revisions)
                faults.append(Fault(instance.instance, why, _more(instance, revisions)))
    return Judged(len(present), tuple(faults), armed, unarmed)


def vanished(
    instances: Sequence[Instance], revisions: Mapping[str, int], now: datetime, after: timedelta
) -> list[Instance]:
    """The instances of an agent that were silent for `after` and longer, past their leases, while another is armed."""
    ages = [(one, now - one.seen_at) for one in instances if not is_over(one, now)]
    if not any(not why_not(one, age.total_seconds(), revisions) for one, age in ages):
        return []
    return [one for one, age in ages if age >= max(after, one.lease)]


def ended_unheard(instances: Iterable[Instance], now: datetime, began: datetime) -> list[Instance]:
    """The instances that nobody has heard since `began`, past their leases, and that had nothing under way: whoever
    lives speaks each second, and of those who do not no customer waits for anything."""
    return [
        one for one in instances
        if one.seen_at < began and now - one.seen_at > one.lease and not (one.running or one.draining)
    ]  # fmt: skip


def _began(instance: Instance, heard: datetime, now: datetime) -> datetime:
    """When the fault began, as far as the instance's last word tells; a key that it has not applied tells nothing."""
    if (now - heard).total_seconds() > FRESH:
        return heard
    if instance.control_age is not None and instance.control_age > FRESH:
        return heard - timedelta(seconds=instance.control_age)
    return now


def _more(instance: Instance, revisions: Mapping[str, int]) -> str:
    host, _, pid = instance.process.rpartition("/")[0].rpartition("/")
    return ", ".join(filter(None, (f"process {pid} on {host}" if host else "", behind(instance, revisions))))


def title(agent: str, total: int, faults: Sequence[Fault]) -> str:
    """One sentence for the pager."""
    named = "; ".join(f"{one_line(fault.instance, _NAME_LIMIT)} {fault.why}" for fault in faults[:_NAMED])
    more = f"; and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
    verb = "is" if len(faults) == 1 else "are"
    noun = "instance" if total == 1 else "instances"
    return f"{len(faults)} of {total} {noun} of {agent} {verb} not armed: {named}{more}"


def evidence(faults: Sequence[Fault]) -> str:
    """The command that shows it, and after it what is known of those whom the title names."""
    known = (
        f"{one_line(one.instance, _NAME_LIMIT)}: {one_line(one.more, _MORE_LIMIT)}"
        for one in faults[:_NAMED]
        if one.more
    )
    return "; ".join(("midwatch switch", *known))
