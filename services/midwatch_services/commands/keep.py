"""`midwatch keep`: what is past leaves the log, and its space goes back to the disk."""

from typing import TYPE_CHECKING, Annotated

import typer

from .bus import connected, unreached
from .bus import run as run_to_code
from .log import the_log
from .output import OK, JsonOption, clean, console, emit_json
from .progress import bar

if TYPE_CHECKING:
    from midwatch.runtime.database import Database
    from midwatch_services.logger.keeping.sweep import Report


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    keep = typer.Typer(help="Remove what is past, and give its space back.", no_args_is_help=True)
    keep.command("run")(run)
    keep.command("vacuum")(vacuum)
    app.add_typer(keep, name="keep")


def run(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Remove the runs that are past, with all that the log has of them; what is held stays.

    How long is kept is each card's `log.keep`, or MIDWATCH_KEEP_DAYS (400) for agents without a card, and never less
    than 183 days. The logger does the same once an hour. It may run beside it.

    Example: midwatch keep run --dry-run
    """
    run_to_code(_run(dry_run, as_json))


async def _run(dry_run: bool, as_json: bool) -> int:
    from nats.errors import Error as NatsError

    from midwatch.errors import Temporary
    from midwatch.runtime.card_book import CardBook
    from midwatch.runtime.settings import Settings
    from midwatch_services.logger.keeping.policy import by_card, check, keep_of
    from midwatch_services.logger.keeping.sweep import Sweep

    settings = Settings()
    check(settings)
    with the_log() as database:
        try:
            async with connected(settings.url) as nc:
                book = CardBook(nc.jetstream(), nc)
                await book.start()
                cards = book.all()
                await book.close()
        except (OSError, NatsError, TimeoutError, Temporary) as error:
            return unreached(error, settings.url, "It has the cards: nothing was removed.")
        sweep = Sweep(database, keep_of(settings, by_card(lambda: cards)), asked=True)
        report = await (sweep.preview() if dry_run else sweep.run())
    _tell(report, dry_run, as_json)
    return OK


def _tell(report: "Report", dry_run: bool, as_json: bool) -> None:
    agents = sorted({*report.gone, *report.held})
    if as_json:
        nothing = {"runs": 0, "events": 0, "alerts": 0}
        emit_json(
            {
                "agent": agent, "dry_run": dry_run, **(vars(report.gone[agent]) if agent in report.gone else nothing),
                "held": report.held.get(agent, 0),
            }
            for agent in agents
        )  # fmt: skip
        return
    would = "would be" if dry_run else "were"
    for agent in agents:
        if gone := report.gone.get(agent):
            what = f"{gone.runs:,} runs with {gone.events:,} events and {gone.alerts:,} alerts"
            console.print(f"{clean(agent)}: {what} {would} removed", soft_wrap=True)
        if held := report.held.get(agent):
            console.print(f"{clean(agent)}: {held:,} runs are past and held: see `midwatch hold list`", soft_wrap=True)
    for month in report.months:
        console.print(f"the month {month} was dropped whole")
    for month in report.being_read:
        console.print(f"the month {month} stays until the next pass: somebody reads the log without a pause")
    if not agents:
        console.print("Nothing is past.")


def vacuum(
    full: Annotated[bool, typer.Option("--full", help="SQLite: write the file anew; the logger waits.")] = False,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Give the space of what was removed back to the disk, bit by bit, while the logger goes on writing.

    Without this the log uses that space again for what comes next. On PostgreSQL it is a VACUUM of the log's tables.

    Example: midwatch keep vacuum
    """
    from midwatch_services.logger.keeping import vacuum as giving

    with the_log() as database:
        freed = giving.vacuum_full(database) if full else _vacuum(database)
        if as_json:
            emit_json([{"bytes": freed}])
        elif database.dialect == "postgresql":
            console.print("The log's tables are vacuumed: their space is used again for what comes next.")
        else:
            console.print(f"{freed / 1e6:,.1f} MB are the disk's again.")


def _vacuum(database: "Database") -> int:
    from midwatch_services.logger.keeping.vacuum import vacuum

    with bar("giving space back") as told:
        return vacuum(database, told=told)
