"""`midwatch reviews agreement` and `feedback`: how well reviewers agree, and what they corrected."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import OK, USAGE, JsonOption, clean, console, count_of, emit_json, fail
from .reviews_read import read_queue, waits_for_more

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from midwatch_services.reviewer_sampler.judging.agreement import Agreement, Rate
    from midwatch_services.reviewer_sampler.judging.feedback import Note

_NOT_A_WEEK = "is no week: write a year and its week, such as 2026-W48"
OfAgent = Annotated[str | None, typer.Option("--agent", help="Only this agent's runs.")]


def register(reviews: typer.Typer) -> None:
    """Adds the commands to the group."""
    reviews.command("agreement")(agreement)
    reviews.command("feedback")(feedback)


def agreement(agent: OfAgent = None, as_json: Annotated[bool, JsonOption] = False) -> None:
    """Tell how well reviewers agree beyond chance (Cohen's kappa, with its 95 % interval), and how often runs fail.

    Kappa is told from the runs that the hash drew for two; below 10 of them it says "too few". The failure rate is that
    of the runs drawn: those that are read for another cause are counted apart, since they are no sample of anything.

    Example: midwatch reviews agreement --agent refund-desk
    """
    from midwatch_services.reviewer_sampler.judging import agreement as statistics
    from midwatch_services.reviewer_sampler.judging import reading

    reads = read_queue(lambda conn: reading.reads(conn, agent))
    found = statistics.of(sorted({read.agent for read in reads}), reads)
    if as_json:
        emit_json(found)
        return
    for one in found:
        _print(one)
    if not found:
        console.print("No run was judged yet: begin with `midwatch reviews work`.")


def _print(one: "Agreement") -> None:
    from midwatch_services.reviewer_sampler.judging.agreement import shown

    disputed = f", {one.disputed:,} of them disputed ({one.disputed / one.read_twice:.0%})" if one.read_twice else ""
    console.print(f"[bold]{clean(one.agent)}[/]: {count_of(one.settled, 'run')} settled; "
                  f"{one.read_twice:,} drawn for two were read by two{disputed}", soft_wrap=True)  # fmt: skip
    console.print(
        f"  failure rate, of {one.drawn.judged:,} drawn: {shown(one.drawn)}{_pending(one.drawn)}", soft_wrap=True
    )
    others = f"{shown(one.others)}{_pending(one.others)}"
    console.print(f"  of {one.others.judged:,} read for another cause, counted apart: {others}", soft_wrap=True)
    console.print(f"  kappa of the first two: {shown(one.by_agent)}", soft_wrap=True)
    for title, some in (("kappa of two people", one.by_pair), ("kappa with what stands", one.by_reviewer)):
        for kappa in some:
            console.print(f"  {title}, {clean(kappa.who)}: {shown(kappa)}", soft_wrap=True)


def _pending(rate: "Rate") -> str:
    return f"; {waits_for_more(rate.pending)}" if rate.pending else ""


def feedback(
    agent: OfAgent = None,
    week: Annotated[
        str | None, typer.Option(help="An ISO week (UTC), such as 2026-W48. Default: the last that is over.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the Markdown into this file.")] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """What people corrected in a week, by reason, as Markdown: each run with the customer's question, what the agent
    said, and what it should have said.

    Example: midwatch reviews feedback --agent refund-desk --week 2026-W48 --out corrections.md
    """
    from midwatch_services.reviewer_sampler.judging import feedback as notes

    wanted = week or notes.last_week(datetime.now(UTC))
    try:
        notes.bounds(wanted)
    except (ValueError, OverflowError):
        fail(f"{wanted!r} {_NOT_A_WEEK}", USAGE)
    if as_json:
        emit_json(read_queue(lambda conn: _corrections(conn, wanted, agent)))
        return
    text = "\n".join(_markdown(read_queue(lambda conn: _notes(conn, wanted, agent)), wanted))
    if out is None:
        typer.echo(text, nl=False)
        raise typer.Exit(OK)
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(f"{out} cannot be written: {error.strerror or error}")
    console.print(f"{clean(out)}: written")


def _notes(conn: "Connection", week: str, agent: str | None) -> list["Note"]:
    from midwatch.runtime.settings import Settings
    from midwatch_services.reviewer_sampler.judging import reading, sources

    agents = [agent] if agent else reading.agents(conn)
    made = sources.notes(conn, Settings(), week, agents, without_log=True)
    return [note for note in made if agent or note.groups]


def _markdown(notes: list["Note"], week: str) -> list[str]:
    from midwatch_services.reviewer_sampler.judging import render

    return [render.markdown(note) for note in notes] or [f"# What people corrected: week {week}\n\nNothing.\n"]


def _corrections(conn: "Connection", week: str, agent: str | None) -> list[Any]:
    from midwatch_services.reviewer_sampler.judging import feedback as notes
    from midwatch_services.reviewer_sampler.judging import reading

    since, until = notes.bounds(week)
    return reading.corrections(conn, since, until, agent)
