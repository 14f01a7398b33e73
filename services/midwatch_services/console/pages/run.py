"""One run as a story, beside another one, and as a dossier."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from midwatch.contracts import subjects
from midwatch.contracts.control import ToolRule
from midwatch.contracts.subjects import is_agent_name
from midwatch_services.console import compare, run_story
from midwatch_services.console.access.roles import Role
from midwatch_services.console.addresses import run_path
from midwatch_services.console.others import dossier
from midwatch_services.console.others import runs as log_of
from midwatch_services.console.others.runs import Told
from midwatch_services.console.reading import SEARCHES, Found
from midwatch_services.console.routes import page, record
from midwatch_services.console.search import Place, parse, unpacked
from midwatch_services.console.view import console_of, is_part, render, session_of

JUDGED = 2_000  # events of a run that are judged anew
COMPARED = 400  # events of a run that are held against another's
_COMPARED_OF = 50_000  # characters of the data of each
_MARKED_WITHIN = 1.0  # seconds for what differs in texts


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The runs before and after in the list from which one came; empty where there is none."""

    back: str
    newer: str = ""
    older: str = ""


@page(role=Role.VIEWER)
async def run(request: Request) -> Response:
    """What was said, what was done, what it cost, and what others made of it."""
    console, (agent, run_id) = console_of(request), _named(request)
    place = _number(request.query_params.get("page", "1"))
    found, review, case = await asyncio.gather(
        console.reading.read(log_of.SERVICE, lambda conn: log_of.tell(conn, agent, run_id, place)),
        console.reading.read(subjects.REVIEWER_SAMPLER, lambda conn: log_of.settled(conn, agent, run_id)),
        console.reading.read(subjects.KILL_SWITCH, lambda conn: log_of.case_of(conn, agent, run_id)),
    )
    if found.ok and found.value is None:
        raise HTTPException(404)
    told: Told | None = found.value
    if told is None:
        return render(request, "run.html", found=found, told=None, agent=agent, run_id=run_id, scope={"agent": agent})
    whole = request.query_params.get("all", "")
    steps = await asyncio.to_thread(
        run_story.steps, told.events, told.run["started_at"], console.cards.get(agent).tools, first=told.first,
        alerts=told.alerts, before=told.before, is_last=told.first + len(told.events) >= told.count, whole=whole,
    )  # fmt: skip
    versions = await console.reading.read(
        log_of.SERVICE, lambda conn: log_of.versions(conn, agent), keep=("versions", agent), seconds=30, stale=300
    )
    return render(
        request, "run.html", found=found, told=told, run=told.run, agent=agent, run_id=run_id, steps=steps,
        here=run_path(agent, run_id), pages=_pages(told), whole=whole, case=case, review=review,
        clock=run_story.clock(steps), along=run_story.along(steps), chart=run_story.chart(steps),
        uses=run_story.uses(steps),
        hand_off=next((one for one in reversed(told.events) if one["event"] == "handed_off"), None),
        near=await _neighbours(request, told.run), kept=_kept(request), scope=_scope(told.run),
        versions=[one for one in versions | [] if one != told.run["version"]],
    )  # fmt: skip


def _scope(run: dict[str, Any]) -> dict[str, str]:
    return {"agent": run["agent"]} | ({"run": run["run_id"]} if run["ended_at"] is None else {})


@dataclass(frozen=True, slots=True)
class Pages:
    """Where in a long run one is."""

    number: int
    count: int


