"""The switch as it stands: who is armed, what is halted, what was. From the bus alone, but for the two that say so."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch.contracts.control import SwitchRecord
from midwatch.contracts.governance import InstanceReport
from midwatch.errors import MidwatchError
from midwatch.runtime.switchboard import NOT_HALTED, Entry, Scope, Switchboard
from midwatch_services.commands import switch_history, switch_output
from midwatch_services.console import stopping
from midwatch_services.console.stopping import Instance, Standing, Unreadable
from midwatch_services.kill_switch import armed, history, registry, store, view
from midwatch_services.kill_switch.policy import POLICY

SERVICE = subjects.KILL_SWITCH
NOT_ARMED = armed.RULE
write_off = switch_output.write_off_command
WITHIN = 3.0  # seconds for the bus to say how things stand
MISSED = (NatsError, MidwatchError, OSError, TimeoutError)  # what keeps the bus from being asked


@dataclass(frozen=True)
class State:
    """Agents by name, what is halted, who runs. `known` is false where the bus did not answer."""

    agents: Mapping[str, view.AgentView] = field(default_factory=dict)
    instances: Sequence[Instance] = ()
    halts: Sequence[Standing] = ()
    known: bool = True


async def state(nc: Client, js: JetStreamContext) -> State:
    """How things stand, in three seconds at most."""
    if not nc.is_connected:
        return State(known=False)
    try:
        async with asyncio.timeout(WITHIN):
            (agents, instances), fleet = await asyncio.gather(
                view.read(nc, js), Switchboard(js).read(subjects.FLEET_KEY)
            )
    except MISSED:
        return State(known=False)
    some = [_instance(one) for one in instances]
    return State({one.agent: one for one in agents}, some, _standing(agents, fleet))


def seen(found: State) -> str:
    """What a page shows of it."""
    some = [(one.agent, one.instance, one.why_not, len(one.running)) for one in found.instances]
    return stopping.seen(found.known, found.agents, found.halts, some)


def _instance(one: view.InstanceView) -> Instance:
    said = one.presence
    return Instance(
        said.agent, said.instance, one.why_not, tuple(said.runs_in_flight), tuple(said.draining), said.host, said.pid,
        said.version, one.age, registry.process_of(said),
    )  # fmt: skip


def _standing(agents: Sequence[view.AgentView], fleet: Entry) -> list[Standing]:
    """Every halt once; that of the fleet is every agent's, and stands where there is none yet."""
    found: dict[tuple[str, str | None], Standing] = {}
    record = fleet.record()
    if record is not None and record.state == "halted":
        found[subjects.FLEET_KEY, None] = Standing(
            Scope(), record.by, record.reason, record.at, record.expires_at, record.fallback, record.drill,
            fleet.revision,
        )  # fmt: skip
    for agent in agents:
        for one in agent.halts:
            key, target = one["key"], one["target"]
            unreadable: Unreadable = ""
            if target is None and key in (subjects.tools_key(agent.agent), subjects.runs_key(agent.agent)):
                unreadable = "tools" if key == subjects.tools_key(agent.agent) else "runs"
                scope = Scope(agent.agent)
            elif key == subjects.FLEET_KEY:
                scope = Scope()
            elif key == subjects.tools_key(agent.agent):
                scope = Scope(agent.agent, tool=target)
            else:
                scope = Scope(agent.agent, run_id=target)
            found[key, target] = Standing(
                scope, one["by"], one["reason"], one["at"], one["expires_at"], one["fallback"], one["drill"],
                agent.epochs[key], unreadable,
            )  # fmt: skip
    return sorted(found.values(), key=lambda one: (one.scope.agent or "", one.unreadable, one.scope.target or ""))


async def clear(js: JetStreamContext, key: str, revision: int) -> bool:
    """Puts an empty map in the place of one that cannot be read, if that is still the write `revision`, and returns
    whether it did. Whatever it halted is lifted by that, so only people do it. Raises Temporary."""

    def change(entry: Entry) -> tuple[SwitchRecord, bytes | None]:
        return NOT_HALTED, b"{}" if entry.map() is None and entry.revision == revision else None

    return (await Switchboard(js).update(key, change)).changed


def strays(conn: Connection) -> dict[str, list[str]]:
    """Runs in flight of agents that send no presence, as kill-switch saw them last in its database."""
    since, runs = datetime.now(UTC) - POLICY.idle_after, dict[str, list[str]]()
    for agent, run_id, last_at in store.strays(conn):
        if last_at >= since:
            runs.setdefault(agent, []).append(run_id)
    return runs


def past(conn: Connection, agent: str | None, limit: int) -> list[dict[str, Any]]:
    """The halts that were, from kill-switch's database, the newest first, in words."""
    found = history.read(conn, agent=agent, fleet=agent is not None, limit=limit)
    return [
        {
            "what": switch_history.what(one.halt), "at": one.halt.requested_at, "by": one.halt.record.by,
            "reason": one.halt.record.reason, "phase": one.halt.phase, "drill": one.halt.record.drill,
            "seconds": one.report.seconds if one.report else None, "runs_stopped": one.runs_stopped,
            "cases": one.cases, "first_case": one.first_case_seconds, "closed_at": one.closed_at,
            "ended_by": (one.ended_by or NOT_HALTED).by, "ended_reason": (one.ended_by or NOT_HALTED).reason,
            "missing": [_name(a) for a in _reports(one) if a.state in ("unconfirmed", "lapsed")],
            "moved": [(_name(a), sorted({*a.running, *a.draining})) for a in _reports(one)
                      if a.state == "applied" and (a.running or a.draining)],
        }
        for one in found
    ]  # fmt: skip


def _reports(past: history.Past) -> Sequence[InstanceReport]:
    return past.report.instances if past.report else ()


def _name(report: InstanceReport) -> str:
    return f"{report.agent}/{report.instance}"


def counts(conn: Connection, key: str, target: str | None, record: SwitchRecord | None) -> tuple[int, int] | None:
    """How many runs the halt with this `record` stopped and how many cases came of it, as kill-switch has counted so
    far; None where it knows of none."""
    found = history.read(conn, agent=None, fleet=False, of=(key, target), limit=1)
    return (found[0].runs_stopped, found[0].cases) if found and found[0].halt.record == record else None
