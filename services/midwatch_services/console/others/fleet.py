"""Who is armed, what is halted, and what waits for a person: by the bus, and by what the services keep."""

import asyncio
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from nats.aio.client import Client
from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch.runtime.switchboard import Scope
from midwatch_services.console.reading import Found, Reading
from midwatch_services.console.stopping import fields_of
from midwatch_services.drift import store as drift
from midwatch_services.kill_switch import decide, view
from midwatch_services.kill_switch import store as switch
from midwatch_services.kill_switch.cases import case_pages
from midwatch_services.kill_switch.cases.case_pages import Waits
from midwatch_services.kill_switch.view import AgentView, InstanceView
from midwatch_services.logger import alert_pages
from midwatch_services.logger.alert_pages import Unattended
from midwatch_services.reviewer_sampler import store as reviews

from . import alerts as heard_alerts

__all__ = ["Unattended"]
_SECONDS = 1.0  # less than after which a live part asks for the second time
_EVERY = sys.maxsize  # alerts: those of the bus are all read anyhow


@dataclass(frozen=True, slots=True)
class Fleet:
    """Agents by name, as the switch has them, and the instances of each."""

    agents: dict[str, AgentView] = field(default_factory=dict)
    instances: dict[str, list[InstanceView]] = field(default_factory=dict)

    def stage(self, agent: str) -> str:
        found = self.agents.get(agent)
        return found.stage if found else ""

    def halted(self, agent: str) -> bool:
        """Whether nothing of it may run."""
        found = self.agents.get(agent)
        return bool(found and found.halted)

    def armed(self, agent: str) -> tuple[int, int]:
        """How many of its instances are armed, and how many there are."""
        some = self.instances.get(agent, [])
        return sum(one.armed for one in some), len(some)


async def fleet(reading: Reading, nc: Any, js: Any) -> Found[Fleet]:
    """Read from NATS alone."""

    async def work() -> Fleet:
        agents, instances = await view.read(nc, js)
        by_agent: dict[str, list[InstanceView]] = {}
        for one in instances:
            by_agent.setdefault(one.presence.agent, []).append(one)
        return Fleet({one.agent: one for one in agents}, by_agent)

    return await reading.ask(work, keep=("fleet",), seconds=_SECONDS)


