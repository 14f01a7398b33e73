"""`midwatch demo`: see it work, on nothing but this machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import FAILED, clean, console, emit_table, fail

if TYPE_CHECKING:
    from midwatch_services.demo.story import Outcome

WITHIN = 60.0  # seconds


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("demo")(demo)


def demo(
    database: Annotated[
        str | None,
        typer.Option(envvar="MIDWATCH_DATABASE_URL", help="PostgreSQL to log to. Default: SQLite.", show_envvar=True),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the state folder, and say where it is.")] = False,
) -> None:
    """Show it working in under a minute: a loop stopped, a halt proved, people taking over. Needs no key.

    Everything runs in a state folder of its own, on free ports, beside whatever else runs here. Exit code 0 only if
    each step was seen from outside: in the run log, the alerts and the kill switch's reports.

    Example: midwatch demo --keep
    """
    import shutil
    import tempfile
    import time

    from midwatch.runtime.loop import run_until_signal

    home = Path(tempfile.mkdtemp(prefix="midwatch-demo-"))
    began = time.monotonic()
    result: list[Outcome | Exception] = []

    def say(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - began:5.1f} s[/dim]  {clean(line)}", soft_wrap=True)

    async def play() -> None:
        import asyncio

        from midwatch_services.demo import story

        try:
            async with asyncio.timeout(WITHIN):
                result.append(await story.tell(home, database, say))
        except TimeoutError:
            result.append(TimeoutError(f"the demo did not end within {WITHIN:g} s"))
        except Exception as error:
            result.append(error)

    try:
        run_until_signal(play)
        _end(result[0] if result else None, time.monotonic() - began)
    finally:
        if keep:
            console.print("The state folder is kept. To look around in it, while no other Midwatch is up:")
            console.print(f"MIDWATCH_HOME={home} midwatch up", soft_wrap=True)
        else:
            shutil.rmtree(home, ignore_errors=True)


def _end(result: "Outcome | Exception | None", seconds: float) -> None:
    if result is None:
        raise typer.Exit(130)
    if isinstance(result, Exception):
        fail(str(result) or repr(result))
    emit_table(
        ("ticket", "resolution", "cost_usd", "model_calls", "halted_by"),
        map(_shown, result.rows),
        empty="The run log is empty.",
    )
    console.print()
    for name, wrong in result.seen:
        console.print(f"  {'[green]seen[/green]    ' if wrong is None else '[red]not seen[/red]'}  {name}")
    if result.missing:
        fail(f"not seen from outside: {'; '.join(result.missing)}", FAILED)
    console.print(
        f"\nAll of it in {seconds:.0f} s. Next: [bold]midwatch up[/bold], and the ten-line agent of the README."
    )


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "halted_by": row["halted_by"] or ""}
