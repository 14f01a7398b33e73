"""`midwatch runs`, `show` and `tail`: the run log, as a table, as a story, and as it happens."""

import asyncio
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from . import redaction, spans, story
from .output import USAGE, JsonOption, console, emit_json, emit_table, fail

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

T = TypeVar("T")
AgentOption = Annotated[str | None, typer.Option(help="Only this agent's.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    app.command("runs")(runs)
    app.command("show")(show)
    app.command("tail")(tail)


def read_log(work: "Callable[[Connection], T]") -> T:
    """What `work` reads from the logger's database; ends the command with one line where there is none."""
    from sqlalchemy.exc import OperationalError, ProgrammingError

    from midwatch.contracts import subjects
    from midwatch.errors import MidwatchError
    from midwatch.runtime.database import Database
    from midwatch.runtime.settings import Settings

    try:
        database = Database(Settings().database_for(subjects.LOGGER), name=subjects.LOGGER, must_exist=True)
    except MidwatchError as error:
        fail(str(error))
    try:
        return database.read_now(work)
    except (OperationalError, ProgrammingError):
        fail(f"there is no run log in {database.where} yet: start the logger with `midwatch run logger`")
    except MidwatchError as error:
        fail(str(error))
    finally:
        database.close()


def runs(
    agent: AgentOption = None,
    version: Annotated[str | None, typer.Option(help="Only of this version of the agent.")] = None,
    ticket: Annotated[str | None, typer.Option(help="Only runs of this ticket.")] = None,
    customer: Annotated[str | None, typer.Option(help="Only of this customer, by the agent's own reference.")] = None,
    mode: Annotated[str | None, typer.Option(help="live, shadow, eval, drill or replay.")] = None,
    resolution: Annotated[
        str | None, typer.Option(help="resolved, handed_off, halted, fell_back, failed, abandoned, or open.")
    ] = None,
    tool: Annotated[str | None, typer.Option(help="Only where this tool was called.")] = None,
    alert: Annotated[str | None, typer.Option(help="Only with an alert of this rule, or of any.")] = None,
    verdict: Annotated[
        str | None, typer.Option(help="What reviewers said: pass, fail or unsure; waiting; or any of these.")
    ] = None,
    text: Annotated[
        str | None, typer.Option(help='Words that all occur; "side by side" in quotes; beginning*; -not.')
    ] = None,
    cost_over: Annotated[str | None, typer.Option(help="Only what cost more, in US dollars.")] = None,
    cost_under: Annotated[str | None, typer.Option(help="Only what cost less, in US dollars.")] = None,
    slower_than: Annotated[str | None, typer.Option(help="Only what took longer than a span (90s, 2m).")] = None,
    since: Annotated[str | None, typer.Option(help="A span (15m, 2h, 7d) or a time (2026-11-22T02:00).")] = None,
    until: Annotated[str | None, typer.Option(help="The same: only what began before.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="At most so many; 0 for all.")] = 50,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """List runs, the newest first. All that is asked for must be so.

    Example: midwatch runs --agent refund-desk --text '"gift card" refund*' --cost-over 0.50 --since 7d
    """
    from midwatch_services.logger import reading_store
    from midwatch_services.logger.search.grammar import BadQuestion, parse

    try:
        _ = text is None or parse(text)
    except BadQuestion as error:
        fail(str(error), USAGE)
    wanted = reading_store.Wanted(
        agent=agent, version=version, ticket=ticket, customer=customer, mode=mode, resolution=resolution, tool=tool,
        alert=alert, verdict=verdict, text=text, cost_over=_dollars("--cost-over", cost_over),
        cost_under=_dollars("--cost-under", cost_under), slower_than=_span("--slower-than", slower_than),
        since=start_of(since), until=start_of(until, "--until"), limit=limit or None,
    )  # fmt: skip

    found = read_log(lambda conn: reading_store.find(conn, wanted))
    if found.whole_until:
        late = (datetime.now(UTC) - datetime.fromisoformat(found.whole_until)).total_seconds()
        sys.stderr.write(f"midwatch: not all of the last {story.span(late)} can be searched yet\n")
    if as_json:
        emit_json(found.runs)
        return
    columns = ("run", "agent", "ticket", "mode", "started", "took", "resolution", "cost", "calls", "halted by")
    narrowed = wanted != reading_store.Wanted(limit=limit or None)
    emit_table(
        columns,
        [dict(zip(columns, story.summary(run), strict=True)) for run in found.runs],
        empty="No run is like that." if narrowed else "No runs. Record some with the SDK, or try: midwatch demo",
    )


def show(
    run: Annotated[str, typer.Argument(help="The run's id.", metavar="RUN")],
    agent: Annotated[str | None, typer.Option(help="Whose run, where two agents have one of this id.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Cut nothing.")] = False,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Show what reversible redaction hid; needs its key.")
    ] = False,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Tell one run as a story: who said what, what was looked up and what was changed, what it cost, how it ended.

    Example: midwatch show run-8c1f
    """
    found, events, beside = read_log(lambda conn: read_story(conn, run, agent))
    if not found:
        fail(f"no run {run!r} in the log: list them with `midwatch runs`")
    if len(found) > 1:
        names = ", ".join(sorted(one["agent"] for one in found))
        fail(f"{names} each have a run {run!r}: say whose with --agent", USAGE)
    if reveal:
        found, events, alerts = redaction.reveal(found[0]["agent"], [found, events, beside.alerts])
        beside = story.Beside(alerts, beside.review)
    if as_json:
        emit_json([{**found[0], "event_list": events, "alert_list": beside.alerts, "review": beside.review}])
        return
    for line in story.tell(found[0], events, beside, full=full):
        console.print(line, soft_wrap=True)


def read_story(
    conn: "Connection", run: str, agent: str | None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], story.Beside]:
    """The runs of that id, and where it is one, its events and what was said beside it."""
    from midwatch_services.logger import store

    found = store.read_runs(conn, run_id=run, agent=agent)
    if len(found) != 1:
        return found, [], story.Beside()
    name = found[0]["agent"]
    beside = story.Beside(store.read_alerts(conn, agent=name, run_id=run), store.read_review(conn, name, run))
    return found, store.read_events(conn, name, run), beside


def tail(agent: AgentOption = None, as_json: Annotated[bool, JsonOption] = False) -> None:
    """Follow run events as they are published. Ctrl-C ends it.

    Example: midwatch tail --agent refund-desk
    """
    from midwatch.contracts.subjects import is_agent_name
    from midwatch.errors import BadAgentName
    from midwatch_services.logger.follow import follow

    if agent is not None and not is_agent_name(agent):
        fail(str(BadAgentName(agent=agent)), USAGE)

    async def run() -> None:
        async for event in follow(agent):
            if as_json:
                emit_json([event])
            else:
                console.print(story.live_line(event), soft_wrap=True)

    asyncio.run(run())


def start_of(since: str | None, option: str = "--since") -> str | None:
    """The time that an option such as `--since` means, as the log writes times."""
    from midwatch_services.logger.decide import text_of

    return None if since is None else text_of(_typed(option, lambda: spans.moment(since, datetime.now(UTC))))


def _span(option: str, value: str | None) -> timedelta | None:
    return None if value is None else _typed(option, lambda: spans.span(value))


def _dollars(option: str, value: str | None) -> Decimal | None:
    return None if value is None else _typed(option, lambda: spans.dollars(value))


def _typed(option: str, read: Callable[[], T]) -> T:
    from midwatch.errors import MidwatchError

    try:
        return read()
    except MidwatchError as error:
        fail(f"{option} {error}", USAGE)
