"""What kill-switch keeps in memory of instances and runs. No I/O; what must survive, the store saves."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

import msgspec

from midwatch.contracts.codec import RunEvent
from midwatch.contracts.control import Presence

from .decide import Instance

_FINISHED_KEPT = 100_000  # runs whose end is remembered, for events and halts that come late
_SAVE_EVERY = timedelta(seconds=30)
_CLOCKS_DIFFER = timedelta(seconds=10)  # less than that may be what a presence took on its way
_BESIDE = timedelta(minutes=1)  # past its lease: a process that was silent for so long is not kept beside another
_MOST_BESIDE = 64  # processes under one name: an agent that makes them up is not to hold up the rest
_DAY = 86_400.0  # seconds; what an instance says beyond it is nonsense that no time could be reckoned with
_OTHERS = ("proposed", "human_acted")  # of shadow mode: nothing of the agent's moves

RunKey = tuple[str, str]  # agent, run id
_presence = msgspec.json.Decoder(Presence)


def read_presence(subject: str, body: bytes, seen_at: datetime) -> Instance | None:
    """The instance that reports itself on `subject`; None where the body is no presence or speaks of another."""
    tokens = subject.split(".")
    try:
        said = _presence.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if len(tokens) != 4 or said.agent != tokens[2] or said.instance != tokens[3]:
        return None
    return of_presence(said, seen_at)


def of_presence(said: Presence, seen_at: datetime) -> Instance:
    """What is known of an instance that says this of itself."""
    return Instance(
        agent=said.agent,
        instance=said.instance,
        applied=said.applied,
        running=tuple(said.runs_in_flight),
        draining=tuple(said.draining),
        seen_at=seen_at,
        lease=timedelta(seconds=max(0.0, min(said.lease, _DAY))),
        left=said.leaving,
        own_fallback=said.own_fallback,
        no_case=tuple(said.no_case),
        process=process_of(said),
        since=seen_at,
        ahead=_ahead(said, seen_at),
        control_age=None if said.control_age is None else min(said.control_age, _DAY),
        lost_control=said.lost_control,
        without_control=said.without_control,
        blocking=said.blocking,
    )


def process_of(said: Presence) -> str:
    """Which process says it: another one may have had its name before."""
    return f"{said.host}/{said.pid}/{said.process}"


def _ahead(said: Presence, seen_at: datetime) -> timedelta:
    """How wrong the clock of the instance is: it says when it read its keys by that clock, and how long ago by none."""
    if said.control_read_at is None or said.control_age is None:
        return timedelta(0)
    try:
        ahead = said.control_read_at + timedelta(seconds=said.control_age) - seen_at
    except OverflowError:
        return timedelta(0)
    return ahead if abs(ahead) > _CLOCKS_DIFFER else timedelta(0)


class Instances:
    """Every instance that was heard of, until it has been silent for long enough to be forgotten."""

    def __init__(self) -> None:
        self._agents: dict[str, dict[str, Instance]] = {}
        self._saved: dict[tuple[str, str], Instance] = {}
        self._beside: dict[tuple[str, str], dict[str, Instance]] = {}  # other processes that spoke under the name

    def load(self, known: Iterable[Instance]) -> None:
        """Takes what an earlier process had saved."""
        for instance in known:
            self.recall(instance)
            self._saved[instance.agent, instance.instance] = instance

    def hear(self, instance: Instance) -> None:
        """Takes what an instance says of itself just now, whatever our clock said before."""
        some, who = self._agents.setdefault(instance.agent, {}), (instance.agent, instance.instance)
        before, beside = some.get(instance.instance), self._beside.get(who, {})
        beside.pop(instance.process, None)
        if before is not None and before.process in ("", instance.process):
            instance = replace(instance, since=before.since)
        elif before is not None and not before.left:
            beside[before.process] = before
        some[instance.instance] = instance
        kept = [one for one in beside.items() if instance.seen_at - one[1].seen_at <= one[1].lease + _BESIDE]
        self._beside[who] = dict(kept[-_MOST_BESIDE:])
        if not kept:
            del self._beside[who]

    def recall(self, instance: Instance) -> None:
        """Takes what was kept of an instance, unless it is older than what is known."""
        before = self._agents.get(instance.agent, {}).get(instance.instance)
        if before is None or before.seen_at <= instance.seen_at:
            self.hear(instance)

    def forget_epochs(self, before: datetime) -> None:
        """What was applied by `before` was of another bucket: its revisions say nothing of this one's."""
        for instance in self.of(None):
            if instance.seen_at < before:
                self._agents[instance.agent][instance.instance] = replace(instance, applied={})
        for beside in self._beside.values():
            beside.update({name: replace(one, applied={}) for name, one in beside.items() if one.seen_at < before})

    def of(self, agent: str | None) -> list[Instance]:
        """The instances of an agent, or all of them."""
        if agent is not None:
            return list(self._agents.get(agent, {}).values())
        return [instance for some in self._agents.values() for instance in some.values()]

    def processes(self, agent: str | None) -> list[Instance]:
        """The same, and after them every other process that spoke under one of their names."""
        beside = [one for (name, _), some in self._beside.items() if agent in (None, name) for one in some.values()]
        return self.of(agent) + beside

    def time_of(self, event: RunEvent) -> datetime:
        """When `event` was recorded, put right where the clock of its instance is wrong: one that is an hour behind
        must not make a call look older than the halt before it."""
        instance = self._agents.get(event.agent, {}).get(event.source.rsplit("/", 1)[-1])
        try:
            return event.time if instance is None else event.time - instance.ahead
        except OverflowError:
            return event.time

    def agents(self) -> list[str]:
        """The agents that have instances."""
        return list(self._agents)

    def has(self, agent: str) -> bool:
        """Whether the agent sends presence, or did lately."""
        return agent in self._agents

    def unsaved(self) -> list[Instance]:
        """Those of whom more is known than was saved; that they were heard again is news only now and then."""
        found = []
        for instance in self.of(None):
            saved = self._saved.get((instance.agent, instance.instance))
            if (
                saved is None
                or instance.seen_at - saved.seen_at > _SAVE_EVERY
                or replace(saved, seen_at=instance.seen_at) != instance
                or saved.since != instance.since
            ):
                found.append(instance)
        return found

    def saved(self, instances: Iterable[Instance]) -> None:
        """These are saved as they are here."""
        self._saved.update({(instance.agent, instance.instance): instance for instance in instances})

    def forget(self, before: datetime) -> list[Instance]:
        """Drops those last heard before `before` and returns them."""
        gone = [instance for instance in self.of(None) if instance.seen_at < before]
        for instance in gone:
            self._saved.pop((instance.agent, instance.instance), None)
            self._beside.pop((instance.agent, instance.instance), None)
            del self._agents[instance.agent][instance.instance]
            if not self._agents[instance.agent]:
                del self._agents[instance.agent]
        return gone


