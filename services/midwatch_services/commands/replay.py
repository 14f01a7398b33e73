"""`midwatch replay`: published run files, published again as run events."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .output import FAILED, USAGE, JsonOption, clean, console, emit_json, fail

if TYPE_CHECKING:
    from midwatch_services.replay.session import Totals, Wish

Files = Annotated[list[Path], typer.Argument(help="Run files: `agentrun/1` or tau2 results, packed or not.")]


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("replay")(replay)


def replay(
    files: Files,
    speed: Annotated[str, typer.Option(help="max, or a multiple of the recorded pace: 1x, 10x.")] = "max",
    agent: Annotated[str | None, typer.Option(help="Only the runs of this agent.")] = None,
    obey: Annotated[bool, typer.Option("--obey", help="Stop a run where the switch stops it.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many runs.")] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Publish recorded runs as run events, with their own times and in mode `replay`.

    Every recorded event is published, whatever the switch says; a halt is recorded as what would have halted. Replaying
    again adds nothing. With --obey each run is a new one that stops where the switch stops it, and needs its agent's
    card. Exit code 1 if a line of a file could not be read; the others are replayed.

    Example: midwatch replay runs.jsonl.gz --speed max
    """
    import asyncio

    from midwatch_services.replay.session import Wish

    totals = asyncio.run(_watched(Wish(files, _speed(speed), agent, obey, limit), as_json=as_json))
    for bad in totals.bad:
        typer.echo(f"midwatch: {clean(bad.place)}: {clean(bad.error)}", err=True)
    if not as_json:
        console.print(
            f"{totals.runs:,} runs, {totals.published:,} events published, {totals.known:,} already known"
            + (f", {len(totals.bad):,} entries not read" if totals.bad else "")
        )
    if totals.bad:
        raise typer.Exit(FAILED)


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        speed = float(text.removesuffix("x"))
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        fail(
            f"--speed {clean(text)} is no speed: give max, or a multiple of the recorded pace such as 1x or 10x", USAGE
        )
    return speed


async def _watched(wish: "Wish", *, as_json: bool) -> "Totals":
    """Replays with a progress bar on standard error, over the bytes of the files."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    from midwatch.runtime.settings import Settings
    from midwatch_services.replay.player import Played
    from midwatch_services.replay.session import replay as play

    sizes = {path: path.stat().st_size if path.is_file() else 0 for path in wish.files}
    columns = (TextColumn("{task.fields[runs]:,} runs"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("replay", total=sum(sizes.values()), runs=0)
        runs = 0

        def told(path: Path, position: int, entry: object) -> None:
            nonlocal runs
            before = sum(sizes[other] for other in wish.files[: wish.files.index(path)])
            if isinstance(entry, Played):
                runs += 1
                if as_json:
                    emit_json([entry])
            bar.update(task, completed=before + position, runs=runs)

        return await play(wish, Settings(), told)
