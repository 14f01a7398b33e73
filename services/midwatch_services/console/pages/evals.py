"""Eval sets: the cases that a new version is held against, and what the gate said."""

import asyncio
import time
from dataclasses import dataclass

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from midwatch.contracts.subjects import is_agent_name
from midwatch.errors import MidwatchError
from midwatch_services.console import eval_rows
from midwatch_services.console.access.roles import Role
from midwatch_services.console.live import Topic
from midwatch_services.console.others import evals, reviews
from midwatch_services.console.others.evals import Case, EvalSet, Said
from midwatch_services.console.reading import WITHIN
from midwatch_services.console.routes import action, fail, page, record
from midwatch_services.console.view import back, console_of, number_of, render, session_of

PAGE = 100  # cases of a list
_VERDICTS = 20  # of the gate, the newest
_KEEP = 5.0  # seconds for which what the gate said is not asked for again
log = structlog.get_logger("midwatch.console")
_said: dict[tuple[int, str], tuple[float, list[Said]]] = {}


@dataclass(frozen=True, slots=True)
class Line:
    """An agent of the list."""

    agent: str
    cases: int
    gating: int
    broken: int
    last: Said | None
    is_heard: bool


@page(role=Role.VIEWER)
async def listed(request: Request) -> Response:
    """A line an agent."""
    console = console_of(request)
    names = await asyncio.to_thread(evals.agents, console.settings)
    names = sorted({*names, *(card.agent for card in console.cards.all())})
    found = await asyncio.gather(*(_line(request, name) for name in names))
    return render(
        request, "evals.html", lines=[line for line, _ in found if line], folder=str(console.settings.evals),
        is_heard=console.nc.is_connected and all(is_heard for _, is_heard in found),
    )  # fmt: skip


async def _line(request: Request, agent: str) -> tuple[Line | None, bool]:
    """An agent's line, if it has one, and whether the bus said what there is."""
    found = await _set(request, agent)
    said = await _history(request, agent)
    if found is None and not said:
        return None, said is not None
    cases = [case for case in found.cases if not case.twin_of] if found else []
    gating = sum(evals.gate_of(case)[0] for case in cases)
    left_out = len(found.broken) + len(found.erased) if found else 0
    last, is_heard = said[-1] if said else None, said is not None
    return Line(agent, len(cases), gating, left_out, last, is_heard), is_heard


@page(role=Role.VIEWER)
async def of_agent(request: Request) -> Response:
    """An agent's cases, what got worse first, and what the gate said of its versions."""
    console, agent, number = console_of(request), _agent(request), number_of(request, PAGE)
    every, found, hidden = await _sets(request, agent)
    last = await asyncio.to_thread(evals.last, console.settings, agent)
    said = await _history(request, agent)
    if found is None and not said and not console.cards.get(agent).owner:
        raise HTTPException(404)
    fell = said[-1].data.regressions if said else []
    worse = evals.named(fell, every, hidden)
    results = {one.case: one for one in last.results.results} if last.results else {}
    rows = eval_rows.rows(found.cases, evals.gate_of, results, worse) if found else []
    return render(
        request, "evals_agent.html", agent=agent, found=found, last=last, said=list(reversed(said or []))[:_VERDICTS],
        is_heard=said is not None, is_whole=hidden is not None, rows=rows[(number - 1) * PAGE : number * PAGE],
        count=len(rows), number=number, size=PAGE, gating=sum(row.gates for row in rows),
        folder=str(console.settings.evals), scope={"agent": agent}, worse=worse, unnamed=len(fell) - len(worse),
        gone=[name for name in worse if name not in {row.case.name for row in rows}],
    )  # fmt: skip


@page(role=Role.VIEWER)
async def of_case(request: Request) -> Response:
    """One case: what is said, and what is asked of the agent; not who agreed."""
    console, agent = console_of(request), _agent(request)
    found, case = await _case(request, agent)
    last = await asyncio.to_thread(evals.last, console.settings, agent)
    results = {one.case: one for one in last.results.results} if last.results else {}
    result = results.get(case.name)
    does, why = evals.gate_of(case)
    session = session_of(request)
    return render(
        request, "evals_case.html", agent=agent, case=case, criteria=list(evals.criteria(case.expect)), gates=does,
        why=why, twins=[one for one in found.cases if one.twin_of == case.name], last=last, result=result,
        is_current=bool(result and result.hash == case.hash), results=results,
        may_agree=session.role.may(Role.REVIEWER) and evals.may_agree(case), is_agreed=evals.agrees(case, session.by),
        whole=request.query_params.get("all", ""), scope={"agent": agent},
    )  # fmt: skip


