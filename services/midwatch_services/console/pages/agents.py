"""The agents, one line each, and one agent with its card, its history and its versions."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from midwatch.contracts.control import Card
from midwatch.contracts.subjects import is_agent_name
from midwatch_services.console import card_words, figures, live
from midwatch_services.console.access.roles import Role
from midwatch_services.console.figures import Alike, Sum
from midwatch_services.console.others import cards, days, fleet
from midwatch_services.console.others.cards import Version
from midwatch_services.console.others.days import Counts, Day
from midwatch_services.console.others.fleet import Fleet, Waiting
from midwatch_services.console.reading import Found
from midwatch_services.console.routes import page
from midwatch_services.console.stopping import seen
from midwatch_services.console.view import console_of, is_part, render

SHOWN, LONG = 14, 28  # days


@dataclass(frozen=True, slots=True)
class Line:
    """An agent in one line: today's figures, those of each day, and what waits. `counted`: today as budgets count it,
    a UTC day. `raised`, `waited`: alerts and reviews of each day, None where they could not be read."""

    agent: str
    card: Card | None
    mode: str
    today: Sum
    by_day: dict[date, Sum]
    counted: Sum
    alerts: int
    reviews: int
    raised: list[float | None] | None = None
    waited: list[float | None] | None = None

    @property
    def budget(self) -> Decimal | None:
        """What it may cost in a day; in shadow nothing is held against one."""
        return figures.limit(self.card.budget.day) if self.card and self.mode == "live" else None

    @property
    def spent(self) -> float | None:
        """The part of the budget that is gone."""
        return None if self.budget is None else figures.gone(self.counted.cost, self.budget)

    def daily(self, name: str) -> list[float | None]:
        """A figure of each day."""
        return [getattr(one, name) for one in self.by_day.values()]


@dataclass(frozen=True, slots=True)
class Daily:
    """What is known of each of the days `shown`. `by_day`: `sums` apart for each agent; `counted`: today as budgets
    count it; `differs`: that is another day than today's."""

    shown: int
    sums: Found[dict[date, Day]]
    by_day: dict[date, dict[str, Day]]
    counted: dict[str, Day]
    raised: Found[Counts]
    waited: Found[Counts]
    differs: bool


@page(role=Role.VIEWER)
async def agents(request: Request) -> Response:
    """A line each."""
    console = console_of(request)
    before = request.query_params.get("seen") if is_part(request) else None
    if before and before == _seen(await fleet.fleet(console.reading, console.nc, console.js)):
        return Response(status_code=204)
    known, waits, daily = await asyncio.gather(
        fleet.fleet(console.reading, console.nc, console.js),
        fleet.waiting(console.reading, console.nc, console.now()),
        _daily(request, SHOWN),
    )
    sums = daily.sums
    by_name = {card.agent: card for card in console.cards.all()}
    names = sorted({*by_name, *(known | Fleet()).agents, *_names(sums | {})})
    lines = [_line(name, by_name.get(name), daily, known | Fleet(), waits) for name in names]
    values: dict[str, Any] = {
        "lines": lines, "sums": sums, "known": known, "fleet": known | Fleet(), "waits": waits, "shown": SHOWN,
        "sparkline": figures.sparkline, "knows": _knows(daily, waits), "zone": console.settings.digest_zone,
        "differs": daily.differs, "seen": _seen(known), "again": live.AGAIN,
    }  # fmt: skip
    return render(request, "parts/agents.html" if is_part(request) else "agents.html", **values)


def _seen(known: Found[Fleet]) -> str:
    """What a line shows of the switch, which changes without an event as well."""
    found = known | Fleet()
    return seen(
        known.problem, [(name, found.stage(name), found.halted(name), found.armed(name)) for name in found.agents]
    )


def _knows(daily: Daily, waits: Waiting) -> dict[str, bool]:
    """Which cells of a line could be read."""
    sums = daily.sums.ok or daily.sums.problem == "none_yet"
    return {"figures": sums, "alerts": waits.knows("alerts"), "reviews": waits.knows("reviews")}


def _names(sums: dict[date, Day]) -> set[str]:
    return {row.agent for day in sums.values() for row, _ in day}


async def _daily(request: Request, shown: int) -> Daily:
    console = console_of(request)
    reading, now, zone = console.reading, console.now(), console.settings.digest_zone
    sums, counted, raised, waited = await asyncio.gather(
        days.sums(reading, now, zone, shown), days.sums(reading, now, "UTC", 1),
        days.alerts(reading, now, zone, LONG), days.backlogs(reading, now, zone, LONG),
    )  # fmt: skip
    of_budgets = next(iter(_by_agent(counted | {}).values()), {})
    differs = not figures.is_same_day(now, zone, "UTC")
    by_day = _by_agent(sums | {})
    if not counted.ok:
        sums = replace(sums, value=None, problem=counted.problem)
    return Daily(shown, sums, by_day, of_budgets, raised, waited, differs)


