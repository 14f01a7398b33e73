"""The first page: what the shop's agents did on a day, in ten minutes."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from midwatch.contracts.reviews import DigestWritten
from midwatch.contracts.subjects import FLEET, is_agent_name
from midwatch_services.console import digest_text, figures, filters, readers
from midwatch_services.console.access.roles import Role
from midwatch_services.console.figures import Alike, Sum
from midwatch_services.console.others import contacts, days, digest, fleet, ready, reviews
from midwatch_services.console.others.fleet import Fleet, Unattended, Unconfirmed, Waiting
from midwatch_services.console.reading import Found
from midwatch_services.console.routes import action, page, record
from midwatch_services.console.run_story import STILL
from midwatch_services.console.view import back, console_of, is_part, query, render, session_of

_NEAR = 0.8  # of a budget, from which on it is told


@page(role=Role.VIEWER)
async def today(request: Request) -> Response:
    """What needs somebody and what was spent, as of now; and the digest of a day: yesterday's, unless another is asked
    for."""
    console = console_of(request)
    day, agent = _day(request, request.query_params.get("day")), _agent(request.query_params.get("agent"))
    (found, read_by), listed, is_used, spent, need = await asyncio.gather(
        _digest(request, day, agent),
        console.reading.read(digest.SERVICE, lambda conn: digest.days(conn, agent), keep=("days", agent), seconds=10),
        days.is_used(console.reading),
        _spent(request, agent),
        _need(request, agent),
    )
    told = digest_text.parse(found.value) if found.value else None
    names = {card.agent for card in console.cards.all()}
    is_hidden = any(one.problem in ("down", "slow") for one in (found, listed, is_used))
    is_old = bool(told or listed.value or is_used.value or is_hidden)
    return render(
        request, "today.html", day=day, agent=agent, found=found, told=told, days=listed | [], fleet_name=FLEET,
        newest=_newest(request), at=console.settings.digest_at, zone=console.settings.digest_zone, spent=spent,
        need=need, is_new=not is_old, has_card=bool(names), agents=sorted(names | {agent} - {FLEET}),
        scope={"agent": agent} if agent != FLEET else None, read_by=read_by, me=session_of(request).by,
    )  # fmt: skip


@page(role=Role.VIEWER)
async def needs(request: Request) -> Response:
    """What needs somebody, alone: the part of the page that follows what happens."""
    agent = _agent(request.query_params.get("agent"))
    template = "parts/needs.html" if is_part(request) else "needs.html"
    return render(request, template, agent=agent, need=await _need(request, agent), fleet_name=FLEET)


@dataclass(frozen=True, slots=True)
class Need:
    """What waits for somebody. `agent`: None for the whole shop. `elsewhere`: runs that wait and that who looks cannot
    judge now. `untold`: what to type where nobody is told of alerts, for those who may set up who is."""

    agent: str | None
    waits: Waiting
    fleet: Found[Fleet]
    elsewhere: int
    untold: str

    @property
    def alerts(self) -> list[Unattended]:
        return self.waits.alerts_of(self.agent)

    @property
    def cases(self) -> int:
        return self.waits.cases_of(self.agent)

    @property
    def oldest(self) -> datetime | None:
        return self.waits.oldest_of(self.agent)

    @property
    def reviews(self) -> int:
        return max(0, self.waits.reviews_of(self.agent) - self.elsewhere)

    @property
    def in_hand(self) -> int:
        return self.waits.in_hand_of(self.agent)

    @property
    def unconfirmed(self) -> list[Unconfirmed]:
        return self.waits.unconfirmed_of(self.agent)

    @property
    def halted(self) -> list[tuple[str, dict[str, Any]]]:
        """The agents that stand still, each with the halt that has it do so and `proof`, where that is told."""
        return [
            (name, halt | {"proof": fleet.proof_path(halt["key"], None)})
            for name, view in (self.fleet | Fleet()).agents.items()
            if self.agent in (None, name) and (halt := view.whole_halt)
        ]

    @property
    def is_nothing(self) -> bool:
        """Whether nothing that was read needs anybody."""
        return not (self.alerts or self.cases or self.reviews or self.unconfirmed or self.halted)

    @property
    def is_known(self) -> bool:
        """Whether all of it was read."""
        return self.fleet.ok and not list(self.waits.missing)


async def _need(request: Request, agent: str) -> Need:
    console, session, of = console_of(request), session_of(request), None if agent == FLEET else agent
    by, now = reviews.name_of(session.by), console.now()
    waits, known, kept, untold = await asyncio.gather(
        fleet.waiting(console.reading, console.nc, now), fleet.fleet(console.reading, console.nc, console.js),
        ready.not_now(console.reading, by, now, keep=True, still=STILL), contacts.mend(console.settings),
    )  # fmt: skip
    elsewhere = sum(of in (None, name) for name, _ in kept | {})
    return Need(of, waits, known, elsewhere, untold if session.role.may(Role.OPERATOR) else "")


@dataclass(frozen=True, slots=True)
class Spent:
    """Money of today so far and of yesterday. `budget`: what a day may cost, summed over the agents that have one;
    `part` of it is gone, on the day of budgets, which is UTC's (`differs`: another than today). `near`: the agents that
    have used most of theirs, with the part that is gone. `unsure`: those with a budget of whose cost on that day a part
    is not known."""

    found: Found[dict[date, Any]]
    today: Sum
    yesterday: Sum
    shadow: Sum
    differs: bool
    budget: Decimal | None
    part: float | None
    without: int
    near: list[tuple[str, float]]
    unsure: set[str]


async def _spent(request: Request, agent: str) -> Spent:
    console = console_of(request)
    now, zone = console.now(), console.settings.digest_zone
    found, of_budgets = await asyncio.gather(
        days.sums(console.reading, now, zone, 2), days.sums(console.reading, now, "UTC", 1)
    )
    rows, counted = list((found | {}).values()) or [[], []], next(iter((of_budgets | {}).values()), [])
    cards = [card for card in console.cards.all() if agent in (FLEET, card.agent)]
    limits = {card.agent: limit for card in cards if (limit := figures.limit(card.budget.day)) is not None}

    def live(of: str | None, mode: str = "live") -> Callable[[Alike], bool]:
        return lambda row: row.mode == mode and of in (None, row.agent)

    of = None if agent == FLEET else agent
    spent = {name: figures.summed(counted, live(name)) for name in limits}
    budget = sum(limits.values(), Decimal(0))
    gone = [(name, figures.gone(spent[name].cost, limit)) for name, limit in limits.items()]
    near = sorted((one for one in gone if one[1] >= _NEAR), key=lambda one: -one[1])
    return Spent(
        found=found if of_budgets.ok else of_budgets, today=figures.summed(rows[-1], live(of)),
        yesterday=figures.summed(rows[0], live(of)), shadow=figures.summed(rows[-1], live(of, "shadow")),
        differs=not figures.is_same_day(now, zone, "UTC"), budget=budget if limits else None,
        part=figures.gone(sum(one.cost for one in spent.values()), budget) if limits else None,
        without=len(cards) - len(limits), near=near, unsure={name for name, one in spent.items() if one.unpriced},
    )  # fmt: skip


@action(role=Role.VIEWER)
async def read(request: Request) -> Response:
    """Somebody says that they have read a digest that is there."""
    form = await request.form()
    day, agent = _day(request, str(form.get("day", ""))), _agent(str(form.get("agent", "")))
    found, _ = await _digest(request, day, agent)
    if found.value is None:
        raise HTTPException(404 if found.problem in ("", "none_yet") else 503)
    await record(request, readers.READ, agent=agent, target=day.isoformat())
    shown = query(day=day if day != _newest(request) else None, agent=agent if agent != FLEET else None)
    return back(request, f"/?{shown}" if shown else "/", "today.recorded", day=filters.day(day))


async def _digest(
    request: Request, day: date, agent: str
) -> tuple[Found[DigestWritten | None], Sequence[readers.Reader]]:
    """The digest of a day, and who has read it, as far as the bus says so."""
    console = console_of(request)
    found = await console.reading.read(digest.SERVICE, lambda conn: digest.of_day(conn, day, agent))
    if not found.value:
        return found, ()
    since = figures.bounds(day, console.settings.digest_zone)[1].astimezone(UTC)
    read_by = await console.reading.ask(lambda: readers.of_digest(console.nc, agent, day, since))
    return found, read_by | ()


def _newest(request: Request) -> date:
    console = console_of(request)
    now: datetime = console.now().astimezone(ZoneInfo(console.settings.digest_zone))
    return now.date() - timedelta(days=1)


def _day(request: Request, text: str | None) -> date:
    if not text:
        return _newest(request)
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise HTTPException(404) from None
    if not 1971 <= day.year <= 9998:
        raise HTTPException(404)
    return day


def _agent(text: str | None) -> str:
    if not text or text == FLEET:
        return FLEET
    if not is_agent_name(text):
        raise HTTPException(404)
    return text


LINK = "/"
ROUTES = [Route("/", today), Route("/today/needs", needs), Route("/today/read", read, methods=["POST"])]
