"""Drills: what the last ones measured, when the next is due, and one begun here."""

import asyncio

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from midwatch.contracts.subjects import is_agent_name
from midwatch_services.console import stopping
from midwatch_services.console.access.roles import Role
from midwatch_services.console.live import Topic
from midwatch_services.console.others import drills
from midwatch_services.console.routes import action, page, record
from midwatch_services.console.view import back, console_of, form_of, render, session_of

_SHOWN = 100  # drills
_KEPT = 20  # drills begun here that are remembered


@page(role=Role.VIEWER)
async def listed(request: Request) -> Response:
    """The drills that were, and those that are due."""
    console = console_of(request)
    now = console.now()
    past = await drills.past(console.nc, now)
    cards = sorted(console.cards.all(), key=lambda card: card.agent)
    due = [drills.due(card, past, now) for card in cards] if past is not None else []
    return render(
        request, "drills_list.html" if request.query_params.get("part") else "drills.html", past=past, due=due,
        shown=_SHOWN, may=session_of(request).role.may(Role.OPERATOR), limits=drills.LIMITS,
        running=[one for one in _courses(request).values() if not one.over],
    )  # fmt: skip


@page(role=Role.OPERATOR)
async def plan(request: Request) -> Response:
    """Says what a drill of an agent would do, and does nothing."""
    agent = request.query_params.get("agent", "")
    if not is_agent_name(agent):
        raise HTTPException(404)
    console = console_of(request)
    ready = await drills.ready(console.nc, console.js, agent)
    return render(
        request, "drill_plan.html", agent=agent, ready=ready, shape=drills.SHAPE, limits=drills.LIMITS,
        scope={"agent": agent},
    )  # fmt: skip


@action(role=Role.OPERATOR)
async def begin(request: Request) -> Response:
    """Begins a drill. One at a time: pressing twice shows the one that runs."""
    agent, form = str((await request.form()).get("agent", "")), form_of(request)
    if not is_agent_name(agent):
        raise HTTPException(404)
    courses, console = _courses(request), console_of(request)
    async with _one_at_a_time(request):
        mine = (one for one in courses.values() if form and (one.form, one.agent) == (form, agent))
        begun = next((one for one in mine if one.is_same), None)
        running = begun or next((one for one in courses.values() if not one.over), None)
        if running is not None:
            request.state.recorded = True  # what runs was recorded when it began
            said = "" if running is begun else "drills.runs_already"
            return back(request, f"/drills/{running.drill_id}", said, agent=running.agent)
        course = drills.new(agent, session_of(request).by, form)
        await record(request, drills.BEGAN, agent=agent, target=agent, drill=course.drill_id)
        task = drills.begin(console.settings, course, lambda: console.tasks.discard(task))
        courses[course.drill_id] = course
    console.tasks.add(task)
    for old in list(courses)[: max(0, len(courses) - _KEPT)]:
        del courses[old]
    return back(request, f"/drills/{course.drill_id}")


@page(role=Role.VIEWER)
async def one(request: Request) -> Response:
    """One drill: how far it is, or what it found; of one that this console does not run, what the bus says."""
    drill_id, console, is_part = request.path_params["drill"], console_of(request), "part" in request.query_params
    course, lost = _courses(request).get(drill_id), None
    result = course.result if course else None
    if course is None:
        past = await drills.past(console.nc, console.now())
        result = next((found for found in past or () if found.drill_id == drill_id), None)
        lost = None if result else await drills.lost(console.nc, drill_id)
    # A part that answers with an error leaves what stood there, which is that it runs.
    if lost and not is_part and lost.state in ("silent", "unknown"):
        raise HTTPException(404) if lost.state == "unknown" else HTTPException(503, "the bus does not answer")
    shown = stopping.seen(course, result, lost)
    if is_part and request.query_params.get("seen") == shown:
        return Response(status_code=204)
    agent = next((known.agent for known in (course, result, lost) if known), "")
    return render(
        request, "drill_part.html" if is_part else "drill.html", drill_id=drill_id, course=course, result=result,
        lost=lost, may=session_of(request).role.may(Role.OPERATOR), limits=drills.LIMITS, agent=agent,
        scope={"agent": agent}, seen=shown,
        waited=drills.waited(result) if result else [], sign_off=drills.sign_off_command(agent, drill_id),
    )  # fmt: skip


def _one_at_a_time(request: Request) -> asyncio.Lock:
    if not hasattr(request.app.state, "beginning"):
        request.app.state.beginning = asyncio.Lock()
    lock: asyncio.Lock = request.app.state.beginning
    return lock


def _courses(request: Request) -> dict[str, drills.Course]:
    kept = request.app.state
    if not hasattr(kept, "courses"):
        kept.courses = {}
    courses: dict[str, drills.Course] = kept.courses
    return courses


LINK = "/drills"
ROUTES = [
    Route("/drills", listed),
    Route("/drills/plan", plan),
    Route("/drills/begin", begin, methods=["POST"]),
    Route("/drills/{drill}", one),
]
TOPICS = {"drills": Topic(("midwatch.switch.{agent}.drilled",))}
