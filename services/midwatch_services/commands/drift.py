"""`midwatch drift`: how each agent's runs have changed, in plain sentences."""

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from .output import FAILED, NOT_CONFIRMED, OK, USAGE, JsonOption, clean, console, emit_json, fail
from .runs import read_log

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import Connection

    from midwatch.contracts.runs import Mode
    from midwatch_services.drift.windows import Ended

Row = dict[str, Any]


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("drift")(drift)


def drift(
    agent: Annotated[str | None, typer.Option(help="Only this agent.")] = None,
    day: Annotated[
        str | None, typer.Option("--date", help="The day (YYYY-MM-DD, UTC). [default: yesterday]", metavar="DAY")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="days: only against the 28 days before; version: only the version before.")
    ] = None,
    mode: Annotated[str, typer.Option(help="live, shadow or replay; they are never mixed.")] = "live",
    now: Annotated[bool, typer.Option("--now", help="Judge from the log as it is now, not as it was judged.")] = False,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Say what has changed in an agent's runs that is no chance: how they end, hand-offs, tools, cost, tokens, time,
    length, and what customers write. Exit code 1 if something has, 3 if there are too few runs to say.

    Example: midwatch drift --agent refund-desk
    """
    from midwatch_services.drift.policy import TRACKS

    which = next((one for one in TRACKS if one == mode), None)
    if which is None:
        fail(f"{mode!r} is not judged: write one of {', '.join(TRACKS)}", USAGE)
    if against not in (None, "days", "version"):
        fail(f"{against!r} is nothing to compare with: write days or version", USAGE)
    wanted = _day(day)
    rows = ([] if now else _saved(agent, wanted, which)) or read_log(lambda conn: _judged(conn, agent, wanted, which))
    rows = [row for row in rows if against in (None, row["against"])]
    if as_json:
        emit_json(rows)
    else:
        _print(rows, agent, wanted, against)
    _end(rows)


def _day(day: str | None) -> str:
    try:
        chosen = date.fromisoformat(day) if day else datetime.now(UTC).date() - timedelta(days=1)
    except ValueError:
        fail(f"{day!r} is no day: write YYYY-MM-DD", USAGE)
    return chosen.isoformat()


def _end(rows: "Sequence[Row]") -> NoReturn:
    phases = {row["phase"] for row in rows}
    raise typer.Exit(FAILED if "failed" in phases else OK if "passed" in phases else NOT_CONFIRMED)


def _saved(agent: str | None, day: str, mode: "Mode") -> list[Row]:
    """What the service has judged; nothing where it has not."""
    from sqlalchemy.exc import OperationalError, ProgrammingError

    from midwatch.contracts import subjects
    from midwatch.errors import MidwatchError
    from midwatch.runtime.database import Database
    from midwatch.runtime.settings import Settings
    from midwatch_services.drift import store

    def read(conn: "Connection") -> list[Row]:
        found = store.read_findings(conn, agent, day, mode)
        return [
            row | {"findings": [one for one in found if _belongs(one, row)]}
            for row in store.read_judgements(conn, agent, day, mode)
        ]

    try:
        database = Database(Settings().database_for(subjects.DRIFT), name=subjects.DRIFT, must_exist=True)
    except MidwatchError:
        return []
    try:
        return database.read_now(read)
    except (OperationalError, ProgrammingError, MidwatchError):
        return []
    finally:
        database.close()


def _belongs(finding: Row, row: Row) -> bool:
    return bool(finding["agent"] == row["agent"] and finding["against"] == row["against"])


def _judged(conn: "Connection", agent: str | None, day: str, mode: "Mode") -> list[Row]:
    """The same, judged on the spot from the log."""
    from midwatch_services.drift import reading, windows
    from midwatch_services.drift.handlers import agents

    runs = [
        run
        for run in reading.ended(conn, windows.first_day(day))
        if run.mode == mode and agent in (None, run.agent) and run.day <= day
    ]
    names = [name for name, _ in agents(runs, {}, day)]
    return [row for name in names for row in _judge(conn, name, day, [run for run in runs if run.agent == name])]


def _judge(conn: "Connection", agent: str, day: str, runs: "Sequence[Ended]") -> list[Row]:
    import msgspec

    from midwatch_services.drift import decide, reading, windows
    from midwatch_services.drift.handlers import compared

    chosen = windows.choose(runs, day)
    wanted = {run_id for one in chosen for run_id in (*one.recent, *one.baseline)}
    facts = {one.run_id: one for one, _ in reading.read(conn, [run for run in runs if run.run_id in wanted])}
    head = {"agent": agent, "mode": runs[0].mode, "day": day}
    return [head | msgspec.to_builtins(verdict) for verdict in decide.judge(compared(chosen, facts))]


def _print(rows: "Sequence[Row]", agent: str | None, day: str, against: str | None) -> None:
    if not rows:
        whose = f" of {clean(agent)}" if agent else ""
        with_what = " with a version before to compare with" if against == "version" else ""
        console.print(f"No runs{whose}{with_what} in the week to {day}: nothing to say.")
    for row in rows:
        label = f"version {clean(row['label'])}" if row["against"] == "version" else clean(row["label"])
        console.print(f"[bold]{clean(row['agent'])}[/bold], {day} against {label}: {_outcome(row)}", soft_wrap=True)
        for finding in row["findings"]:
            console.print(f"  {clean(finding['sentence'])}. {_onset(finding)}", soft_wrap=True)
            console.print(f"    midwatch show {clean('  '.join(finding['runs'][:3]))}", soft_wrap=True, style="dim")


def _outcome(row: Row) -> str:
    from midwatch_services.drift import words

    if row["phase"] == "inconclusive":
        return words.too_few(row["recent_runs"], row["baseline_runs"], row["least"])
    counts = f"{row['recent_runs']} runs against {row['baseline_runs']}, {row['tests']} tests"
    changes = len(row["findings"])
    return f"{changes or 'no'} {'change' if changes == 1 else 'changes'} ({counts})"


def _onset(finding: Row) -> str:
    by_chance = f"Chance: {finding['q']:.1g}." if finding["q"] >= 1e-4 else "Chance: less than 1 in 10,000."
    how = {"sudden": f"Sudden, since {finding['onset_day']}. ", "slow": "Slow, over many days. "}
    return how.get(finding["onset"], "") + by_chance
