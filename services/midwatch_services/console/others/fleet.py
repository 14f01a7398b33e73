"""Who is armed, what is halted, and what waits for a person: by the bus, and by what the services keep."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch_services.console.reading import Found, Reading
from midwatch_services.drift import store as drift
from midwatch_services.kill_switch import store as switch
from midwatch_services.kill_switch import view
from midwatch_services.kill_switch.cases import case_store
from midwatch_services.kill_switch.view import AgentView, InstanceView
from midwatch_services.logger import alert_pages
from midwatch_services.logger.alert_pages import Unattended
from midwatch_services.reviewer_sampler import store as reviews

__all__ = ["Unattended"]
_SECONDS = 1.0  # less than after which a live part asks for the second time
_MOST_CASES = 1_000


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
class Waiting:
    """What waits for a person. Each part is a Found of its own: one that is missing is told as missing."""

    alerts: Found[Alerts]
    cases: Found[list[dict[str, Any]]]
    reviews: Found[dict[str, int]]
    unconfirmed: Found[list[tuple[str, str]]]  # instances of halts, each (agent, instance)

    def alerts_of(self, agent: str | None) -> list[Unattended]:
        """Alerts that want somebody, and that nobody has taken on."""
        found = self.alerts | Alerts()
        return found.every if agent is None else found.by_agent.get(agent, [])

    def cases_of(self, agent: str | None) -> list[dict[str, Any]]:
        return [one for one in self.cases | [] if agent in (None, one["agent"])]

    def reviews_of(self, agent: str | None) -> int:
        return sum(count for name, count in (self.reviews | {}).items() if agent in (None, name))

    def unconfirmed_of(self, agent: str | None) -> list[tuple[str, str]]:
        return [one for one in self.unconfirmed | [] if agent in (None, one[0])]

    @property
    def missing(self) -> Iterable[Found[Any]]:
        """What could not be read, a service once; one that has not begun yet has nothing that waits."""
        found = {one.service: one for one in (self.alerts, self.cases, self.reviews, self.unconfirmed) if not one.ok}
        return [one for one in found.values() if one.problem != "none_yet"]


async def waiting(reading: Reading) -> Waiting:
    """Asked of each service by itself."""
    alerts, cases, backlog, unconfirmed = await asyncio.gather(
        reading.read(
            subjects.LOGGER, _open_alerts, keep=("alerts",), seconds=_SECONDS,
        ),
        reading.read(
            subjects.KILL_SWITCH, lambda conn: case_store.list_cases(conn, mode="live", limit=_MOST_CASES),
            keep=("cases",), seconds=_SECONDS,
        ),
        reading.read(subjects.REVIEWER_SAMPLER, reviews.backlog, keep=("backlog",), seconds=_SECONDS),
        reading.read(subjects.KILL_SWITCH, _unconfirmed, keep=("unconfirmed",), seconds=_SECONDS),
    )  # fmt: skip
    return Waiting(alerts, cases, backlog, unconfirmed)


def _open_alerts(conn: Connection) -> Alerts:
    found = Alerts(alert_pages.unattended(conn))
    for one in found.every:
        found.by_agent.setdefault(one.agent, []).append(one)
    return found


def _unconfirmed(conn: Connection) -> list[tuple[str, str]]:
    found = Counter(
        who
        for halt in switch.open_halts(conn)
        if halt.phase == "unconfirmed"
        for who, state in halt.states.items()
        if state in ("unconfirmed", "lapsed")
    )
    return sorted(found)


async def findings(reading: Reading, agent: str) -> Found[list[dict[str, Any]]]:
    """What changed in an agent, by the latest day that is judged."""
    return await reading.read(
        subjects.DRIFT, lambda conn: drift.read_findings(conn, agent), keep=("findings", agent), seconds=30, stale=300
    )