def _pages(told: Told) -> Pages:
    return Pages(told.first // log_of.EVENTS + 1, max(1, -(-told.count // log_of.EVENTS)))


def _kept(request: Request) -> str:
    """The list that one came from, as links within a run carry it on."""
    given = request.query_params
    return f"in={quote(given['in'])}&from={quote(given.get('from', ''))}" if "in" in given else ""


async def _neighbours(request: Request, run: dict[str, Any]) -> Neighbours | None:
    """The runs beside this one in the search it was opened from; None where it was opened by itself."""
    console, given = console_of(request), request.query_params
    if "in" not in given:
        return None
    asked = given["in"]
    search = parse(dict(parse_qsl(asked)), console.now(), console.settings.digest_zone)
    if search.wrong:
        return None
    found = await console.reading.read(
        log_of.SERVICE, lambda conn: log_of.beside(conn, search, log_of.place_of(run)), lane=SEARCHES
    )
    newer, older = found | (None, None)
    begin = given.get("from", "") if unpacked(given.get("from", "")) else ""
    back = f"/runs?{search.address(before=begin)}".rstrip("?")
    return Neighbours(back, _link(newer, asked, begin), _link(older, asked, begin))


def _link(place: Place | None, asked: str, begin: str) -> str:
    if place is None:
        return ""
    _, run_id, agent = place
    return f"{run_path(agent, run_id)}?in={quote(asked)}" + (f"&from={quote(begin)}" if begin else "")


@page(role=Role.VIEWER)
async def rules(request: Request) -> Response:
    """The rules that judged it, with figures, by the card of then."""
    console, (agent, run_id) = console_of(request), _named(request)
    found = await console.reading.read(log_of.SERVICE, lambda conn: log_of.tell(conn, agent, run_id, 1, 1))
    if found.ok and found.value is None:
        raise HTTPException(404)
    told = found.value
    card = await dossier.card_of(console.reading, console.js, told.run) if told else None
    judged: Any = None
    if told and card and card.value:
        run, in_force = told.run, card.value
        judged = await console.reading.read(
            log_of.SERVICE, lambda conn: dossier.rules(conn, run, in_force, JUDGED), keep=("rules", agent, run_id),
            seconds=5,
        )  # fmt: skip
    template = "parts/rules.html" if is_part(request) else "rules.html"
    return render(
        request, template, found=found, card=card, judged=judged, agent=agent, run_id=run_id, most=JUDGED,
        is_cut=bool(told and told.count > JUDGED), here=run_path(agent, run_id), scope={"agent": agent},
    )  # fmt: skip


@page(role=Role.VIEWER)
async def as_dossier(request: Request) -> Response:
    """The dossier, to be kept: a file of its own, which the browser saves and does not run."""
    console, (agent, run_id) = console_of(request), _named(request)
    found = await console.reading.read(log_of.SERVICE, lambda conn: log_of.tell(conn, agent, run_id, 1, 1))
    if found.ok and found.value is None:
        raise HTTPException(404)
    is_data = request.query_params.get("as") == "json"
    await record(request, "dossier.made", agent=agent, target=run_id, form="json" if is_data else "html")
    make = dossier.data if is_data else dossier.page
    text = await make(console.settings, agent, run_id, session_of(request).by)
    safe = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_") else "_" for letter in run_id)
    name = f"why-{safe[:80]}.{'json' if is_data else 'html'}"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(text, media_type="application/json" if is_data else "text/html", headers=headers)


@page(role=Role.VIEWER)
async def beside(request: Request) -> Response:
    """Two runs, step by step."""
    console, given = console_of(request), request.query_params
    a = _pair(given.get("a", ""))
    if a is None:
        raise HTTPException(404)
    if version := given.get("version"):
        newest = await console.reading.read(log_of.SERVICE, lambda conn: log_of.newest_of(conn, a[0], version))
        other = f"{a[0]}/{newest.value}" if newest.value else ""
        return RedirectResponse(f"/compare?a={quote(given['a'])}&b={quote(other)}", 303)
    b = _pair(given.get("b", "") if "/" in given.get("b", "") else f"{a[0]}/{given.get('b', '')}")
    one, other_one = await asyncio.gather(_whole(request, a), _whole(request, b))
    pairs = []
    if one.value and other_one.value:
        tools = console.cards.get(a[0]).tools
        left, right = one.value, other_one.value
        pairs = await asyncio.to_thread(_aligned, left, right, tools)
    return render(
        request, "compare.html", a=a, b=b, left=one, right=other_one, pairs=pairs, most=COMPARED,
        differing=sum(pair.state != "same" for pair in pairs),
        is_cut=any(told.value and told.value.count > COMPARED for told in (one, other_one)),
    )  # fmt: skip


def _aligned(left: Told, right: Told, tools: Mapping[str, ToolRule]) -> list[compare.Pair]:
    steps = [
        run_story.every(told.events[:COMPARED], told.run["started_at"], tools, most=_COMPARED_OF)
        for told in (left, right)
    ]
    until = time.monotonic() + _MARKED_WITHIN
    return compare.align(steps[0], steps[1], lambda: time.monotonic() > until)


async def _whole(request: Request, named: tuple[str, str] | None) -> Found[Told]:
    if named is None:
        return Found(log_of.SERVICE)
    found: Found[Any] = await console_of(request).reading.read(
        log_of.SERVICE, lambda conn: log_of.tell(conn, *named, 1, COMPARED)
    )
    return found


def _pair(text: str) -> tuple[str, str] | None:
    agent, _, run_id = text.strip().removeprefix("/runs/").partition("/")
    return (agent, run_id) if is_agent_name(agent) and run_id and "\0" not in run_id else None


def _named(request: Request) -> tuple[str, str]:
    agent, run_id = request.path_params["agent"], request.path_params["run_id"]
    if not is_agent_name(agent) or "\0" in run_id:
        raise HTTPException(404)
    return agent, run_id


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and int(text)):
        raise HTTPException(404)
    return int(text)


ROUTES = [
    Route("/compare", beside),
    Route("/runs/{agent}/{run_id:path}/dossier", as_dossier),
    Route("/runs/{agent}/{run_id:path}/rules", rules),
    Route("/runs/{agent}/{run_id:path}", run),
]