class Runs:
    """Live runs by their events: which are in flight, and which have lately finished."""

    def __init__(self) -> None:
        self._in_flight: dict[str, dict[str, datetime]] = {}  # agent, run id: when its last event was stored
        self._finished: OrderedDict[RunKey, None] = OrderedDict()

    def note(self, agent: str, run_id: str, event: str, stored_at: datetime) -> None:
        """Takes one event. One that comes after `finished` moves nothing."""
        if event == "finished":
            self._in_flight.get(agent, {}).pop(run_id, None)
            self._finished[agent, run_id] = None
            if len(self._finished) > _FINISHED_KEPT:
                self._finished.popitem(last=False)
        elif event not in _OTHERS and (agent, run_id) not in self._finished:
            self._in_flight.setdefault(agent, {})[run_id] = stored_at

    def finished(self, agent: str, run_id: str) -> bool:
        """Whether the run is remembered to have finished."""
        return (agent, run_id) in self._finished

    def in_flight(self, agent: str) -> dict[str, datetime]:
        """Run id and time of the last event of the agent's unfinished runs."""
        return self._in_flight.get(agent, {})

    def agents(self) -> list[str]:
        """Agents with runs in flight."""
        return [agent for agent, runs in self._in_flight.items() if runs]

    def forget(self, before: datetime) -> None:
        """Drops the runs whose last event was stored before `before`: they are not in flight any more."""
        for agent, runs in list(self._in_flight.items()):
            self._in_flight[agent] = {run: at for run, at in runs.items() if at >= before}
            if not self._in_flight[agent]:
                del self._in_flight[agent]
