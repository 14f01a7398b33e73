"""What waits for reviewers, how well they agree, and what they corrected."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from functools import partial

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from midwatch.contracts.subjects import FLEET, is_agent_name
from midwatch_services.console import texts
from midwatch_services.console.access.roles import Role
from midwatch_services.console.filters import day
from midwatch_services.console.others import ready, reviews
from midwatch_services.console.routes import page, record
from midwatch_services.console.run_story import STILL
from midwatch_services.console.view import console_of, number_of, render, session_of

PAGE = 50  # runs of a list
_WEEKS = 12  # that one may choose from
_FURTHEST = 200  # pages


@page(role=Role.VIEWER)
async def queue(request: Request) -> Response:
    """What waits, and when it is due; no verdict of what is not settled."""
    console, agent, number = console_of(request), _agent(request), number_of(request, _FURTHEST)
    now = console.now()
    found = await console.reading.read(
        reviews.SERVICE, lambda conn: reviews.queue(conn, agent, now, (number - 1) * PAGE, PAGE)
    )
    names, kept = await asyncio.gather(
        console.reading.read(reviews.SERVICE, reviews.agents, keep=("review-agents",), seconds=10),
        ready.not_now(console.reading, reviews.name_of(session_of(request).by), now, still=STILL),
    )
    not_now = {key: one for key, one in (kept | {}).items() if agent in (None, key[0])}
    if found.value:
        found = replace(found, value=replace(found.value, not_now=not_now))
    rows = [
        (row, reviews.why(row), _is_old(request, row), not_now.get((row.agent, row.run_id)))
        for row in (found.value.rows if found.value else [])
    ]
    return render(
        request, "review_queue_list.html" if request.query_params.get("part") else "review_queue.html", found=found,
        rows=rows, agent=agent, agents=names | [], number=number, today=now.date().isoformat(),
        scope={"agent": agent} if agent else None,
    )  # fmt: skip


def _is_old(request: Request, row: reviews.Waits) -> bool:
    console = console_of(request)
    return (console.now() - row.since).total_seconds() > console.cards.get(row.agent).review.age


@page(role=Role.REVIEWER)
async def agreement(request: Request) -> Response:
    """How well reviewers agree beyond chance, and how often runs fail."""
    found = await console_of(request).reading.read(reviews.SERVICE, reviews.agreements, keep=("agreement",), seconds=10)
    return render(request, "review_agreement.html", found=found, all=found | [], least=reviews.LEAST)


@page(role=Role.VIEWER)
async def feedback(request: Request) -> Response:
    """What people corrected in a week."""
    console, agent, week = console_of(request), _agent(request), _week(request)
    found = await console.reading.read(
        reviews.SERVICE, partial(_notes, settings=console.settings, week=week, agent=agent),
        keep=("feedback", week, agent), seconds=10,
    )  # fmt: skip
    names = await console.reading.read(reviews.SERVICE, reviews.judged_agents, keep=("judged-agents",), seconds=10)
    weeks = [reviews.week_of(console.now() - timedelta(weeks=back)) for back in range(_WEEKS)]
    return render(
        request, "review_feedback.html", found=found, notes=found | [], week=week, weeks=weeks, agent=agent,
        agents=names | [], named={one: _named(one) for one in (*weeks, week)},
    )  # fmt: skip


@page(role=Role.VIEWER)
async def markdown(request: Request) -> Response:
    """The same as a file. It is recorded, for it holds what customers said, and leaves the house."""
    console, agent, week = console_of(request), _agent(request), _week(request)
    found = await console.reading.read(
        reviews.SERVICE, partial(_notes, settings=console.settings, week=week, agent=agent)
    )
    if not found.ok:
        raise HTTPException(503)
    await record(request, "feedback.exported", agent=agent or FLEET, target=week)
    name = f"corrections-{agent + '-' if agent else ''}{week}.md"
    return Response(
        reviews.markdown(found | [], week), media_type="text/markdown; charset=utf-8",
        headers={"content-disposition": f'attachment; filename="{name}"'},
    )  # fmt: skip


def _notes(conn: reviews.Connection, *, settings: reviews.Settings, week: str, agent: str | None) -> list[reviews.Note]:
    return reviews.notes(conn, settings, week, [agent] if agent else [])


def _named(week: str) -> str:
    first, after = (one.date() for one in reviews.bounds(week))
    return texts.load()("review.feedback.span", first=day(first, "date"), last=day(after - timedelta(days=1), "date"))


def _agent(request: Request) -> str | None:
    agent = request.query_params.get("agent") or None
    if agent is not None and not is_agent_name(agent):
        raise HTTPException(404)
    return agent


def _week(request: Request) -> str:
    week = request.query_params.get("week") or reviews.last_week(console_of(request).now())
    try:
        reviews.bounds(week)
    except (ValueError, OverflowError):
        raise HTTPException(404) from None
    return week


ROUTES = [
    Route("/review/queue", queue),
    Route("/review/agreement", agreement),
    Route("/review/feedback", feedback),
    Route("/review/feedback.md", markdown),
]
