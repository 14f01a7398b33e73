"""`midwatch queue`: the cases that stopped agents left for people; taken, given back and closed here."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import queue_output
from .bus import user as _user
from .output import FAILED, NOT_CONFIRMED, OK, USAGE, JsonOption, console, emit_json, emit_table, fail
from .runs import AgentOption
from .tables import kill_switch_tables

if TYPE_CHECKING:
    from midwatch.runtime.database import Database
    from midwatch_services.kill_switch.cases.hands import Deed, Found, Standing, Verb

_COLUMNS = ("case", "waiting", "agent", "ticket", "asked", "stopped because", "state")

CaseArgument = Annotated[str, typer.Argument(help="The case's id, or as much of it as no other has.", metavar="CASE")]
By = Annotated[str | None, typer.Option("--by", help="Who. Default: you, on this machine.")]
Note = Annotated[str, typer.Option("--note", help="What others should know.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    queue = typer.Typer(invoke_without_command=True)
    queue.callback()(list_queue)
    queue.command("show")(show)
    queue.command("take")(take)
    queue.command("return")(give_back)
    queue.command("close")(close)
    app.add_typer(queue, name="queue")


def list_queue(
    context: typer.Context,
    agent: AgentOption = None,
    every: Annotated[
        bool, typer.Option("--all", help="Closed cases too, and those of an agent's own program.")
    ] = False,
    drills: Annotated[bool, typer.Option("--drills", help="The cases of drills, which nobody need see to.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """List the cases that wait for a person or are in somebody's hands, the oldest first.

    With --all or --drills the newest come first.

    Example: midwatch queue --agent refund-desk
    """
    if context.invoked_subcommand:
        return
    from midwatch_services.kill_switch.cases import case_store

    wanted: dict[str, Any] = {"agent": agent, "limit": limit}
    if every or drills:
        wanted |= {"state": "all", "newest": True, "mode": "drill" if drills else None}
    with kill_switch_tables("queue") as database:
        found = database.read_now(lambda conn: case_store.list_cases(conn, **wanted))
    if as_json:
        emit_json(found)
        return
    rows = [dict(zip(_COLUMNS, queue_output.row(case), strict=True)) for case in found]
    emit_table(_COLUMNS, rows, empty="No case waits.")
    if len(found) == limit:
        console.print(f"There may be more: --limit {2 * limit}")


def show(
    case: CaseArgument,
    full: Annotated[bool, typer.Option("--full", help="Cut nothing.")] = False,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Tell a case as a story: what the customer asked, what was done, why it stopped, who has it.

    Example: midwatch queue show case-3f9a
    """
    with kill_switch_tables("queue") as database:
        found, history = _read(database, case)
    if as_json:
        emit_json([{**found, "history": history}])
        return
    for line in queue_output.tell(found, history, queue_output.logged_cost(found), full=full):
        console.print(line, soft_wrap=True)


def take(
    case: CaseArgument,
    by: By = None,
    reference: Annotated[str, typer.Option("--reference", help="Its number at your help desk.")] = "",
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Take a case on.

    Of two who take it, the first has it. Exit code 1 if that was somebody else, 3 if kill-switch has not confirmed it
    within five seconds.

    Example: midwatch queue take case-3f9a --reference ZD-1184
    """
    _act("accepted", case, by, as_json, reference=reference)


def give_back(case: CaseArgument, by: By = None, note: Note = "", as_json: Annotated[bool, JsonOption] = False) -> None:
    """Give a case back, so that others can take it.

    Example: midwatch queue return case-3f9a --note "needs someone who may refund"
    """
    _act("returned", case, by, as_json, note=note)


def close(case: CaseArgument, by: By = None, note: Note = "", as_json: Annotated[bool, JsonOption] = False) -> None:
    """Close a case: the customer has been seen to.

    Example: midwatch queue close case-3f9a --note "refunded by hand"
    """
    _act("closed", case, by, as_json, note=note)


def _act(verb: "Verb", name: str, by: str | None, as_json: bool, *, reference: str = "", note: str = "") -> None:
    from midwatch_services.kill_switch.cases import hands

    with kill_switch_tables("queue") as database:
        found = _read(database, name)
        deed = hands.Deed(verb, found[0]["case_id"], by or _user(), reference, note)
        standing = hands.standing(found[0], deed)
        if standing == "may":
            standing, found = _do(deed, found[0]["agent"], lambda: asyncio.to_thread(_read, database, deed.case_id))
    if as_json:
        emit_json([{**found[0], "outcome": {"done": "done", "refused": "refused", "may": "not_confirmed"}[standing]}])
    if standing == "refused":
        whose = "" if found[0]["state"] != "taken" or verb == "accepted" else ". Speak for them with --by"
        fail(f"{deed.case_id}: {hands.holder(*found)}{whose}", FAILED)
    if standing == "may":
        fail(
            f"{deed.case_id}: recorded, not confirmed: kill-switch has not answered. It will when it runs: see "
            f"`midwatch queue show {deed.case_id}` and `midwatch doctor`", NOT_CONFIRMED,
        )  # fmt: skip
    if not as_json:
        console.print(queue_output.done(found[0]), soft_wrap=True)
    raise typer.Exit(OK)


def _do(deed: "Deed", agent: str, read: "Callable[[], Awaitable[Found]]") -> "tuple[Standing, Found]":
    """Publishes the deed and waits for what becomes of it."""
    from nats.errors import Error as NatsError

    from midwatch.contracts.envelope import new_id
    from midwatch.errors import MidwatchError
    from midwatch.runtime.broker import connection
    from midwatch.runtime.settings import Settings
    from midwatch_services.kill_switch.cases import hands

    async def work() -> "tuple[Standing, Found]":
        async with connection(Settings().url) as client:
            try:
                await hands.say(client.jetstream(), agent, deed, id=new_id(), source=f"/people/{deed.by}")
            except (NatsError, TimeoutError) as error:
                fail(f"{deed.case_id}: it was not acknowledged ({str(error) or type(error).__name__}): try again")
        return await hands.outcome(deed, read)

    try:
        return asyncio.run(work())
    except MidwatchError as error:
        fail(str(error))


def _read(database: "Database", name: str) -> "Found":
    """The case that is called `name`, and its history."""
    from midwatch_services.kill_switch.cases import case_store

    def work(conn: Any) -> "Found":
        try:
            found = case_store.read_case(conn, name)
        except case_store.AmbiguousCase as error:
            fail(str(error), USAGE)
        if found is None:
            fail(f"no case {name!r}: list them with `midwatch queue --all`")
        return found, case_store.history(conn, found["case_id"])

    return database.read_now(work)
