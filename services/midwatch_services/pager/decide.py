"""What follows from an alert, from a person's word and from time: who is told, and of what. Pure.

Alerts of one cause (agent, rule and severity) are one group. Its first goes out at once, what joins is told in one
update after the group's interval, and the chain of its route is gone along until somebody acknowledges or nothing is
open.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from msgspec.structs import replace

from .policy import HOLD, KEEP, LATE, OLDEST, REFRESH, Policy, Route, channels_of
from .state import Acknowledged, Alert, Group, Raised, Resolved
from .words import span, token

What = Literal["page", "update", "escalated", "again", "ended"]


@dataclass(frozen=True, slots=True)
class Tell:
    """The channels are told. `id` is the same whenever this is decided. `note`: why, after the first time."""

    id: str
    group: Group
    what: What
    channels: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Refresh:
    """Alertmanager is told that the alert still fires, or it would take it for over."""

    group: Group


@dataclass(frozen=True, slots=True)
class Withdraw:
    """What waits to be sent of the group is stale: all of it at the `end`, else what would only press on."""

    group_id: str
    end: bool


Decision = Tell | Refresh | Withdraw


@dataclass(frozen=True, slots=True)
class Known:
    """What the tables know of an event's alert: itself, the open one of its key in its group, the group."""

    alert: Alert | None = None
    same: Alert | None = None
    group: Group | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """By what a group is judged: the file, the route, the channels that are dead."""

    policy: Policy
    route: Route | None
    dead: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The state afterwards; what changed is in it, and what was not touched is not."""

    alerts: tuple[Alert, ...] = ()
    group: Group | None = None
    decisions: tuple[Decision, ...] = ()


def key_of(raised: Raised) -> str:
    """The name of an alert's cause. Each dead channel is a cause of its own."""
    data = raised.data
    return "/".join(filter(None, (data.agent, data.rule, data.severity, raised.spared)))


def is_told(raised: Raised) -> bool:
    """Whether an alert is for people at all."""
    return raised.data.severity != "info" and raised.data.mode == "live" and raised.waited < OLDEST


def raised(known: Known, event: Raised, policy: Policy, now: datetime) -> Outcome:
    """An alert joins its group, or begins it; `known.group` is the open group of its cause."""
    data, early = event.data, known.alert
    if early is not None and early.phase != "early":
        if not _is_news(early, event):
            return Outcome()
        early = None
    alert = Alert(
        alert_id=data.alert_id, phase="open", dedupe_key=data.dedupe_key, raised_at=event.at, touched_at=now,
        acknowledged_at=early.acknowledged_at if early else None,
        acknowledged_by=early.acknowledged_by if early else "",
    )  # fmt: skip
    if early is not None and early.resolved_at is not None:
        return Outcome((replace(alert, phase="resolved", resolved_at=early.resolved_at),))
    if not is_told(event):
        return Outcome((replace(alert, phase="unsent"),))
    group = known.group or _begin(event, now, again=known.alert is not None and early is None)
    alert = replace(alert, group_id=group.group_id)
    if known.same is not None:
        return _again(known.same, alert, group)
    group = replace(group, open=group.open + 1, alerts=group.alerts + 1, calm_since=None)
    if alert.acknowledged_at is not None:  # whoever has taken it on need not be told of it
        return Outcome((alert,), _acknowledge(group, alert.acknowledged_by, alert.acknowledged_at))
    alert, group = replace(alert, joined=group.alerts), replace(group, untold=group.untold + 1)
    if group.acknowledged_at is not None and now - group.acknowledged_at > policy.acknowledged_for:
        group = replace(
            group, acknowledged_at=None, acknowledged_by="", told_at=None, step=-1, rounds=0, alert_id=data.alert_id,
            title=data.title, run_id=data.run_id or "", action_taken=data.action_taken, evidence=data.evidence or "",
        )  # fmt: skip
    return Outcome((alert,), group)


