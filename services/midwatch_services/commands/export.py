"""`midwatch export`: the log, or a part of it, as a folder of files."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from .bus import user
from .log import the_log
from .output import USAGE, JsonOption, console, emit_json, fail
from .progress import bar
from .runs import start_of


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("export")(export)


def export(
    out: Annotated[Path, typer.Option("--out", help="The folder, which must not be there yet.", metavar="DIR")],
    agent: Annotated[str | None, typer.Option(help="Only this agent's.")] = None,
    since: Annotated[str | None, typer.Option(help="Only runs that began since: 7d, or 2026-11-22T02:00.")] = None,
    until: Annotated[str | None, typer.Option(help="Only runs that began before: 7d, or 2026-11-22T02:00.")] = None,
    run: Annotated[str | None, typer.Option(help="Only this run.")] = None,
    format: Annotated[str, typer.Option(help="jsonl, or parquet for events, runs and alerts.")] = "jsonl",
    by: Annotated[str | None, typer.Option("--by", help="Who. Default: you, on this machine.")] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Write runs with their events and alerts, and what proves them, to a folder.

    It is of one moment, may run beside the logger, and has its name only once it is whole. The log remembers that it
    was made, so that an erasure knows of it.

    Example: midwatch export --out november --agent refund-desk --since 2026-11-01
    """
    from midwatch_services.logger.transfer.export import export as write
    from midwatch_services.logger.transfer.layout import Filter

    if format not in ("jsonl", "parquet"):
        fail(f"--format {format!r}: choose jsonl or parquet", USAGE)
    wanted = Filter(agent=agent, run_id=run, since=start_of(since), until=start_of(until))
    with the_log() as database, bar("exporting") as told:
        try:
            made = write(database, out, wanted, format, by=by or user(), now=datetime.now(UTC), told=told)  # type: ignore[arg-type]
        except OSError as error:
            fail(f"the export cannot be written: {error.strerror or error} ({error.filename or out})")
    if as_json:
        emit_json([made])
        return
    size = sum(file.bytes for file in made.files)
    what = f"{made.counts['runs']:,} runs, {made.counts['events']:,} events, {made.counts['alerts']:,} alerts"
    console.print(f"{out}: {what}, {size / 1e6:,.1f} MB, as {made.id}", soft_wrap=True)
    if not made.counts["runs"]:
        sys.stderr.write("midwatch: no run matches\n")
