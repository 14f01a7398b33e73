"""The agents, one line each, and one agent with its card, its history and its versions."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from midwatch.contracts.control import Card
from midwatch.contracts.subjects import is_agent_name
from midwatch_services.console import card_words, figures
from midwatch_services.console.access.roles import Role
from midwatch_services.console.figures import Alike, Sum
from midwatch_services.console.others import cards, days, fleet
from midwatch_services.console.others.days import Day
from midwatch_services.console.others.fleet import Fleet, Waiting
from midwatch_services.console.reading import Found
from midwatch_services.console.routes import page
from midwatch_services.console.view import console_of, is_part, render

SHOWN, LONG = 14, 28  # days


@dataclass(frozen=True, slots=True)
class Line:
    """An agent in one line: today's figures, those of each day, and what waits."""

    agent: str
    card: Card | None
    mode: str
    today: Sum
    by_day: dict[date, Sum]
    alerts: int
    reviews: int

    @property
    def budget(self) -> Decimal | None:
        """What it may cost in a day."""
        found = self.card.budget.day if self.card else None
        return None if found is None else Decimal(found)

    @property
    def spent(self) -> float | None:
        """The part of the budget that is gone."""
        return self.today.cost / float(self.budget) if self.budget else None

    def daily(self, name: str) -> list[float | None]:
        """A figure of each day."""
        return [getattr(one, name) for one in self.by_day.values()]


@page(role=Role.VIEWER)
async def agents(request: Request) -> Response:
    """A line each."""
    console = console_of(request)
    sums, known, waits = await asyncio.gather(
        days.sums(console.reading, console.now(), console.settings.digest_zone, SHOWN),
        fleet.fleet(console.reading, console.nc, console.js),
        fleet.waiting(console.reading),
    )
    by_name = {card.agent: card for card in console.cards.all()}
    names = sorted({*by_name, *(known | Fleet()).agents, *_names(sums | {})})
    grouped = _by_agent(sums | {})
    lines = [_line(name, by_name.get(name), grouped, known | Fleet(), waits) for name in names]
    values: dict[str, Any] = {
        "lines": lines, "sums": sums, "known": known, "fleet": known | Fleet(), "waits": waits, "shown": SHOWN,
        "sparkline": figures.sparkline,
    }  # fmt: skip
    return render(request, "parts/agents.html" if is_part(request) else "agents.html", **values)


def _names(sums: dict[date, Day]) -> set[str]:
    return {row.agent for day in sums.values() for row, _ in day}


def _by_agent(sums: dict[date, Day]) -> dict[date, dict[str, Day]]:
    """The same apart for each agent, so that a line looks at its own alone."""
    found: dict[date, dict[str, Day]] = {}
    for day, rows in sums.items():
        of_day: dict[str, Day] = {}
        found[day] = of_day
        for row in rows:
            of_day.setdefault(row[0].agent, []).append(row)
    return found


def _line(name: str, card: Card | None, sums: dict[date, dict[str, Day]], known: Fleet, waits: Waiting) -> Line:
    mode = "shadow" if known.stage(name) == "shadow" else "live"
    by_day = {day: figures.summed(of_day.get(name, []), lambda row: row.mode == mode) for day, of_day in sums.items()}
    today = next(reversed(by_day.values()), Sum())
    alerts, reviews = len(waits.alerts_of(name)), waits.reviews_of(name)
    return Line(name, card, mode, today, by_day, alerts, reviews)


@page(role=Role.VIEWER)
async def agent(request: Request) -> Response:
    """Its card in words and what became of it, its figures by version, what changed in it."""
    console, name = console_of(request), request.path_params["agent"]
    if not is_agent_name(name):
        raise HTTPException(404)
    sums, known, waits, kept, changed = await asyncio.gather(
        days.sums(console.reading, console.now(), console.settings.digest_zone, LONG),
        fleet.fleet(console.reading, console.nc, console.js),
        fleet.waiting(console.reading),
        cards.versions(console.reading, console.js, name),
        fleet.findings(console.reading, name),
    )
    newest = next((one.card for one in kept | []), None)
    line = _line(name, newest, _by_agent(sums | {}), known | Fleet(), waits)
    is_known = name in (known | Fleet()).agents or any(one.runs for one in line.by_day.values())
    if kept.ok and not kept.value and sums.ok and known.ok and not is_known:
        raise HTTPException(404)
    return render(
        request, "agent.html", scope={"agent": name}, name=name, line=line, sums=sums, known=known,
        fleet=known | Fleet(), waits=waits, kept=kept, history=_history(kept), changed=changed,
        said=card_words.lines(newest) if newest else [], versions=_versions(name, line.mode, sums), shown=LONG,
        sparkline=figures.sparkline,
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
