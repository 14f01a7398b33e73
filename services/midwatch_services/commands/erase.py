"""`midwatch erase`: everything of one customer, everywhere, with a proof."""

import asyncio
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import erase_cases, erase_output
from .bus import CONNECT, connected, run, unreached, user
from .eval_make import ROOT, Root
from .output import NOT_CONFIRMED, OK, USAGE, JsonOption, clean, confirm, console, emit_json, emit_table, fail
from .runs import read_log

if TYPE_CHECKING:
    from midwatch.contracts.erasure import ErasureRequested
    from midwatch_services.logger.erasure.store import Part, Work

POLL = 0.2  # seconds
_REASON = 500  # characters
_COLUMNS = ("erasure", "asked", "by", "state", "runs", "events", "reason")

By = Annotated[str | None, typer.Option("--by", help="Who. Default: you, on this machine.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    group = typer.Typer(invoke_without_command=True, no_args_is_help=True)
    group.callback()(erase)
    group.command("list")(list_erasures)
    group.command("show")(show)
    group.command("export")(export)
    group.command("cases")(erase_cases.cases)
    app.add_typer(group, name="erase")


def erase(
    context: typer.Context,
    customer: Annotated[
        str | None, typer.Option(help="The customer, by the reference that runs name.", metavar="REF")
    ] = None,
    ticket: Annotated[str | None, typer.Option(help="The runs of this ticket.")] = None,
    run_id: Annotated[
        str | None, typer.Option("--run", help="This run; say whose with --agent.", metavar="RUN")
    ] = None,
    agent: Annotated[str | None, typer.Option(help="Whose run.")] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; it stays in the proof, so name no one.")] = "",
    by: By = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would reach.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    within: Annotated[float, typer.Option(min=0, help="Seconds to wait for every place to confirm.")] = 60.0,
    evals: Root = ROOT,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Erase everything of one customer, ticket or run: from the run log, from the streams and their dead letters, from
    cases, alerts, review items and exports. That it was erased, and when, stays, and can be proved.

    It reaches what there is until now, not what the customer does from now on. What a legal hold keeps stays. Exit code
    0 once every place has confirmed, 3 where some have not yet (they will once they are back), 4 where all have and
    files of the eval set hold it still (they are named: `midwatch erase cases` removes them), 1 on errors.

    Example: midwatch erase --customer c-1042 --reason "request 2026-118"
    """
    if context.invoked_subcommand is not None:
        return
    asked = _asked(customer, ticket, run_id, agent, reason, by or user())
    reach = read_log(lambda conn: erase_output.reach(conn, asked))
    reach |= erase_output.elsewhere(asked, reach) | {"eval_cases": erase_cases.holding(evals, reach["runs"])}
    if as_json and dry_run:
        emit_json([reach])
    elif not as_json:
        for line in erase_output.would(reach):
            console.print(line)
    if dry_run:
        raise typer.Exit(OK)
    confirm("Erase it? It cannot be brought back.", yes, "nothing was erased")
    run(_erase(asked, within, evals, as_json))


def _asked(
    customer: str | None, ticket: str | None, run_id: str | None, agent: str | None, reason: str, by: str
) -> "ErasureRequested":
    from midwatch.contracts.erasure import ErasureRequested
    from midwatch.contracts.subjects import is_agent_name
    from midwatch.errors import BadAgentName

    if not (customer or ticket or run_id):
        fail("say what to erase: --customer, --ticket, or --run with --agent", USAGE)
    if bool(run_id) != bool(agent) or (run_id and (customer or ticket)):
        fail("a run is named by --run and --agent, and by nothing else", USAGE)
    if agent and not is_agent_name(agent):
        fail(str(BadAgentName(agent=agent)), USAGE)
    reason = " ".join(reason.split())
    if not reason or len(reason) > _REASON:
        fail(f"say why with --reason, in at most {_REASON} characters", USAGE)
    if any(name and name in f"{reason} {by}" for name in (customer, ticket)):
        fail("the reason and the name stay in the proof: leave the customer and the ticket out of them", USAGE)
    return ErasureRequested(
        erasure_id=f"er-{secrets.token_hex(6)}", by=by, reason=reason, customer=customer or None,
        ticket=ticket or None, agent=agent or None, run_id=run_id or None,
    )  # fmt: skip


async def _erase(asked: "ErasureRequested", within: float, evals: Path, as_json: bool) -> int:
    """Asks for it on the bus, and follows it in the log."""
    from nats.errors import Error as NatsError
    from nats.js.errors import APIError

    from midwatch.contracts import codec, subjects
    from midwatch.runtime.settings import Settings

    url = Settings().url
    envelope = codec.envelope(
        "erasure", "requested", asked, source="/people/command-line", id=f"{asked.erasure_id}-requested"
    )
    headers = {subjects.MSG_ID: envelope.id, subjects.CONTENT_TYPE: subjects.CLOUDEVENTS_JSON}
    try:
        async with connected(url) as nc:
            js = nc.jetstream(timeout=CONNECT)
            await js.publish(subjects.erasure("requested"), codec.encode(envelope), headers=headers)
    except APIError as error:
        fail(f"the request was not taken ({error.description or error}): run `midwatch topology apply`")
    except (OSError, NatsError, TimeoutError) as error:
        return unreached(error, url, "Nothing was erased. Asking for an erasure takes the admin's rights.")
    told = erase_output.Progress(quiet=as_json)
    loop = asyncio.get_running_loop()
    until = loop.time() + within
    while True:
        work, parts = await asyncio.to_thread(_read, asked.erasure_id)
        told.tell(work, parts)
        if (work and work.phase == "done") or loop.time() > until:
            break
        await asyncio.sleep(POLL)
    return _end(asked.erasure_id, work, parts, evals, as_json)


def _read(id: str) -> "tuple[Work | None, list[Part]]":
    from midwatch_services.logger.erasure import store

    def work(conn: Any) -> "tuple[Work | None, list[Part]]":
        found = store.read(conn, id)
        return (found[0] if found else None), store.parts(conn, id)

    return read_log(work)


def _end(id: str, work: "Work | None", parts: "list[Part]", evals: Path, as_json: bool) -> int:
    row = erase_output.row(id, work, parts)
    cases = erase_cases.holding(evals, (row["proof"] or {}).get("runs", ()))
    if as_json:
        emit_json([row | {"eval_cases": cases}])
    else:
        for line in erase_output.proof(row):
            console.print(line, soft_wrap=True)
    erase_cases.tell_unlooked(evals)
    if row["state"] == "done":
        return erase_cases.tell(cases)
    sys.stderr.write(
        f"midwatch: {id} is NOT complete: {row['waits_for']}. It goes on by itself: see `midwatch erase show {id}`\n"
    )
    return NOT_CONFIRMED


def list_erasures(as_json: Annotated[bool, JsonOption] = False) -> None:
    """List erasures, the newest first, with how far each is.

    Example: midwatch erase list
    """
    from midwatch_services.logger.erasure import store

    def work(conn: Any) -> list[dict[str, Any]]:
        return [erase_output.row(one.id, one, store.parts(conn, one.id)) for one in store.read(conn)]

    found = read_log(work)
    if as_json:
        emit_json(found)
        return
    rows = [dict(zip(_COLUMNS, erase_output.line(one), strict=True)) for one in found]
    emit_table(_COLUMNS, rows, empty="Nothing was ever erased.")


def show(
    id: Annotated[str, typer.Argument(help="The erasure's id, or as much of it as no other has.", metavar="ID")],
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Show the proof of an erasure: who asked, when and why, what was erased where, who has confirmed it, and what is
    left. With --json also every event, with its place and its leaf.

    Example: midwatch erase show er-3f9a
    """
    work, parts = _find(id)
    row = erase_output.row(work.id, work, parts)
    if as_json:
        emit_json([row])
        return
    for line in erase_output.proof(row):
        console.print(line, soft_wrap=True)


def export(
    folder: Annotated[str, typer.Argument(help="The export's folder.", metavar="DIR")],
    id: Annotated[str, typer.Option("--id", help="The erasure.", metavar="ID")],
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Erase from an export that lay elsewhere what an erasure erased from the log. It can be verified as before.

    Example: midwatch erase export /backups/2026-11 --id er-3f9a
    """
    from midwatch.errors import MidwatchError
    from midwatch_services.logger.erasure import exports

    work, _ = _find(id)
    if work.proof is None:
        fail(f"{work.id} is not complete yet: see `midwatch erase show {work.id}`")
    what = read_log(lambda conn: exports.of_erasure(conn, work.id))
    try:
        counts = exports.erase_from_export(Path(folder), what)
    except (MidwatchError, OSError) as error:
        fail(str(error))
    if as_json:
        emit_json([{"folder": folder, "erasure": work.id, **counts}])
    else:
        said = ", ".join(f"{count:,} {name}" for name, count in counts.items())
        console.print(f"{clean(folder)}: {said} erased", soft_wrap=True)


def _find(id: str) -> "tuple[Work, list[Part]]":
    from midwatch_services.logger.erasure import store

    whole = id if id.startswith("er-") else f"er-{id}"

    def find(conn: Any) -> "list[Work]":
        return [one for one in store.read(conn) if one.id.startswith(whole)]

    found = read_log(find)
    if not found:
        fail(f"no erasure {clean(id)!r}: list them with `midwatch erase list`")
    if len(found) > 1:
        fail(f"{clean(id)!r} may mean {', '.join(one.id for one in found)}: write more of it", USAGE)
    return found[0], read_log(lambda conn: store.parts(conn, found[0].id))
