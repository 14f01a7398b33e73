"""`midwatch import`: what an export holds comes back into a log, this one or another."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .log import the_log
from .output import FAILED, JsonOption, console, emit_json, fail
from .progress import bar

if TYPE_CHECKING:
    from midwatch_services.logger.transfer.bring_back import Report


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("import")(bring_in)


def bring_in(
    folder: Annotated[Path, typer.Argument(help="The folder that `midwatch export` made.", metavar="DIR")],
    force_unverified: Annotated[
        bool, typer.Option("--force-unverified", help="Import what was altered as well; the chain says so.")
    ] = False,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Bring an export back into the log. What the log has stays as it is: what it lacks is added at its old place.

    Everything is checked before anything is written: each file by its SHA-256, each event by its leaf. It may run
    beside the logger, and again. Where there is no log yet its tables are made.

    Example: midwatch import november
    """
    from midwatch.contracts import subjects
    from midwatch.errors import MidwatchError
    from midwatch.runtime.database import Database, migrate
    from midwatch.runtime.settings import Settings
    from midwatch_services.logger.transfer.bring_back import Import
    from midwatch_services.logger.transfer.check import first_problem
    from midwatch_services.logger.transfer.layout import read_manifest

    url = Settings().database_for(subjects.LOGGER)
    try:
        manifest = read_manifest(folder)
        with bar("checking") as told:
            problem = first_problem(folder, manifest, told)
        if problem and not force_unverified:
            fail(f"nothing was imported: {problem}. Import it all the same with --force-unverified", FAILED)
        Database(url).close()  # makes the folder of an SQLite file
        migrate(url, subjects.LOGGER)
    except MidwatchError as error:
        fail(str(error))
    with the_log() as database, bar("importing") as told:
        report = Import(database, folder, manifest, datetime.now(UTC), problem, told).run()
    if as_json:
        emit_json([{**vars(report), "unverified": problem}])
    else:
        _tell(report, problem)


def _tell(report: "Report", problem: str | None) -> None:
    what = f"{report.runs:,} runs, {report.events:,} events, {report.alerts:,} alerts, {report.chains:,} chains"
    console.print(f"{what} came in; {report.there:,} events were there already", soft_wrap=True)
    if report.gone:
        console.print(f"{report.gone:,} events are of runs that were removed meanwhile", soft_wrap=True)
    if report.erased:
        console.print(f"{report.erased:,} came without what they say: their runs were erased", soft_wrap=True)
    if problem:
        sys.stderr.write(f"midwatch: NOT verified: {problem}\n")
    if report.unread:
        sys.stderr.write(f"midwatch: not all could be read: {report.unread}\n")
    if report.oldest:
        console.print(
            f"The log heard last of the oldest on {report.oldest[:10]}: what is past goes within the hour, unless it "
            "is held: `midwatch hold add`", soft_wrap=True,
        )  # fmt: skip