@dataclass(frozen=True, slots=True)
class Alerts:
    """What wants somebody and nobody has taken on, the urgent first, the newest first; and the same by agent."""

    every: list[Unattended] = field(default_factory=list)
    by_agent: dict[str, list[Unattended]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """An instance that has not confirmed a halt. `proof`: where that halt is told."""

    agent: str
    instance: str
    proof: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits for a person. Each part is a Found of its own: one that is missing is told as missing. `log`: why the
    alerts are those that the bus has, where the run log did not say."""

    alerts: Found[Alerts]
    cases: Found[list[Waits]]
    reviews: Found[dict[str, int]]
    unconfirmed: Found[list[Unconfirmed]]
    log: Found[Alerts]

    def alerts_of(self, agent: str | None) -> list[Unattended]:
        """Alerts that want somebody, and that nobody has taken on."""
        found = self.alerts | Alerts()
        return found.every if agent is None else found.by_agent.get(agent, [])

    def cases_of(self, agent: str | None) -> int:
        """How many cases nobody has."""
        return sum(one.cases for one in self._open_of(agent))

    def oldest_of(self, agent: str | None) -> datetime | None:
        """Since when the first of them waits."""
        return min((one.oldest for one in self._open_of(agent)), default=None)

    def _open_of(self, agent: str | None) -> list[Waits]:
        return [one for one in self.cases | [] if agent in (None, one.agent) and one.state == "open"]

    def in_hand_of(self, agent: str | None) -> int:
        """How many cases somebody has, or another agent is asked to take."""
        return sum(one.cases for one in self.cases | [] if agent in (None, one.agent) and one.state != "open")

    def reviews_of(self, agent: str | None) -> int:
        return sum(count for name, count in (self.reviews | {}).items() if agent in (None, name))

    def unconfirmed_of(self, agent: str | None) -> list[Unconfirmed]:
        return [one for one in self.unconfirmed | [] if agent in (None, one.agent)]

    def knows(self, part: str) -> bool:
        """Whether that part was read; a service that has not begun yet has nothing that waits."""
        return getattr(self, part).problem in ("", "none_yet")

    @property
    def missing(self) -> Iterable[Found[Any]]:
        """What could not be read, a service once; one that has not begun yet has nothing that waits."""
        parts = (self.log, self.alerts, self.cases, self.reviews, self.unconfirmed)
        found = {one.service: one for one in parts if not one.ok}
        return [one for one in found.values() if one.problem != "none_yet"]


async def waiting(reading: Reading, nc: Client, now: datetime) -> Waiting:
    """Asked of each service by itself; alerts of the bus where the run log cannot be read."""
    log, cases, backlog, unconfirmed = await asyncio.gather(
        reading.read(
            subjects.LOGGER, _open_alerts, keep=("alerts",), seconds=_SECONDS,
        ),
        reading.read(
            subjects.KILL_SWITCH, case_pages.waits, keep=("cases",), seconds=_SECONDS,
        ),
        reading.read(subjects.REVIEWER_SAMPLER, reviews.backlog, keep=("backlog",), seconds=_SECONDS),
        reading.read(subjects.KILL_SWITCH, _unconfirmed, keep=("unconfirmed",), seconds=_SECONDS),
    )  # fmt: skip
    alerts = log
    if log.problem in ("down", "slow"):
        alerts = await reading.ask(lambda: _heard(nc, now), keep=("alerts",), seconds=_SECONDS)
    return Waiting(alerts, cases, backlog, unconfirmed, log)


def _open_alerts(conn: Connection) -> Alerts:
    return _by_agent(alert_pages.unattended(conn))


async def _heard(nc: Client, now: datetime) -> Alerts:
    found = [
        Unattended(one["alert_id"], one["agent"], one["raised_at"], one["severity"], one["title"], one["run_id"])
        for one in (await heard_alerts.heard(nc, now, heard_alerts.Wanted(limit=_EVERY))).alerts
        if alert_pages.wants(one["severity"], one["mode"])
    ]
    return _by_agent(sorted(found, key=lambda one: one.severity != "page"))


def _by_agent(every: list[Unattended]) -> Alerts:
    found = Alerts(every)
    for one in every:
        found.by_agent.setdefault(one.agent, []).append(one)
    return found


def _unconfirmed(conn: Connection) -> list[Unconfirmed]:
    found: dict[tuple[str, str], Unconfirmed] = {}
    for halt in switch.open_halts(conn):
        for agent, instance in (who for who, state in halt.states.items() if state in ("unconfirmed", "lapsed")):
            if halt.phase == "unconfirmed":
                found.setdefault((agent, instance), Unconfirmed(agent, instance, proof_path(halt.key, halt.target)))
    return [one for _, one in sorted(found.items())]


def proof_path(key: str, target: str | None) -> str:
    """Where it is told who has confirmed the halt of a key of the switch, or of one tool or run that it holds; of a
    list of them that cannot be read, where that is told."""
    agent = decide.agent_of(key)
    is_tool = agent is not None and key == subjects.tools_key(agent)
    if target is None and agent is not None and key != subjects.agent_key(agent):
        return "/stop"
    scope = Scope(agent, tool=target) if is_tool else Scope(agent, run_id=target)
    return f"/stop/proof?{urlencode(fields_of(scope))}"


async def findings(reading: Reading, agent: str) -> Found[list[dict[str, Any]]]:
    """What changed in an agent, by the latest day that is judged."""
    return await reading.read(
        subjects.DRIFT, lambda conn: drift.read_findings(conn, agent), keep=("findings", agent), seconds=30, stale=300
    )
