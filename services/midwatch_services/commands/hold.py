"""`midwatch hold`: what must be kept whatever its age. Placed and lifted on the bus, in force once the log shows it."""

import asyncio
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .bus import CONNECT, connected, run, unreached, user
from .log import the_log
from .output import NOT_CONFIRMED, OK, USAGE, JsonOption, clean, console, count_of, emit_json, emit_table, fail

if TYPE_CHECKING:
    from midwatch.contracts.governance import HoldLifted, HoldPlaced

WITHIN = 5.0  # seconds for the log to show what was said
POLL = 0.05  # seconds
_LIMIT = 500  # characters of a reason
_COLUMNS = ("hold", "keeps", "runs", "placed", "by", "reason", "until", "state")

By = Annotated[str | None, typer.Option("--by", help="Who. Default: you, on this machine.")]
Why = Annotated[str, typer.Option("--reason", help="Why; kept for ever.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    hold = typer.Typer(help="Legal holds: what must be kept whatever its age.", no_args_is_help=True)
    hold.command("add")(add)
    hold.command("list")(list_holds)
    hold.command("lift")(lift)
    app.add_typer(hold, name="hold")


def add(
    reason: Why,
    agent: Annotated[str | None, typer.Option(help="This agent's runs; beside others: only its.")] = None,
    run_id: Annotated[str | None, typer.Option("--run", help="This run.", metavar="RUN")] = None,
    ticket: Annotated[str | None, typer.Option(help="The runs of this ticket.")] = None,
    customer: Annotated[str | None, typer.Option(help="The runs of this customer, by reference.")] = None,
    until: Annotated[
        str | None,
        typer.Option(help="When it ends by itself, such as 2027-06-30. Default: never.", metavar="D"),
    ] = None,
    by: By = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Have runs kept: neither age nor an erasure removes them until the hold is lifted.

    What is named must all match. Runs that come later are held as well. Exit code 3 if the logger has not confirmed it
    within five seconds: it is recorded, and in force once the logger runs.

    Example: midwatch hold add --ticket T-1 --reason "claim 1184"
    """
    from midwatch.contracts.envelope import new_id
    from midwatch.contracts.governance import HoldPlaced
    from midwatch.contracts.subjects import is_agent_name
    from midwatch.errors import BadAgentName

    if not (agent or run_id or ticket or customer):
        fail("say what to keep: --agent, --run, --ticket or --customer", USAGE)
    if agent and not is_agent_name(agent):
        fail(str(BadAgentName(agent=agent)), USAGE)
    placed = HoldPlaced(
        hold_id=f"hold-{new_id()[-12:]}", by=by or user(), reason=_reason(reason), agent=agent or None,
        run_id=run_id or None, ticket=ticket or None, customer=customer or None, until=_until(until),
    )  # fmt: skip
    run(_say("placed", placed, lambda row: row["placed_at"] is not None, "in force", as_json))


def list_holds(
    every: Annotated[bool, typer.Option("--all", help="Those that are over as well.")] = False,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """List what is held, the oldest first: who said so, when and why, and how many runs it keeps.

    Example: midwatch hold list --all
    """
    found = [one for one in _read() if every or one["in_force"]]
    if as_json:
        emit_json(found)
        return
    rows = [dict(zip(_COLUMNS, _line(one), strict=True)) for one in found]
    emit_table(_COLUMNS, rows, empty="Nothing is held." if every else "Nothing is held. Those that are over: --all")


def lift(
    hold: Annotated[str, typer.Argument(help="The hold's id, or as much of it as no other has.", metavar="HOLD")],
    reason: Why,
    by: By = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Lift a hold: what it kept may go once it is past. The hold itself stays in the list for ever.

    Example: midwatch hold lift hold-3f9a --reason "settled"
    """
    from midwatch.contracts.governance import HoldLifted

    found = _read(hold)
    if not hold or not found:
        fail(f"no hold {clean(hold)!r}: list them with `midwatch hold list --all`")
    if len(found) > 1:
        fail(f"{clean(hold)!r} may mean {', '.join(one['hold_id'] for one in found)}: write more of it", USAGE)
    [one] = found
    if one["lifted_at"]:
        fail(f"{one['hold_id']} was lifted by {clean(one['lifted_by'])} at {_moment(one['lifted_at'])}")
    lifted = HoldLifted(hold_id=one["hold_id"], by=by or user(), reason=_reason(reason))
    run(_say("lifted", lifted, lambda row: row["lifted_at"] is not None, "lifted", as_json))


async def _say(
    event: str, data: "HoldPlaced | HoldLifted", is_done: Callable[[dict[str, Any]], bool], word: str, as_json: bool
) -> int:
    """Publishes it, and waits until the log shows it."""
    from nats.errors import Error as NatsError

    from midwatch.contracts import codec, subjects
    from midwatch.errors import Temporary
    from midwatch.runtime.settings import Settings

    url = Settings().url
    envelope = codec.envelope("hold", event, data, source="/people/command-line")
    headers = {subjects.MSG_ID: envelope.id, subjects.CONTENT_TYPE: subjects.CLOUDEVENTS_JSON}
    try:
        async with connected(url) as nc:
            js = nc.jetstream(timeout=CONNECT)
            await js.publish(subjects.hold(event), codec.encode(envelope), headers=headers)
    except (OSError, NatsError, TimeoutError, Temporary) as error:
        return unreached(error, url, "Nothing was changed.")
    shown = await _shown(data.hold_id, is_done)
    if as_json:
        emit_json([{**(shown or {"hold_id": data.hold_id, "by": data.by}), "confirmed": shown is not None}])
    if shown is None:
        sys.stderr.write(
            f"midwatch: {data.hold_id}: recorded, NOT yet {word}: the logger has not answered. It will be {word} once "
            "the logger runs: see `midwatch hold list` and `midwatch doctor`\n"
        )
        return NOT_CONFIRMED
    if not as_json:
        now = f"{word}; it keeps {count_of(shown['runs'], 'run')} now" if event == "placed" else word
        console.print(f"{data.hold_id}: {now}", soft_wrap=True)
    return OK


async def _shown(hold_id: str, is_done: Callable[[dict[str, Any]], bool]) -> dict[str, Any] | None:
    from midwatch.contracts import subjects
    from midwatch.errors import MidwatchError
    from midwatch.runtime.database import Database
    from midwatch.runtime.settings import Settings
    from midwatch_services.logger.keeping.hold_store import read_holds

    clock = asyncio.get_running_loop().time
    deadline = clock() + WITHIN
    try:
        database = Database(Settings().database_for(subjects.LOGGER), name=subjects.LOGGER, must_exist=True)
    except MidwatchError:
        return None
    try:
        while clock() < deadline:
            found = await database.read(lambda conn: read_holds(conn, hold_id=hold_id))
            if found and is_done(found[0]):
                return found[0]
            await asyncio.sleep(POLL)
        return None
    except Exception:  # whatever it is, it was not confirmed
        return None
    finally:
        await asyncio.to_thread(database.close)


def _read(hold_id: str | None = None) -> list[dict[str, Any]]:
    from midwatch_services.logger.keeping.hold_store import read_holds

    with the_log() as database:
        return database.read_now(lambda conn: read_holds(conn, hold_id=hold_id))


def _line(hold: dict[str, Any]) -> tuple[str, ...]:
    names = (("agent", "agent"), ("run_id", "run"), ("ticket", "ticket"), ("customer", "customer"))
    what = ", ".join(f"{word} {hold[name]}" for name, word in names if hold[name])
    state = "in force" if hold["in_force"] else "over"
    if hold["lifted_at"]:
        state = f"lifted by {hold['lifted_by']} at {_moment(hold['lifted_at'])}: {hold['lifted_reason']}"
    until = _moment(hold["until"]) if hold["until"] else ""
    placed = _moment(hold["placed_at"])
    return hold["hold_id"], what, f"{hold['runs']:,}", placed, hold["placed_by"], hold["reason"], until, state


def _moment(text: str) -> str:
    return f"{text[:16].replace('T', ' ')} UTC"


def _reason(reason: str) -> str:
    if not reason.strip():
        fail("say why with --reason: it is kept for ever", USAGE)
    return reason.strip()[:_LIMIT]


def _until(until: str | None) -> datetime | None:
    if until is None:
        return None
    try:
        time = datetime.fromisoformat(until)
    except ValueError:
        fail(f"--until {until!r} is no time: write 2027-06-30 or 2027-06-30T12:00", USAGE)
    time = time if time.tzinfo else time.astimezone()
    if time <= datetime.now(UTC):
        fail(f"--until {until!r} is over already", USAGE)
    return time.astimezone(UTC)
