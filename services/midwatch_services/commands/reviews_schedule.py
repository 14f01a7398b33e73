"""`midwatch reviews schedule`: which share of each agent's runs is read, why it does not fall, and what waits."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from .output import JsonOption, clean, console, emit_json
from .reviews_read import read_queue, waits_for_more


def register(reviews: typer.Typer) -> None:
    """Adds the command to `reviews`."""
    reviews.command("schedule")(schedule)


def schedule(
    agent: Annotated[str | None, typer.Option(help="Only this agent.")] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Say which share of each agent's runs is drawn, by what that was decided, why it does not fall today, and how
    much waits to be read.

    Example: midwatch reviews schedule --agent refund-desk
    """
    from midwatch_services.reviewer_sampler.schedule.report import schedules

    rows = read_queue(lambda conn: schedules(conn, agent, datetime.now(UTC)))
    if as_json:
        emit_json(rows)
        return
    for row in rows:
        _print(row)
    if not rows:
        console.print(f"{clean(agent)} has not run yet." if agent else "No agent has run yet.")


def backlog_lines(agent: str | None) -> list[str]:
    """One line an agent whose runs wait, with what there is time for today and by when the rest is due."""
    from midwatch_services.reviewer_sampler.schedule import decide, store

    today = decide.day_of(datetime.now(UTC).timestamp())
    return [*map(_backlog, read_queue(lambda conn: store.backlog(conn, agent, today)))]


def _backlog(row: dict[str, Any]) -> str:
    head = f"{clean(row['agent'])}: {row['waiting']} waiting"
    if row["today"] == row["waiting"]:
        return f"{head}, time for all of them today"
    return f"{head}, time for {row['today']} today; the rest is due by {row['last_day']}"


def _print(row: dict[str, Any]) -> None:
    from midwatch_services.cards.values import percent

    steps = " → ".join(map(percent, row["steps"]))
    what = f" {clean(row['what'])}" if row["what"] else ""
    lines: Iterable[str] = (
        f"[bold]{clean(row['agent'])}[/bold]: {percent(row['rate'])} of runs drawn, step {row['step']} of {steps}, "
        f"since {row['since']} ({row['cause']}{what})",
        f"  {_judged(row)}",
        f"  {clean(row['why'])}",
        f"  {row['drawn_today']} drawn today; {_time(row)}; {_waits(row)}",
    )
    for line in lines:
        console.print(line, soft_wrap=True)


def _judged(row: dict[str, Any]) -> str:
    unsure = f", {row['unsure']} could not be judged" if row["unsure"] else ""
    if row["upper"] is None:
        return f"none judged yet{unsure}; the limit is {row['fail_limit']:.1%}{_pending(row)}"
    bound = f"at most {row['upper']:.1%} (95 %, Wilson), the limit is {row['fail_limit']:.1%}"
    return f"{row['judged']} judged, {row['failed']} failed{unsure}: {bound}{_pending(row)}"


def _pending(row: dict[str, Any]) -> str:
    return f"; {waits_for_more(row['pending'])}" if row["pending"] else ""


def _time(row: dict[str, Any]) -> str:
    if row["time_today"] is None:
        return "no limit of time"
    return f"time for {row['time_today']} a day ({row['minutes_a_day']} minutes, {row['seconds_each']:.0f} s each)"


def _waits(row: dict[str, Any]) -> str:
    if not row["waiting"]:
        return "nothing waits"
    days = row["backlog_days"]
    more = "done today" if not days else f"done in {days} more {'day' if days == 1 else 'days'}"
    return f"{row['waiting']} wait, {more}"
