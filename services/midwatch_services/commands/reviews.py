"""`midwatch reviews`: the runs that people are to read, and the proof that they were drawn fairly."""

import json
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from . import reviews_feedback, reviews_judge, reviews_schedule, reviews_work
from .output import FAILED, NOT_CONFIRMED, OK, USAGE, JsonOption, clean, console, emit_json, emit_table, fail
from .reviews_read import causes, read_queue

if TYPE_CHECKING:
    from midwatch_services.reviewer_sampler.verify import Report

_SHOWN = 50  # rows of the table unless --limit says otherwise
_COLUMNS = ("agent", "run_id", "ticket", "mode", "state", "verdict", "cause", "rate", "draw", "sampled_at")
_MISMATCHES = 20  # lines of a day that are printed


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    reviews = typer.Typer(invoke_without_command=True)
    reviews.callback()(queue)
    reviews.command("verify")(verify)
    reviews_judge.register(reviews)
    reviews_work.register(reviews)
    reviews_feedback.register(reviews)
    reviews_schedule.register(reviews)
    app.add_typer(reviews, name="reviews")


def queue(
    context: typer.Context,
    agent: Annotated[str | None, typer.Option(help="Only this agent's runs.")] = None,
    mode: Annotated[str | None, typer.Option(help="Only this mode; replays and drills are shown only so.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="How many; the table shows 50 by default.")] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """List the runs that people are to read, the newest first, and the share drawn of each agent's runs. A verdict is
    shown once it is settled.

    Example: midwatch reviews --agent refund-desk
    """
    if context.invoked_subcommand:
        return
    from midwatch.contracts.runs import Mode
    from midwatch_services.reviewer_sampler import store

    if mode and mode not in get_args(Mode):
        fail(f"{mode!r} is no mode: write one of {', '.join(get_args(Mode))}", USAGE)
    track = "replay" if mode == "replay" else "live"
    shown = limit if limit or as_json else _SHOWN
    rows, shares = read_queue(
        lambda conn: (
            store.queue(conn, agent=agent, mode=mode, limit=shown),
            store.shares(conn, agent=agent, track=track),
        )
    )
    if as_json:
        emit_json({**row, "causes": json.loads(row["causes"])} for row in rows)
        return
    emit_table(_COLUMNS, map(_cells, rows), empty="No run was drawn yet: the first event of each run decides.")
    for line in reviews_schedule.backlog_lines(agent) if mode in (None, "live") else ():
        console.print(line, soft_wrap=True)
    for share in shares:
        console.print(f"{clean(share['agent'])}: {share['drawn']} of {share['runs']} runs drawn ({share['share']:.1%})")


def verify(
    day: Annotated[str | None, typer.Option(help="Only this day (YYYY-MM-DD, UTC).", metavar="DAY")] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Recompute every draw of the days whose key is revealed. Exit code 1 on any mismatch, 3 if a day that was asked
    for cannot be judged.

    Example: midwatch reviews verify --day 2026-11-21
    """
    reports = _verify(day)
    if as_json:
        emit_json(reports)
    else:
        for report in reports:
            _print(report)
        if not reports:
            console.print("No day's key is revealed yet: it is once the day is over (UTC).")
    if any(report.verdict == "failed" for report in reports):
        raise typer.Exit(FAILED)
    raise typer.Exit(NOT_CONFIRMED if any(report.verdict == "inconclusive" for report in reports) else OK)


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    cause = ", ".join(causes(row))
    return {
        **row,
        "cause": cause,
        "rate": f"{row['rate']:.0%}",
        "draw": f"{row['draw']:.4f}",
        "sampled_at": row["sampled_at"][:19],
    }


def _print(report: "Report") -> None:
    of = "" if report.decided is None else f" of {report.decided} runs"
    logged = "" if report.logged is None else f", {report.logged} in the run log"
    note = f" ({report.note})" if report.note else ""
    console.print(f"{report.day}: {report.verdict}, {report.sampled} sampled{of}{logged}{note}", soft_wrap=True)
    for line in report.mismatches[:_MISMATCHES]:
        console.print(f"  {clean(line)}", soft_wrap=True)
    if len(report.mismatches) > _MISMATCHES:
        console.print(f"  … and {len(report.mismatches) - _MISMATCHES} more: --json names all")


def _verify(day: str | None) -> list["Report"]:
    import asyncio
    from datetime import date

    from midwatch.errors import MidwatchError
    from midwatch.runtime.settings import Settings
    from midwatch_services.cards.bucket import connected
    from midwatch_services.logger.store import read_firsts
    from midwatch_services.reviewer_sampler import audit
    from midwatch_services.reviewer_sampler.verify import verify

    settings = Settings()

    async def work() -> "list[Report]":
        async with connected(settings.url) as js:
            days, evidence = await audit.gather(js, settings, day, read_firsts)
        return [verify(one, evidence) for one in days]

    try:
        if day:
            date.fromisoformat(day)
        return asyncio.run(work())
    except ValueError:
        fail(f"{day!r} is no day: write YYYY-MM-DD", USAGE)
    except MidwatchError as error:
        fail(str(error))