def _is_news(alert: Alert, event: Raised) -> bool:
    """Whether an alert that is over was raised anew, by a publisher that uses its id again."""
    return alert.phase == "resolved" and alert.resolved_at is not None and event.at > alert.resolved_at


def _begin(event: Raised, now: datetime, *, again: bool) -> Group:
    data = event.data
    group_id = token(f"{data.alert_id}\0{event.at.isoformat()}" if again else data.alert_id)
    return Group(
        group_id=group_id, key=key_of(event), agent=data.agent, rule=data.rule,
        severity="page" if data.severity == "page" else "ticket", opened_at=min(event.at, now), alert_id=data.alert_id,
        title=data.title, run_id=data.run_id or "", action_taken=data.action_taken, evidence=data.evidence or "",
        spared=event.spared, held_until=now + HOLD if event.waited > LATE else None,
    )  # fmt: skip


def _again(same: Alert, alert: Alert, group: Group) -> Outcome:
    """The cause was open under another id: the newer of the two stands for it, so that a late end of the older does not
    end it, and the end of the newer does."""
    group = replace(group, repeats=group.repeats + 1)
    assert same.raised_at is not None and alert.raised_at is not None
    if alert.raised_at < same.raised_at:
        return Outcome((replace(alert, phase="superseded", joined=same.joined),), group)
    alert = replace(alert, joined=same.joined)
    if alert.acknowledged_at is not None:
        group = _acknowledge(group, alert.acknowledged_by, alert.acknowledged_at)
    return Outcome((replace(same, phase="superseded", touched_at=alert.touched_at), alert), group)


def acknowledged(known: Known, event: Acknowledged, now: datetime) -> Outcome:
    """Somebody takes the alert on, and with it its group."""
    alert = known.alert or Alert(alert_id=event.alert_id, phase="early", touched_at=now)
    if alert.acknowledged_at is None:
        alert = replace(alert, acknowledged_at=event.at, acknowledged_by=event.by, touched_at=now)
    group = known.group
    if group is None or group.ended_at is not None or group.acknowledged_at is not None:
        return Outcome((alert,))
    return Outcome((alert,), _acknowledge(group, event.by, event.at), (Withdraw(group.group_id, end=False),))


def _acknowledge(group: Group, by: str, at: datetime) -> Group:
    return replace(group, acknowledged_at=at, acknowledged_by=by, next_at=None)


def resolved(known: Known, event: Resolved, now: datetime) -> Outcome:
    """The condition of the alert has ended."""
    alert = known.alert or Alert(alert_id=event.alert_id, phase="early", touched_at=now)
    if alert.phase in ("resolved", "superseded") or alert.resolved_at is not None:
        return Outcome()
    over = replace(alert, resolved_at=event.at, touched_at=now)
    if alert.phase != "open":
        return Outcome((over,))
    group = known.group
    assert group is not None
    left = group.open - 1
    group = replace(
        group, open=left, untold=group.untold - (alert.joined > group.told_through), reason=event.reason,
        calm_since=None if left else now,
    )  # fmt: skip
    return Outcome((replace(over, phase="resolved"),), group)


def judge(group: Group, plan: Plan, now: datetime, *, read_on: bool = False) -> tuple[Group, list[Decision]]:
    """What is due for a group at `now`. `read_on`: the stream was read to its end, so that a late alert is known to be
    open."""
    if group.ended_at is not None:
        return group, []
    if read_on and group.held_until is not None:
        group = replace(group, held_until=None)
    route = plan.route
    if _is_forgotten(group, now):
        return replace(group, ended_at=now), []
    waits = group.severity == "ticket" and route is not None and route.quiet is not None and route.quiet.until(now)
    if not group.open:
        return (group, []) if waits and group.told else _end(group, plan, now)
    if route is None or waits or (group.held_until is not None and now < group.held_until):
        return group, []
    if group.told_at is None and group.acknowledged_at is None:
        return _tell_step(replace(group, held_until=None), plan, route, 0, "page", "", now)
    if group.acknowledged_at is None and group.next_at is not None and now >= group.next_at:
        return _escalate(group, plan, route, now)
    since = group.told_at or group.acknowledged_at
    if group.untold > 0 and since is not None and now >= since + plan.policy.interval:
        return _update(group, plan, route, now)
    if group.told and (group.refreshed_at or group.opened_at) + REFRESH <= now:
        group = replace(group, refreshed_at=now)
        return group, [Refresh(group)]
    return group, []


