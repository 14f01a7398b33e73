"""Finding runs: a search that is its own address, page by page, and as a file."""

from collections.abc import AsyncIterator
from datetime import datetime

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from midwatch_services.console import sheet, table_file, texts
from midwatch_services.console.access.roles import Role
from midwatch_services.console.filters import said
from midwatch_services.console.others import runs as log_of
from midwatch_services.console.reading import SEARCHES
from midwatch_services.console.routes import page, record
from midwatch_services.console.search import (
    FILTERS,
    MODES,
    RESOLUTIONS,
    VERDICTS,
    Place,
    Search,
    packed,
    parse,
    unpacked,
)
from midwatch_services.console.view import console_of, render

MOST = 50_000  # runs of a file
_AT_ONCE = 1_000
_OFTEN = ("text", "agent", "since", "until", "resolution", "mode")

log = structlog.get_logger("midwatch.console")


@page(role=Role.VIEWER)
async def runs(request: Request) -> Response:
    """The newest runs that are as asked, and where the older ones are."""
    console, search = console_of(request), asked(request)
    if newer := _place(request.query_params.get("newer")):
        return await _page_before(request, search, newer)
    after = _place(request.query_params.get("before"))
    found, listed = None, log_of.Found([])
    if not search.wrong:
        found = await console.reading.read(
            log_of.SERVICE, lambda conn: log_of.find(conn, search, after, log_of.PAGE + 1), lane=SEARCHES
        )
        listed = found | listed
    rows, more = listed.runs[: log_of.PAGE], len(listed.runs) > log_of.PAGE
    whole = listed.whole_until
    here = request.query_params.get("before", "") if after else ""
    return render(
        request, "runs.html", search=search, found=found, rows=rows,
        unread=(console.now() - datetime.fromisoformat(whole)).total_seconds() if whole else None,
        older=search.address(before=packed(log_of.place_of(rows[-1]))) if more else "", here=here,
        newer=search.address(newer=packed(log_of.place_of(rows[0]))) if after and rows else "",
        why={name: _why(search, name) for name in search.wrong},
        inside=search.address(), modes=MODES, resolutions=RESOLUTIONS, verdicts=VERDICTS, most=MOST,
        rare=[name for name in FILTERS if name not in _OFTEN], zone=console.settings.digest_zone,
        agents=sorted(card.agent for card in console.cards.all()),
        scope={"agent": search.word("agent") or ""} if search.word("agent") else None,
    )  # fmt: skip


async def _page_before(request: Request, search: Search, of: Place) -> Response:
    """To the page that ends before that run, by the address that it has when one comes from the newer side."""
    places: list[Place] = []
    if not search.wrong:
        found = await console_of(request).reading.read(
            log_of.SERVICE,
            lambda conn: [log_of.place_of(run) for run in log_of.ahead(conn, search, of, log_of.PAGE + 1)],
            lane=SEARCHES,
        )
        places = found | []
    before = packed(places[0]) if len(places) > log_of.PAGE else ""
    return RedirectResponse(f"/runs?{search.address(before=before)}".rstrip("?"), 303)


@page(role=Role.VIEWER)
async def as_file(request: Request) -> Response:
    """The same search as a table for other programs. It is recorded, for it leaves the house."""
    search = asked(request)
    if search.wrong:
        raise HTTPException(400, " ".join(_why(search, name) for name in search.wrong))
    await record(request, "runs.exported", target="csv", filters=" ".join(sorted(search.typed)))
    name = f"runs-{console_of(request).now():%Y-%m-%d-%H%M}.csv"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(_lines(request, search), media_type="text/csv; charset=utf-8", headers=headers)


async def _lines(request: Request, search: Search) -> AsyncIterator[str]:
    """The file in pieces, each read by itself: it holds no reader up and never stands in memory as a whole."""
    reading = console_of(request).reading
    yield sheet.written([table_file.COLUMNS])
    count, whole = 0, None
    after: Place | None = None
    while count < MOST:
        size, behind = min(_AT_ONCE, MOST - count), after
        found = await reading.read(
            log_of.SERVICE,
            lambda conn, size=size, behind=behind: log_of.find(conn, search, behind, size),  # type: ignore[misc]
            lane=SEARCHES,
        )
        if not found.ok:
            log.warning("export_broken_off", rows=count, problem=found.problem)
            yield sheet.written([[texts.load()("runs.broken_off", count=count)]])
            return
        listed = found | log_of.Found([])
        rows, whole = listed.runs, whole or listed.whole_until
        yield sheet.written([table_file.row(one) for one in rows])
        count += len(rows)
        if len(rows) < size:
            break
        after = log_of.place_of(rows[-1])
    if count == MOST:
        yield sheet.written([[texts.load()("runs.cut", count=MOST)]])
    if whole:
        yield sheet.written([[texts.load()("runs.not_whole", since=whole)]])


def _why(search: Search, name: str) -> str:
    """Why a filter cannot be asked as it is, in words."""
    return texts.load()(
        f"runs.wrong.{search.wrong[name]}", value=said(search.typed[name], 80), most=log_of.MOST_WORDS,
        letters=log_of.SHORTEST_BEGINNING,
    )  # fmt: skip


def asked(request: Request) -> Search:
    """What the address asks for."""
    console = console_of(request)
    search = parse(request.query_params, console.now(), console.settings.digest_zone)
    text = search.word("text")
    if text and "text" not in search.wrong and not log_of.has_words(text):
        search.wrong["text"] = "text"
    return search


def _place(text: str | None) -> Place | None:
    if not text:
        return None
    found = unpacked(text)
    if found is None:
        raise HTTPException(404)
    return found


LINK = "/runs"
ROUTES = [Route("/runs", runs), Route("/runs.csv", as_file)]
