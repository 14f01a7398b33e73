"""What a write of the switch means, whether a halt is contained, and what revokes the proof. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from midwatch.contracts import control, subjects
from midwatch.contracts.control import LostControl, SwitchRecord
from midwatch.contracts.governance import InstanceReport, InstanceState

from .drills.drill_plan import is_id
from .policy import Policy

Kind = Literal["fleet", "agent", "tools", "runs"]
Phase = Literal["pending", "unconfirmed", "contained", "revoked"]
Who = tuple[str, str]  # an agent and its instance
Target = str | None  # the tool or run; None is all that the key covers

NO_PRESENCE = "(sends no presence)"  # stands for an agent's instances where run events are all that is known of them
_ABSENT = SwitchRecord(state="halted", reason="the key is absent, which is not running")
_UNREADABLE = SwitchRecord(state="halted", reason="the value cannot be read, which is not running")
_READABLE = SwitchRecord(state="running", reason="the map can be read again")
_OVER = SwitchRecord(state="running", reason="the run has finished")
_REMOVED = SwitchRecord(state="running", reason="its record was removed from the map")


@dataclass(frozen=True, slots=True)
class Write:
    """One write of a switch key. `value` is None where the key was deleted."""

    key: str
    value: bytes | None
    revision: int
    written_at: datetime


@dataclass(frozen=True, slots=True)
class Move:
    """What a write changed for one target. `pruned`: a finished run's halt left the map, which lifts nothing."""

    event: Literal["halted", "resumed", "pruned"]
    target: Target
    record: SwitchRecord


@dataclass(frozen=True, slots=True)
class Halt:
    """A halt that stands, and how far its proof has got."""

    key: str
    target: Target
    epoch: int
    record: SwitchRecord
    requested_at: datetime
    phase: Phase = "pending"
    contained_at: datetime | None = None
    lapsed: frozenset[Who] = frozenset()  # as last said
    states: Mapping[Who, InstanceState] = field(default_factory=dict)  # of the instances, as last saved

    @property
    def kind(self) -> Kind:
        return _kind(self.key)

    @property
    def agent(self) -> str | None:
        return agent_of(self.key)


@dataclass(frozen=True, slots=True)
class Instance:
    """What is known of one process of an agent. `seen_at`: when it was last heard."""

    agent: str
    instance: str
    applied: Mapping[str, int]
    running: tuple[str, ...]
    draining: tuple[str, ...]
    seen_at: datetime
    lease: timedelta
    left: bool = False
    own_fallback: bool = False  # its program has one
    no_case: tuple[str, ...] = ()  # runs for whose answer nobody waits
    process: str = field(default="", compare=False)
    since: datetime | None = field(default=None, compare=False)  # when this process of the name was first heard
    # Heard anew each second, and so never saved.
    ahead: timedelta = field(default=timedelta(0), compare=False)  # how far its clock is, if it is far
    control_age: float | None = field(default=None, compare=False)  # seconds since it last read its keys
    lost_control: bool = field(default=False, compare=False)
    without_control: LostControl | None = field(default=None, compare=False)
    blocking: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a halt is judged by, beside the instances. `revision`: of its key now. `watching_since`: from when on
    presence was followed without a gap. `strays`: runs in flight of agents that send no presence, by agent."""

    now: datetime
    watching_since: datetime
    revision: int
    strays: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`cleared`: since when each instance that has applied the halt has nothing moving. `blocking`: those whose runs
    are in threads, which stop at their next call. `processes`: which processes each name stood for
    that were still there. `shared`: the names that more than one of them uses."""

    contained: bool
    seconds: float | None
    reports: tuple[InstanceReport, ...]
    cleared: Mapping[Who, datetime]
    blocking: frozenset[Who] = frozenset()
    processes: Mapping[Who, frozenset[str]] = field(default_factory=dict)

    @property
    def shared(self) -> frozenset[Who]:
        return frozenset(who for who, some in self.processes.items() if len(some) > 1)


def is_key(key: str) -> bool:
    """Whether any agent obeys `key`."""
    kind, _, agent = key.partition(".")
    return key == subjects.FLEET_KEY or (kind in ("agent", "tools", "runs") and subjects.is_agent_name(agent))


def agent_of(key: str) -> str | None:
    """The agent whose key it is; None for the fleet's."""
    return key.partition(".")[2] or None


def _kind(key: str) -> Kind:
    kind: Kind = key.partition(".")[0]  # type: ignore[assignment]
    return kind


