"""Stop: halt the fleet, an agent, a tool or a run in two steps, and see who has confirmed. Needs the bus alone."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from midwatch.contracts import subjects
from midwatch.errors import MidwatchError, Temporary
from midwatch.runtime.switchboard import Scope, Switchboard, standing_of
from midwatch_services.console import live, stopping
from midwatch_services.console.access.roles import Role
from midwatch_services.console.others import switch
from midwatch_services.console.others.containment import Watches
from midwatch_services.console.routes import action, fail, page, record, tried_before
from midwatch_services.console.view import back, console_of, environment, query, render, session_of

_STANDS_FOR = 0.5  # seconds for which how things stand is kept, however many pages ask again
_STRAYS_FOR = 2.0  # seconds for which what the database says of runs in flight is kept
_RECORD_WITHIN = 4.0  # seconds
_AT_ONCE = 0.5  # seconds: nothing that is only good to know holds up a halt for longer
_FORM = ("what", "agent", "tool", "run", "reason", "fallback", "expires")

log = structlog.get_logger("midwatch.console")


@page(role=Role.VIEWER)
async def choose(request: Request) -> Response:
    """How things stand, and what is to be stopped, with what the page before was about chosen already."""
    return await _choose(request, dict(request.query_params))


async def _choose(request: Request, given: Mapping[str, str], wrong: str = "", status: int = 200) -> Response:
    state = await state_of(request)
    known = given.get("agent") if subjects.is_agent_name(given.get("agent") or "") else ""
    kind = given.get("what") or (
        "run" if given.get("run") else "tool" if given.get("tool") else "agent" if known else "fleet"
    )
    cards = {card.agent: sorted(card.tools) for card in console_of(request).cards.all()}
    agents = sorted({*state.agents, *cards, *([known] if known else [])})
    return render(
        request, "stop.html", status=status, state=state, given=_fields(given), kind=kind, agents=agents, wrong=wrong,
        tools=sorted({tool for some in cards.values() for tool in some}), limit=stopping.REASON_LIMIT,
        may=session_of(request).role.may(Role.OPERATOR), expiries=list(stopping.EXPIRIES), fields_of=stopping.fields_of,
        seen=switch.seen(state), again=live.AGAIN, write_off=switch.write_off,
    )  # fmt: skip


@page(role=Role.VIEWER)
async def standing(request: Request) -> Response:
    """The part that says how things stand; what asks again and again is given what was read a moment ago."""
    may, before = session_of(request).role.may(Role.OPERATOR), request.query_params.get("seen")
    state = await _kept_state(request) if before else await state_of(request)
    if before and before == switch.seen(state):
        return Response(status_code=204)
    return render(
        request, "stop_state.html", state=state, may=may, fields_of=stopping.fields_of, seen=switch.seen(state),
        again=live.AGAIN, write_off=switch.write_off,
    )  # fmt: skip


@page(role=Role.OPERATOR)
async def confirm(request: Request) -> Response:
    """Says in one sentence what would stop, and how much is in flight."""
    given = dict(request.query_params)
    try:
        scope = scope_of(given)
    except Wrong as error:
        return await _choose(request, given, error.name, 422)
    if wrong := _wrong(given):
        return await _choose(request, given, wrong, 422)
    state, strays = await asyncio.gather(state_of(request), strays_of(request))
    met = stopping.effect(scope, state.instances, strays)
    cards = console_of(request).cards.all()
    has_card = scope.agent is None or any(card.agent == scope.agent for card in cards)
    already = next((one for one in state.halts if one.is_of == scope), None)
    return render(
        request, "stop_confirm.html", given=_fields(given), kind=stopping.kind_of(scope), at=scope, met=met,
        state=state, has_card=has_card, already=already, scope=stopping.fields_of(scope),
        takers=stopping.takers(scope, given.get("fallback", ""), cards),
    )  # fmt: skip


@action(role=Role.OPERATOR)
async def halt(request: Request) -> Response:
    """Halts. Recording it waits until it stands: nothing may keep a halt from being written."""
    pressed = asyncio.get_running_loop().time()
    given = {name: str(value) for name, value in (await request.form()).items()}
    try:
        scope = scope_of(given)
    except Wrong as error:
        return await _choose(request, given, error.name, 422)
    if wrong := _wrong(given):
        return await _choose(request, given, wrong, 422)
    until = stopping.EXPIRIES[given.get("expires", "")]
    how = {
        "reason": given["reason"], "by": session_of(request).by, "fallback": given.get("fallback") or None,
        "expires_at": console_of(request).now() + until if until else None,
    }  # fmt: skip
    try:
        bus_answers(request)
        before = await _standing(request, scope)
        written = await watches_of(request).halt(scope, pressed, **how)
    except switch.MISSED as error:
        return not_done(request, "halt", scope, error)
    done = {"epoch": written.revision, "changed": written.changed}
    kept = await _record(request, "halt", scope, deed=f"halt {written.revision}", reason=given["reason"], **done)
    other = written.record.by if not written.changed else before
    name = "stop.not_recorded" if not kept else "stop.halted_before" if other else "stop.halted"
    to = f"/stop/proof?{query(**stopping.fields_of(scope))}"
    if other == how["by"] and not written.changed and kept:
        name = "stop.halted_twice"
    return back(request, to, name, by=other or "")


@page(role=Role.OPERATOR)
async def resume(request: Request) -> Response:
    """Says whose halt would be lifted, what it would start, and what stays halted."""
    try:
        scope = scope_of(dict(request.query_params))
    except Wrong:
        raise HTTPException(404) from None
    return await _resume(request, scope)


async def _resume(request: Request, scope: Scope, wrong: str = "", status: int = 200) -> Response:
    state = await state_of(request)
    try:
        entry = await Switchboard(console_of(request).js).read(scope.key) if state.known else None
    except switch.MISSED:
        entry = None
    stands = standing_of(entry, scope) if entry else None
    unreadable = bool(entry and scope.target and entry.map() is None)
    met = stopping.effect(scope, state.instances, None)
    others = [one for one in state.halts if one.is_of != scope and scope.agent in (None, one.scope.agent)]
    if scope.agent is not None:
        others += [one for one in state.halts if one.scope.agent is None]
    return render(
        request, "stop_resume.html", status=status, at=scope, kind=stopping.kind_of(scope), met=met, state=state,
        stands=stands, known=entry is not None, halted=_is_halted(stands, scope), mark=stopping.mark(stands),
        others=others, wrong=wrong, unreadable=unreadable, scope=stopping.fields_of(scope),
        given=stopping.fields_of(scope), limit=stopping.REASON_LIMIT, epoch=entry.revision if entry else 0,
    )  # fmt: skip


@action(role=Role.OPERATOR)
async def resumed(request: Request) -> Response:
    """Lifts the halt that its page showed, and no other. It waits until that is recorded."""
    given = {name: str(value) for name, value in (await request.form()).items()}
    try:
        scope = scope_of(given)
    except Wrong:
        raise HTTPException(404) from None
    reason = given.get("reason", "").strip()
    if not reason:
        return await _resume(request, scope, "reason", 422)
    turned_away: list[str] = []

    def only(stands: Any) -> bool:
        turned_away[:] = [] if stopping.mark(stands) == given.get("seen") else [stands.by if stands else ""]
        return not turned_away

    try:
        bus_answers(request)
        board = Switchboard(console_of(request).js)
        entry = await board.read(scope.key)
        stands = standing_of(entry, scope)
        if scope.target and entry.map() is None:
            return await _resume(request, scope, "unreadable", 409)
        if _is_halted(stands, scope) and not only(stands):
            return await _resume(request, scope, "conflict", 409)
        what = "resume" if _is_halted(stands, scope) else "not_resumed"
        # What runs may be what this form has started before; what stands halted is started anew.
        seen = entry.revision if what == "resume" else given.get("epoch", "")
        deed = f"resume {seen} {reason}"
        at: dict[str, Any] = {"agent": scope.agent or subjects.FLEET, "target": _target(scope)}
        tried = tried_before(request, **at, deed=deed)
        if stands and stands.by == session_of(request).by and tried:
            what = "resume"  # it arrived, though nobody confirmed it
        if not await _record(request, what, scope, deed=deed, reason=reason, epoch=entry.revision):
            return not_done(request, "unrecorded", scope)
        in_vain = {**at, "deed": deed, "tried": tried, "reason": reason[: stopping.REASON_LIMIT]}
        try:
            written = await board.resume(scope, only=only, reason=reason, by=session_of(request).by)
        except switch.MISSED:
            await _not_resumed(request, "unanswered", in_vain)
            raise
    except switch.MISSED as error:
        return not_done(request, "resume", scope, error)
    by_another = not written.changed and written.record.by != session_of(request).by
    if what == "resume" and (turned_away or by_another):
        await _not_resumed(request, "overtaken", in_vain)
    if turned_away:
        return await _resume(request, scope, "conflict", 409)
    name = "stop.resumed" if written.changed else "stop.ran_already"
    return back(request, "/stop", name, name=name_of(scope), by=written.record.by or "")


async def _not_resumed(request: Request, why: str, deed: dict[str, Any]) -> None:
    """Records that a start came to nothing; where even that is not kept, so be it."""
    with suppress(*switch.MISSED):
        await fail(request, "switch.not_resumed", why=why, **deed)


# What they share


class Wrong(MidwatchError):
    """{name}."""

    @property
    def name(self) -> str:
        return str(self.fields["name"])


def scope_of(given: Mapping[str, str]) -> Scope:
    """What is to be stopped. Raises Wrong with the name of the text that says what is missing."""
    kind = given.get("what", "")
    agent, tool, run = (given.get(name, "").strip() for name in ("agent", "tool", "run"))
    if kind not in stopping.KINDS:
        raise Wrong(name="what")
    if kind == "fleet":
        return Scope()
    if not subjects.is_agent_name(agent):
        raise Wrong(name="agent")
    if kind == "agent":
        return Scope(agent)
    target = tool if kind == "tool" else run
    if not 0 < len(target) <= stopping.NAME_LIMIT:
        raise Wrong(name=kind)
    return Scope(agent, tool=target) if kind == "tool" else Scope(agent, run_id=target)


def name_of(scope: Scope) -> str:
    """What is stopped, in words."""
    words: Any = environment().globals["t"]
    return str(words(f"stop.name.{stopping.kind_of(scope)}", agent=scope.agent or "", target=scope.target or ""))


def _fields(given: Mapping[str, str]) -> dict[str, str]:
    """What a form of ours holds, each of its fields."""
    return {name: given.get(name, "").strip() for name in _FORM}


def _wrong(given: Mapping[str, str]) -> str:
    if not given.get("reason", "").strip():
        return "reason"
    if not stopping.is_fallback(given.get("fallback", "")):
        return "fallback"
    return "" if given.get("expires", "") in stopping.EXPIRIES else "expires"


def _is_halted(stands: Any, scope: Scope) -> bool:
    return stands.state == "halted" if stands is not None else scope.target is None


def watches_of(request: Request) -> Watches:
    """The halts that this console follows."""
    console, kept = console_of(request), request.app.state
    if not hasattr(kept, "watches"):
        kept.watches = Watches(console.nc, console.js, console.tasks)
    watches: Watches = kept.watches
    return watches


async def state_of(request: Request) -> switch.State:
    """How things stand."""
    console = console_of(request)
    return await switch.state(console.nc, console.js)


async def _kept_state(request: Request) -> switch.State:
    found = await console_of(request).reading.ask(lambda: state_of(request), keep=("standing",), seconds=_STANDS_FOR)
    return found | switch.State(known=False)


async def strays_of(request: Request) -> dict[str, list[str]] | None:
    """Runs of agents that send no presence; None where their database does not answer at once."""
    reading = console_of(request).reading
    try:
        async with asyncio.timeout(1):
            found = await reading.read(switch.SERVICE, switch.strays, keep=("strays",), seconds=_STRAYS_FOR)
    except TimeoutError:
        return None
    return found.value if found.ok else None


async def _standing(request: Request, scope: Scope) -> str:
    """Who had halted it before; empty where nobody had, or where that cannot be read."""
    try:
        async with asyncio.timeout(_AT_ONCE):
            stands = standing_of(await Switchboard(console_of(request).js).read(scope.key), scope)
    except switch.MISSED:
        return ""
    return stands.by if stands is not None and stands.state == "halted" else ""


def bus_answers(request: Request) -> None:
    """Raises Temporary while there is no connection: what is written then might arrive long after it was meant."""
    if not console_of(request).nc.is_connected:
        raise Temporary("the console has no connection to NATS")


def _target(scope: Scope) -> str:
    """What a record names as halted or started."""
    return scope.key if scope.target is None else f"{scope.key} {scope.target}"


async def _record(request: Request, what: str, scope: Scope, *, deed: str, reason: str, **more: object) -> bool:
    """Records what is done; the switch itself says by whom as well. Returns whether the record is kept."""
    agent = scope.agent or subjects.FLEET
    target = _target(scope)
    detail = {"reason": reason[: stopping.REASON_LIMIT], **more}
    try:
        async with asyncio.timeout(_RECORD_WITHIN):
            await record(request, f"switch.{what}", agent=agent, target=target, deed=deed, **detail)
    except (Temporary, TimeoutError) as error:
        log.error("not_recorded", what=what, target=target, by=session_of(request).by, why=str(error))
        request.state.recorded = True  # in the switch's own record, which a halt is
        return False
    return True


def not_done(request: Request, what: str, scope: Scope, error: Exception | None = None) -> Response:
    why = "" if error is None else str(error) or type(error).__name__
    log.error("switch_not_written", what=what, key=scope.key, why=why)
    return render(
        request, "stop_failed.html", status=503, what=what, at=scope, kind=stopping.kind_of(scope),
        scope=stopping.fields_of(scope), why=why,
    )  # fmt: skip


LINK = "/stop"
ROUTES = [
    Route("/stop", choose),
    Route("/stop/state", standing),
    Route("/stop/confirm", confirm),
    Route("/stop/halt", halt, methods=["POST"]),
    Route("/stop/resume", resume),
    Route("/stop/resumed", resumed, methods=["POST"]),
]