@action(role=Role.REVIEWER)
async def agree(request: Request) -> Response:
    """Somebody has read the criteria and says that they are right."""
    console, agent, form = console_of(request), _agent(request), await request.form()
    _, case = await _case(request, agent)
    here = f"/evals/{agent}/{case.name}"
    by = session_of(request).by
    why_not = "changed" if form.get("criteria") != case.expect.hash else "before" if evals.agrees(case, by) else ""
    if why_not:
        same = "agreed" if why_not == "before" else ""  # this form may have been sent before
        await record(request, "eval.not_agreed", agent=agent, target=case.name, deed=same, why=why_not)
        return back(request, here, f"evals.told.{why_not}")
    await record(request, "eval.agreed", agent=agent, target=case.name, deed="agreed")
    try:
        now = await asyncio.to_thread(evals.agree, case, by, console.now())
    except MidwatchError as error:
        why_not = "before" if isinstance(error, evals.AgreedBefore) else "failed"
        await fail(request, "eval.not_agreed", agent=agent, target=case.name, deed="agreed", why=why_not)
        return back(request, here, f"evals.told.{why_not}", why=str(error)[:300])
    does, why = evals.gate_of(now)
    return back(request, here, "evals.told.gates" if does else f"evals.told.not_yet_{why}")


async def _set(request: Request, agent: str) -> EvalSet | None:
    """An agent's cases that are shown."""
    return (await _sets(request, agent))[1]


async def _sets(request: Request, agent: str) -> tuple[EvalSet | None, EvalSet | None, set[str] | None]:
    """An agent's cases; without those of which this person may not know, and those of erased runs; and of which runs
    the former are, None where that, or what was erased, cannot be read."""
    console, hidden = console_of(request), await _hidden(request, agent)
    every = await asyncio.to_thread(evals.eval_set, console.settings, agent)
    if every is None:
        return None, None, hidden
    found = evals.without(every, hidden)
    if not (runs := evals.runs_of(found)):
        return every, found, hidden
    erased = await console.reading.read(evals.LOG, lambda conn: evals.of_runs(conn, runs))
    if not erased.ok and erased.problem != "none_yet":
        return every, evals.without(every, None), None
    return every, evals.without_erased(found, erased | set()), hidden


async def _hidden(request: Request, agent: str) -> set[str] | None:
    """Runs of which this person may not know whether there is a case, None where that cannot be read: that one was made
    tells that somebody failed the run, so before its verdict stands only who failed it sees that case."""
    console, by = console_of(request), reviews.name_of(session_of(request).by)
    unsettled = await console.reading.read(reviews.SERVICE, lambda conn: reviews.unsettled(conn, agent, by))
    return (unsettled | set[str]()) if unsettled.ok or unsettled.problem == "none_yet" else None


async def _case(request: Request, agent: str) -> tuple[EvalSet, Case]:
    found = await _set(request, agent)
    name = request.path_params["case"]
    case = next((one for one in found.cases if one.name == name), None) if found else None
    if found is None or case is None:
        lines = found.erased if found else []
        raise HTTPException(404, next((line for line in lines if f"`{name}` is left out" in line), None))
    return found, case


async def _history(request: Request, agent: str) -> list[Said] | None:
    """What the gate said of the agent, the oldest first; None where the bus does not answer."""
    nc = console_of(request).nc
    name, now = (id(nc), agent), time.monotonic()
    if (kept := _said.get(name)) and kept[0] > now:
        return kept[1]
    try:
        if not nc.is_connected:
            return None
        async with asyncio.timeout(WITHIN):
            found: list[Said] = await evals.history(nc, agent)
    except Exception as error:  # whatever it is, the rest of the page goes on
        log.warning("gate_not_heard", agent=agent, why=str(error))
        return None
    if len(_said) > PAGE:
        _said.clear()
    _said[name] = (now + _KEEP, found)
    return found


def _agent(request: Request) -> str:
    agent: str = request.path_params["agent"]
    if not is_agent_name(agent):
        raise HTTPException(404)
    return agent


LINK = "/evals"
TOPICS = {"evals": Topic(("midwatch.eval.{agent}.completed",))}
ROUTES = [
    Route("/evals", listed),
    Route("/evals/{agent}", of_agent),
    Route("/evals/{agent}/{case}", of_case),
    Route("/evals/{agent}/{case}/agree", agree, methods=["POST"]),
]