def _by_agent(sums: dict[date, Day]) -> dict[date, dict[str, Day]]:
    """The same apart for each agent, so that a line looks at its own alone."""
    found: dict[date, dict[str, Day]] = {}
    for day, rows in sums.items():
        of_day: dict[str, Day] = {}
        found[day] = of_day
        for row in rows:
            of_day.setdefault(row[0].agent, []).append(row)
    return found


def _line(name: str, card: Card | None, daily: Daily, known: Fleet, waits: Waiting) -> Line:
    mode = "shadow" if known.stage(name) == "shadow" else "live"

    def of(rows: Mapping[str, Day]) -> Sum:
        return figures.summed(rows.get(name, []), lambda row: row.mode == mode)

    by_day = {day: of(rows) for day, rows in daily.by_day.items()}
    today = next(reversed(by_day.values()), Sum())
    alerts, reviews = len(waits.alerts_of(name)), waits.reviews_of(name)
    raised, waited = (_of_days(found, name, daily.shown) for found in (daily.raised, daily.waited))
    return Line(name, card, mode, today, by_day, of(daily.counted), alerts, reviews, raised, waited)


def _of_days(found: Found[Counts], agent: str, count: int) -> list[float | None] | None:
    known = found.problem in ("", "none_yet")
    return (found | {}).get(agent, [0] * count)[-count:] if known else None


@page(role=Role.VIEWER)
async def agent(request: Request) -> Response:
    """Its card in words and what became of it, its figures by version, what changed in it."""
    console, name = console_of(request), request.path_params["agent"]
    if not is_agent_name(name):
        raise HTTPException(404)
    known, waits, daily, kept, changed, last = await asyncio.gather(
        fleet.fleet(console.reading, console.nc, console.js),
        fleet.waiting(console.reading, console.nc, console.now()),
        _daily(request, LONG),
        cards.versions(console.reading, console.js, name),
        fleet.findings(console.reading, name),
        days.last_run(console.reading, name),
    )
    sums, versions = daily.sums, kept | []
    readable = next((one for one in versions if one.card), None)
    line = _line(name, _in_force(versions), daily, known | Fleet(), waits)
    newest, is_logged = last | (None, False)
    is_known = name in (known | Fleet()).agents or is_logged or last.problem not in ("", "none_yet")
    if kept.ok and not kept.value and known.ok and not is_known:
        raise HTTPException(404)
    return render(
        request, "agent.html", scope={"agent": name}, name=name, line=line, sums=sums, known=known,
        fleet=known | Fleet(), waits=waits, kept=kept, history=_history(kept), changed=changed,
        knows=_knows(daily, waits), readable=readable,
        said=card_words.lines(readable.card) if readable and readable.card else [],
        between=_between(request, versions), zone=console.settings.digest_zone, differs=daily.differs,
        versions=_versions(name, line.mode, sums), shown=LONG,
        sparkline=figures.sparkline, newest=newest,
    )  # fmt: skip


def _versions(name: str, mode: str, sums: Found[dict[date, Day]]) -> list[tuple[str, Sum, date]]:
    """Each version's figures and the last day it ran, the newest first."""
    found: dict[str, tuple[list[tuple[Alike, float | None]], date]] = {}
    for day, rows in (sums | {}).items():
        for row, took in rows:
            if row.agent == name and row.mode == mode:
                before = found[row.version][0] if row.version in found else []
                found[row.version] = ([*before, (row, took)], day)
    listed = [(version, figures.summed(rows), last) for version, (rows, last) in found.items()]
    return sorted(listed, key=lambda one: (one[2], one[0]), reverse=True)


def _in_force(versions: Sequence[Version]) -> Card | None:
    """The newest card that can be read, unless it was removed since."""
    found = next((one for one in versions if one.card or one.wrong == "removed"), None)
    return found.card if found else None


@dataclass(frozen=True, slots=True)
class Between:
    """Two versions of a card, and what became of the one on the way to the other."""

    first: Version
    last: Version
    changes: list[card_words.Change]


def _between(request: Request, versions: Sequence[Version]) -> Between | None:
    asked = [request.query_params.get(name, "") for name in ("from", "to")]
    if not any(asked):
        return None
    by_revision = {str(one.revision): one for one in versions if one.card}
    first, last = (by_revision.get(text) for text in asked)
    if versions and (first is None or last is None):
        raise HTTPException(404)
    if first is None or last is None or first.card is None or last.card is None:
        return None
    return Between(first, last, card_words.changes(first.card, last.card))


def _history(kept: Found[list[cards.Version]]) -> Sequence[tuple[cards.Version, list[card_words.Change] | None, Any]]:
    """Each version with what it changed; None for the first that is kept."""
    some = kept | []
    found = []
    for place, one in enumerate(some):
        before = next((other.card for other in some[place + 1 :] if other.card), None)
        changes = card_words.changes(before, one.card) if before and one.card else None
        found.append((one, changes, place == len(some) - 1))
    return found


LINK = "/agents"
ROUTES = [Route("/agents", agents), Route("/agents/{agent}", agent)]
