"""Judging runs, one at a time: by keys, or by plain buttons without scripts."""

import asyncio
from contextlib import suppress
from typing import Any, cast, get_args
from uuid import uuid4

import structlog
from msgspec.structs import replace
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from midwatch.contracts.reviews import ReviewJudged, Verdict
from midwatch.contracts.runs import Mode
from midwatch.contracts.subjects import is_agent_name
from midwatch.errors import MidwatchError, Temporary
from midwatch_services.console import reviewing, run_story
from midwatch_services.console.access import origin
from midwatch_services.console.access.roles import Role
from midwatch_services.console.live import Topic
from midwatch_services.console.others import evals, reviews
from midwatch_services.console.others import runs as log_of
from midwatch_services.console.others.reviews import Desk, Taken
from midwatch_services.console.reading import Found
from midwatch_services.console.reviewing import Said, Wish
from midwatch_services.console.routes import action, attempt, once, page, record, record_standing
from midwatch_services.console.run_story import goes_on
from midwatch_services.console.view import back, console_of, number_of, query, render, session_of

GOES_ON = "goes_on"
_DONE, _IN_VAIN = "review.judged", "review.not_judged"
_KEYED = 9  # reasons that have a key of their own
_PARTS = 99_999  # of a run
_CLAIM_LIMIT, _RUN_LIMIT = 64, 128  # characters
log = structlog.get_logger("midwatch.console")
RunFound = Found[log_of.Told | None]


@page(role=Role.VIEWER)
async def review(request: Request) -> Response:
    """The next run to judge, held from now on; who only looks is led to the queue."""
    wish, number = reviewing.wish_of(request.query_params), number_of(request, _PARTS)
    if not session_of(request).role.may(Role.REVIEWER):
        return RedirectResponse("/review/queue" + (f"?{query(agent=wish.agent)}" if wish.agent else ""), 303)
    if not origin.is_ours(request.headers, console_of(request).hosts):  # a link elsewhere is to take nothing by itself
        return render(request, "review_none.html", state="elsewhere", reason="", wish=wish)
    try:
        held, found, is_new = await _take_ended(request, wish, number)
    except MidwatchError as error:
        log.warning("no_run_to_judge", why=str(error))
        return render(request, "review_none.html", state=reviews.trouble(error), reason=str(error), wish=wish)
    if found is None:
        return render(request, "review_none.html", state=_state(held, wish), reason=held.reason, wish=wish)
    if is_new:
        await _record_taken(request, held)
    return await _shown(request, held, found, wish)


async def _record_taken(request: Request, held: Taken) -> None:
    """Raises Temporary where it cannot be recorded; then the run is given back."""
    try:
        await record(request, "review.taken", agent=held.agent, target=held.run_id)
    except Temporary:
        await _release(request, held)
        raise


def _state(held: Taken, wish: Wish) -> str:
    return GOES_ON if held.reason == GOES_ON else "not_now" if wish.run else "skipped" if wish.skip else "nothing"


async def _take_ended(request: Request, wish: Wish, number: int) -> tuple[Taken, RunFound | None, bool]:
    """A run that is over, and whether it was not held before; those that still go on are left for later. Raises
    MidwatchError."""
    desk, console = _desk(request), console_of(request)
    passed = list(wish.skip)
    while True:
        claim = uuid4().hex
        held = await desk.take(agent=wish.agent, run_id=wish.run, skip=passed, claim=claim)
        if not held.run_id:
            return held, None, False
        found = await _logged(request, held.agent, held.run_id, number)
        if not (found.ok and found.value and goes_on(found.value.run, console.now())):
            return held, found, held.claim == claim
        await desk.release(held)
        if wish.run:
            return Taken(reason=GOES_ON), None, False
        passed.append(held.run_id)


async def _logged(request: Request, agent: str, run_id: str, number: int = 1) -> RunFound:
    return await console_of(request).reading.read(log_of.SERVICE, lambda conn: log_of.tell(conn, agent, run_id, number))