def targets(write: Write) -> set[str]:
    """The tools or runs that have a record in the map written; none where it cannot be read."""
    if _kind(write.key) not in ("tools", "runs") or write.value is None:
        return set()
    return set(control.decode_map(write.value) or ())


def moves(write: Write, before: Mapping[Target, Halt], finished: Collection[str]) -> list[Move]:
    """What `write` halted and resumed, given the halts that stood at its key and the runs known to have finished."""
    if _kind(write.key) in ("tools", "runs"):
        return _map_moves(write, before, finished)
    record = _ABSENT if write.value is None else control.decode_record(write.value) or _UNREADABLE
    if record.state == "running":
        return [Move("resumed", None, record)] if before else []
    return [] if _stands(write, before, None, record) else [Move("halted", None, record)]


def _stands(write: Write, before: Mapping[Target, Halt], target: Target, record: SwitchRecord) -> bool:
    """Whether the halt stood before. In a bucket made anew, where epochs begin again, it is another."""
    halt = before.get(target)
    return halt is not None and halt.record == record and halt.epoch <= write.revision


def _map_moves(write: Write, before: Mapping[Target, Halt], finished: Collection[str]) -> list[Move]:
    records = {} if write.value is None else control.decode_map(write.value)
    if records is None:  # what it halted before is not known to be lifted
        return [] if _stands(write, before, None, _UNREADABLE) else [Move("halted", None, _UNREADABLE)]
    found = [
        Move("halted", target, record)
        for target, record in records.items()
        if record.state == "halted" and not _stands(write, before, target, record)
    ]
    for target in before:
        record = _READABLE if target is None else records.get(target, _REMOVED)
        if record.state == "running":
            gone = record is _REMOVED and target in finished
            found.append(Move("pruned", target, _OVER) if gone else Move("resumed", target, record))
    return found


def judge(
    halt: Halt,
    instances: Sequence[Instance],
    around: Surroundings,
    cleared: Mapping[Who, datetime],
    policy: Policy,
) -> Verdict:
    """How far `halt` has got with the `instances` in its scope, of each name the process that spoke last before others.
    `cleared` is that of the verdict before."""
    known = halt.requested_at >= around.watching_since  # else nobody saw when it was applied
    since: dict[Who, datetime] = {}
    reports: list[InstanceReport] = []
    processes: dict[Who, frozenset[str]] = {}
    for who, (last, *beside) in _by_name(instances).items():
        alive = [one for one in beside if _counts(one, around)]
        if not is_over(last, around.now):
            alive.insert(0, last)
        if not alive:
            if last.left and last.seen_at >= halt.requested_at:
                reports.append(InstanceReport(agent=last.agent, instance=last.instance, state="left"))
            continue
        processes[who] = frozenset(one.process for one in alive)
        running, draining = _moving(halt, alive)
        applied = all(halt.epoch <= one.applied.get(halt.key, 0) <= around.revision for one in alive)
        if applied and not running and not draining:
            since[who] = max(_cleared_at(one, cleared.get(who)) for one in alive)
        silences = {silence(one, around, policy) for one in alive}
        silent = silences.pop() if len(silences) == 1 else "unconfirmed"
        reports.append(
            InstanceReport(
                agent=last.agent,
                instance=last.instance,
                state="applied" if applied and (who in since or not silent) else silent or "unconfirmed",
                seconds=_seconds(halt, since[who]) if known and who in since else None,
                running=list(running),
                draining=list(draining),
            )
        )
    reports += _strays(halt, around.strays)
    contained = all(report.state == "left" or (report.agent, report.instance) in since for report in reports)
    seconds = _seconds(halt, max(since.values(), default=halt.requested_at)) if known and contained else None
    blocking = frozenset((one.agent, one.instance) for one in instances if one.blocking)
    return Verdict(contained, seconds, tuple(reports), since, blocking, processes)


def _by_name(instances: Sequence[Instance]) -> dict[Who, list[Instance]]:
    found: dict[Who, list[Instance]] = {}
    for one in instances:
        found.setdefault((one.agent, one.instance), []).append(one)
    return found


def _counts(beside: Instance, around: Surroundings) -> bool:
    """Whether a process may still run though another spoke under its name since. One that was started anew may have
    died without a word: it counts for no longer than its lease."""
    heard = max(beside.seen_at, around.watching_since)
    return not beside.left and around.now - heard <= beside.lease