def _is_forgotten(group: Group, now: datetime) -> bool:
    """Somebody took it on long ago, and nobody ever said that it is over."""
    return group.acknowledged_at is not None and not group.untold and now - group.acknowledged_at > KEEP


def _end(group: Group, plan: Plan, now: datetime) -> tuple[Group, list[Decision]]:
    since = group.calm_since or now
    if group.told and now < since + plan.policy.calm:
        return group, []  # it may come back at once, and that would be another page
    ended = replace(group, ended_at=now, next_at=None, tellings=group.tellings + 1, calm_since=since)
    if not group.told:
        return ended, []
    reason = group.reason or "the condition has ended"
    end = Tell(_id(ended), ended, "ended", _alive(group.told, plan, group), reason)
    return ended, [Withdraw(group.group_id, end=True), end]


def _update(group: Group, plan: Plan, route: Route, now: datetime) -> tuple[Group, list[Decision]]:
    note = f"{group.untold} more of the same cause {'is' if group.untold == 1 else 'are'} open"
    channels = _alive(group.told or channels_of(plan.policy, route.steps[0]), plan, group)
    group = _told(group, channels, now)
    return group, [Tell(_id(group), group, "update", channels, note)]


def _escalate(group: Group, plan: Plan, route: Route, now: datetime) -> tuple[Group, list[Decision]]:
    last = len(route.steps) - 1
    waited = span(now - group.opened_at)
    if group.step < last:
        return _tell_step(
            group, plan, route, group.step + 1, "escalated", f"nobody has acknowledged it for {waited}", now
        )
    group = replace(group, rounds=group.rounds + 1)
    return _tell_step(group, plan, route, last, "again", f"still not acknowledged after {waited}", now)


def _tell_step(
    group: Group, plan: Plan, route: Route, step: int, what: What, note: str, now: datetime
) -> tuple[Group, list[Decision]]:
    """Tells a step of the chain; where none of its channels works, the next one at once as well."""
    channels: list[str] = []
    last = len(route.steps) - 1
    while True:
        found = _channels(plan, route, step, group)
        channels += [name for name in found if name not in channels]
        if step == last or not set(found) <= set(plan.dead):
            break
        step += 1
    if group.spared and not channels:
        channels = [name for name in plan.policy.channels if name not in plan.dead and name != group.spared]
    if not channels:
        return group, []
    within = min(route.steps[step].within * 2 ** min(group.rounds, 16), plan.policy.repeat_longest)
    within = max(within, route.steps[step].within)
    group = replace(_told(group, channels, now), step=step, next_at=now + within)
    return group, [Tell(_id(group), group, what, tuple(channels), note)]


def _channels(plan: Plan, route: Route, step: int, group: Group) -> tuple[str, ...]:
    return _alive(channels_of(plan.policy, route.steps[min(step, len(route.steps) - 1)]), plan, group)


def _alive(channels: tuple[str, ...], plan: Plan, group: Group) -> tuple[str, ...]:
    """What is said of a dead channel goes through none that is dead."""
    if not group.spared:
        return channels
    return tuple(name for name in channels if name != group.spared and name not in plan.dead)


def _told(group: Group, channels: Collection[str], now: datetime) -> Group:
    return replace(
        group, told=tuple(dict.fromkeys((*group.told, *channels))), told_at=now, told_through=group.alerts, untold=0,
        tellings=group.tellings + 1, refreshed_at=now,
    )  # fmt: skip


def _id(group: Group) -> str:
    return f"{group.group_id}-{group.tellings}"
