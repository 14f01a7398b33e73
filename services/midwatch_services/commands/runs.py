"""`midwatch runs`, `show` and `tail`: the run log, as a table, as a story, and as it happens."""

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from . import redaction, story
from .output import USAGE, JsonOption, console, emit_json, emit_table, fail

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

T = TypeVar("T")
AgentOption = Annotated[str | None, typer.Option(help="Only this agent's.")]
_SPAN = re.compile(r"^(\d+(?:\.\d+)?)(s|m|h|d)$")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


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
    ticket: Annotated[str | None, typer.Option(help="Only runs of this ticket.")] = None,
    mode: Annotated[str | None, typer.Option(help="live, shadow, eval, drill or replay.")] = None,
    resolution: Annotated[
        str | None, typer.Option(help="resolved, handed_off, halted, fell_back, failed or abandoned.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="A span (15m, 2h, 7d) or a time (2026-11-22T02:00).")] = None,
    limit: Annotated[int, typer.Option(min=0, help="At most so many; 0 for all.")] = 50,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """List runs, the newest first.

    Example: midwatch runs --agent refund-desk --since 2h
    """
    from midwatch_services.logger import store

    start = start_of(since)
    found = read_log(
        lambda conn: store.read_runs(
            conn, agent=agent, ticket=ticket, mode=mode, resolution=resolution, since=start, limit=limit or None
        )
    )
    if as_json:
        emit_json(found)
        return
    columns = ("run", "agent", "ticket", "mode", "started", "took", "resolution", "cost", "calls", "halted by")
    emit_table(
        columns,
        [dict(zip(columns, story.summary(run), strict=True)) for run in found],
        empty="No runs. Record some with the SDK, or try: midwatch demo",
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
    """Tell one run as a story: what came in, each step, what it cost, how it ended.

    Example: midwatch show run-8c1f
    """
    from midwatch_services.logger import store

    def work(conn: "Connection") -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
        found = store.read_runs(conn, run_id=run, agent=agent)
        if len(found) != 1:
            return found, [], []
        name = found[0]["agent"]
        return found, store.read_events(conn, name, run), store.read_alerts(conn, agent=name, run_id=run)

    found, events, alerts = read_log(work)
    if not found:
        fail(f"no run {run!r} in the log: list them with `midwatch runs`")
    if len(found) > 1:
        names = ", ".join(sorted(one["agent"] for one in found))
        fail(f"{names} each have a run {run!r}: say whose with --agent", USAGE)
    if reveal:
        found, events, alerts = redaction.reveal(found[0]["agent"], [found, events, alerts])
    if as_json:
        emit_json([{**found[0], "event_list": events, "alert_list": alerts}])
        return
    for line in story.tell(found[0], events, alerts, full=full):
        console.print(line, soft_wrap=True)


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


def start_of(since: str | None) -> str | None:
    """The earliest time that `--since` means, as the log writes times."""
    from midwatch_services.logger.decide import text_of

    if since is None:
        return None
    if found := _SPAN.match(since):
        try:
            return text_of(datetime.now(UTC) - timedelta(**{_UNITS[found[2]]: float(found[1])}))
        except OverflowError:
            fail(f"--since {since!r} reaches back too far", USAGE)
    try:
        time = datetime.fromisoformat(since)
    except ValueError:
        fail(f"--since {since!r} is neither a span (15m, 2h, 7d) nor a time (2026-11-22T02:00)", USAGE)
    return text_of(time if time.tzinfo else time.astimezone())