def _cleared_at(instance: Instance, before: datetime | None) -> datetime:
    """Since when nothing of the instance moves. What another process confirmed under its name is not its own word."""
    its_own = before is not None and (instance.since is None or before >= instance.since)
    return before if before is not None and its_own else instance.seen_at


def is_over(instance: Instance, now: datetime) -> bool:
    """Whether nobody need wait for the instance: it has signed off, or was a drill's own, which dies with its drill and
    works for nobody."""
    return instance.left or (is_id(instance.instance) and now - instance.seen_at > instance.lease)


def _seconds(halt: Halt, at: datetime) -> float:
    # The write is timed by the server's clock, the confirmation by ours.
    return round(max(0.0, (at - halt.requested_at).total_seconds()), 6)


def _moving(halt: Halt, processes: Sequence[Instance]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Runs in flight and draining in the halt's scope. Presence does not say which tool drains: for the halt of a tool
    the other runs go on, and every draining one counts."""
    running = tuple(dict.fromkeys(run for one in processes for run in one.running))
    draining = tuple(dict.fromkeys(run for one in processes for run in one.draining))
    if halt.kind == "tools":
        return (), draining
    if halt.kind == "runs" and halt.target is not None:
        return tuple(run for run in running if run == halt.target), tuple(run for run in draining if run == halt.target)
    return running, draining


def silence(instance: Instance, around: Surroundings, policy: Policy) -> Literal["unconfirmed", "lapsed"] | None:
    """Nobody hears an instance while nobody listens: a lease is over once it ran out within the watch."""
    if around.now - instance.seen_at <= policy.silent_after:
        return None
    heard = max(instance.seen_at, around.watching_since)
    return "lapsed" if around.now - heard > instance.lease else "unconfirmed"


def _strays(halt: Halt, strays: Mapping[str, Sequence[str]]) -> list[InstanceReport]:
    found = []
    for agent, runs in strays.items():
        running = [run for run in runs if halt.kind != "runs" or halt.target in (None, run)]
        if running and halt.agent in (None, agent):
            found.append(InstanceReport(agent=agent, instance=NO_PRESENCE, state="unconfirmed", running=running))
    return found


def report_due(halt: Halt, verdict: Verdict, around: Surroundings, policy: Policy) -> Phase | None:
    """`contained` once it is; `unconfirmed` when the limit is over, and again for each instance that lapses later."""
    if verdict.contained:
        return "contained"
    if halt.phase == "pending":
        late = around.now - max(halt.requested_at, around.watching_since) >= policy.limit
        return "unconfirmed" if late else None
    return "unconfirmed" if lapsed(verdict.reports) - halt.lapsed else None


def states(reports: Sequence[InstanceReport]) -> dict[Who, InstanceState]:
    """How far each instance has got."""
    return {(report.agent, report.instance): report.state for report in reports}


def lapsed(reports: Sequence[InstanceReport]) -> frozenset[Who]:
    """Those whose lease has run out without a word."""
    return frozenset((report.agent, report.instance) for report in reports if report.state == "lapsed")


@dataclass(frozen=True, slots=True)
class Call:
    """A model or tool call that an agent reported. `tool` is None for a model. `began`: by the agent's clock, but not
    after the server had stored it."""

    agent: str
    run_id: str
    tool: str | None
    began: datetime
    event_id: str
    seq: int


def began(time: datetime, stored_at: datetime, latency_ms: float | None) -> datetime:
    """When the call of an event began that was recorded at `time` and stored at `stored_at`."""
    return min(time, stored_at) - timedelta(milliseconds=min(latency_ms or 0.0, 86_400_000.0))


def places(call: Call) -> set[tuple[str, Target]]:
    """Key and target of every halt in whose scope `call` is."""
    fleet, agent, tools, runs = subjects.switch_keys(call.agent)
    return {(fleet, None), (agent, None), (tools, None), (tools, call.tool), (runs, None), (runs, call.run_id)}


def revokes(halt: Halt, call: Call, policy: Policy) -> bool:
    """Whether `call` began in the scope of `halt` after that was said to be contained."""
    if halt.phase != "contained" or halt.contained_at is None or halt.agent not in (None, call.agent):
        return False
    if halt.kind == "tools" and (call.tool is None or halt.target not in (None, call.tool)):
        return False
    if halt.kind == "runs" and halt.target not in (None, call.run_id):
        return False
    return call.began > halt.contained_at + policy.grace