async def _shown(
    request: Request, held: Taken, found: RunFound, wish: Wish, *, said: Said | None = None, problem: str = ""
) -> Response:
    """The page of one run. Nothing that others said of it is read for it."""
    console, by, told = console_of(request), _desk(request).by, found.value
    far, causes = await asyncio.gather(
        console.reading.read(reviews.SERVICE, lambda conn: reviews.progress(conn, by, held.agent, console.now())),
        console.reading.read(reviews.SERVICE, lambda conn: reviews.causes_of(conn, held.agent, held.run_id)),
    )
    whole = request.query_params.get("all", "")
    steps = await asyncio.to_thread(
        run_story.steps, told.events, told.run["started_at"], console.cards.get(held.agent).tools, first=told.first,
        alerts=told.alerts, before=told.before, is_last=told.first + len(told.events) >= told.count, whole=whole,
    ) if told else []  # fmt: skip
    is_erased = bool(told and told.events and all("erased" in one for one in told.events))
    return render(
        request, "review.html", status=503 if problem else 200, held=held, left=reviews.left(held), found=found,
        told=told, steps=steps, clock=run_story.clock(steps), wish=wish,
        said=said or Said(), problem=problem, causes=causes | [],
        is_erased=is_erased, keyed=_KEYED,
        far=reviewing.far(*far.value) if far.value else None, began=console.now().timestamp(),
        whole=whole,
        pages=-(-told.count // log_of.EVENTS) if told else 1, page=told.first // log_of.EVENTS + 1 if told else 1,
        scope={"agent": held.agent},
    )  # fmt: skip


@action(role=Role.REVIEWER)
async def judge(request: Request) -> Response:
    """Somebody says what a run was worth, and is given the next one."""
    form, console = await request.form(), console_of(request)
    wish, said, asked = reviewing.next_of(form), reviewing.said_of(form, console.now()), _held(form)
    if not said.verdict:
        raise HTTPException(400)
    where = await console.reading.read(
        reviews.SERVICE, lambda conn: reviews.standing(conn, _desk(request).by, asked.agent, asked.run_id)
    )
    what = {"agent": asked.agent, "target": asked.run_id, "deed": asked.claim}
    if where.value in ("erased", "judged"):
        if where.value == "judged":  # this form may have been sent before
            await record_standing(request, _DONE, _IN_VAIN, **what, why=where.value)
        else:
            await record(request, _IN_VAIN, **what | {"deed": ""}, why=where.value)
        return back(request, wish.address(), f"review.told.{where.value}", run=asked.run_id)
    held = await _still_held(request, asked)
    try:
        async with attempt(request, _DONE, _IN_VAIN, **what):
            words = (said.verdict, *said.reasons, said.corrected, said.note)
            await reviews.say(
                _desk(request), _judged(held, asked, said, _desk(request).by), once(request, asked.claim, *words)
            )
    except Temporary as error:
        found = await _logged(request, asked.agent, asked.run_id)
        again = held if held.run_id else asked
        reasons = [*dict.fromkeys([*console.cards.get(asked.agent).review.reasons, *said.reasons])]
        return await _shown(request, replace(again, reasons=reasons), found, wish, said=said, problem=str(error))
    if said.makes_case:
        return await _with_case(request, asked, said, wish)
    told = f"review.told.{said.verdict}" if held.run_id else "review.told.may_not_count"
    return back(request, wish.address(), told, run=asked.run_id)


async def _with_case(request: Request, asked: Taken, said: Said, wish: Wish) -> Response:
    """What was said is kept by now: whatever becomes of the case, that is told."""
    console, by, made = console_of(request), _desk(request).by, None
    try:
        made = await asyncio.to_thread(evals.case_of, console.settings, asked.agent, asked.run_id, said.corrected, by)
        await record(request, "eval.case_made", agent=asked.agent, target=made.case.name, run=asked.run_id)
        path = await asyncio.to_thread(evals.keep_case, made)
    except (MidwatchError, OSError) as error:
        with suppress(Temporary):
            name = made.case.name if made else ""
            await record(request, "eval.case_not_made", agent=asked.agent, target=name, run=asked.run_id)
        return back(request, wish.address(), "review.told.no_case", run=asked.run_id, why=str(error)[:300])
    return back(request, wish.address(), "review.told.case", run=asked.run_id, path=str(path))


async def _still_held(request: Request, asked: Taken) -> Taken:
    """The run as this person holds it now, taken anew where its time has run out and nobody else took it. Without a
    `run_id` somebody else has; where nobody answers it is as the form says, since the sampler judges by the time at
    which a thing was said."""
    desk = _desk(request)
    try:
        held = await desk.take(agent=asked.agent, run_id=asked.run_id, claim=asked.claim)
        return held if held.run_id else await desk.take(agent=asked.agent, run_id=asked.run_id)
    except MidwatchError as error:
        log.warning("judged_without_the_sampler", why=str(error))
        return asked


def _judged(held: Taken, asked: Taken, said: Said, by: str) -> ReviewJudged:
    return ReviewJudged(
        run_id=asked.run_id, agent=asked.agent, verdict=cast("Verdict", said.verdict), by=by, note=said.note,
        ticket=held.ticket, mode=held.mode, claim=held.claim if held.run_id else "", reasons=list(said.reasons),
        corrected=said.corrected, seconds=said.seconds,
    )  # fmt: skip


@action(role=Role.REVIEWER)
async def skip(request: Request) -> Response:
    """Left for later, or for somebody else."""
    form = await request.form()
    wish, held = reviewing.next_of(form), _held(form)
    await record(request, "review.skipped", agent=held.agent, target=held.run_id)
    await _release(request, held)
    return back(request, wish.address(skip=[held.run_id]), "review.told.skipped", run=held.run_id)


@action(role=Role.REVIEWER)
async def leave(request: Request) -> Response:
    """Gives the run back and goes."""
    held = _held(await request.form())
    await record(request, "review.released", agent=held.agent, target=held.run_id)
    await _release(request, held)
    return back(request, "/review/queue", "review.told.released", run=held.run_id)


@action(role=Role.REVIEWER)
async def extend(request: Request) -> Response:
    """Holds it for longer, asked for by a page that somebody looks at."""
    held = _held(await request.form())
    request.state.recorded = True  # by whoever took the run: the page asks for this by itself, every few minutes
    try:
        longer = await _desk(request).extend(held)
    except MidwatchError as error:
        return render(request, "review_hold.html", held=held, until=None, seconds=0, lost="", silent=str(error))
    lost = "" if longer.run_id else longer.reason
    return render(
        request, "review_hold.html", held=held, until=longer.until, seconds=reviews.left(longer), lost=lost, silent=""
    )


async def _release(request: Request, held: Taken) -> None:
    try:
        await _desk(request).release(held)
    except MidwatchError as error:
        log.warning("not_released", run=held.run_id, why=str(error))  # its time runs out by itself


def _desk(request: Request) -> Desk:
    return reviews.desk(console_of(request).nc, session_of(request).by)


def _held(form: FormData) -> Taken:
    """What the form says that one holds; whether that is so, the sampler knows."""
    words: dict[str, Any] = {name: str(form.get(name, "")) for name in ("claim", "agent", "run", "mode", "ticket")}
    claim, run_id = words["claim"], words["run"]
    is_claim = 0 < len(claim) <= _CLAIM_LIMIT and claim.replace("-", "").replace("_", "").isalnum() and claim.isascii()
    if not (is_agent_name(words["agent"]) and 0 < len(run_id) <= _RUN_LIMIT and is_claim):
        raise HTTPException(400)
    mode = cast("Mode", words["mode"] if words["mode"] in get_args(Mode) else "live")
    return Taken(claim=claim, agent=words["agent"], run_id=run_id, mode=mode, ticket=words["ticket"] or None)


LINK = "/review"
TOPICS = {"reviews": Topic(("midwatch.review.{agent}.>",))}
ROUTES = [
    Route("/review", review),
    Route("/review/judge", judge, methods=["POST"]),
    Route("/review/skip", skip, methods=["POST"]),
    Route("/review/leave", leave, methods=["POST"]),
    Route("/review/extend", extend, methods=["POST"]),
]
