"""`midwatch eval add` and `import`: cases made of runs in the log, and of published run files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .output import FAILED, USAGE, JsonOption, clean, console, count_of, emit_json, fail

if TYPE_CHECKING:
    from midwatch_services.evals.case import Kind
    from midwatch_services.evals.make import Imported

Root = Annotated[
    Path, typer.Option("--evals", envvar="MIDWATCH_EVALS", help="The folder of the eval sets.", metavar="FOLDER")
]
ROOT = Path("evals")


def register(evals: typer.Typer) -> None:
    """Adds the commands to `midwatch eval`."""
    evals.command("add")(add)
    evals.command("import")(import_)


def add(
    runs: Annotated[list[str], typer.Argument(help="Ids of runs in the log.", metavar="RUN…")],
    agent: Annotated[str | None, typer.Option(help="Whose run, where two agents have one of this id.")] = None,
    turn: Annotated[
        int | None, typer.Option(min=1, help="End with the agent's answer to this customer's message.")
    ] = None,
    until: Annotated[int | None, typer.Option(min=0, help="End with the run's event of this seq.")] = None,
    name: Annotated[str | None, typer.Option(help="The case's name. Default: the run's id.")] = None,
    root: Root = ROOT,
) -> None:
    """Make a case of a logged run: its conversation, its tools' answers, and what it did as what to ask for. Of a run
    that a reviewer failed nothing is asked for until you write it. Exit code 1 if one makes no case.

    Example: midwatch eval add run-8c1f --turn 2
    """
    import re

    from midwatch.errors import MidwatchError
    from midwatch_services.evals import load, make
    from midwatch_services.evals.model import NAME

    if name is not None and len(runs) > 1:
        fail("--name names one case: give one run", USAGE)
    if name is not None and not re.match(NAME, name):
        fail(f"{clean(name)} is no name of a case: use lower-case letters, digits, `-` and `_`, at most 100", USAGE)
    failed = False
    for run in runs:
        try:
            whose = agent or make.whose(run)
            folder = load.folder_of(whose, root)
            path = make.of_run(run, agent=whose, name=name, turn=turn, until=until, folder=folder).save()
        except MidwatchError as error:
            failed = True
            typer.echo(f"midwatch: {_printable(str(error))}", err=True)
        else:
            console.print(f"{clean(path)}: written. Read it, then: midwatch eval agree {path.stem} --by YOU",
                          soft_wrap=True)  # fmt: skip
    if failed:
        raise typer.Exit(FAILED)


def import_(
    file: Annotated[Path, typer.Argument(help="A run file: `agentrun/1` or tau2 results, packed or not.")],
    agent: Annotated[str, typer.Option(help="Whose eval set it becomes.")],
    tools: Annotated[
        Path | None,
        typer.Option(help="What tools do: a scope card, or JSON. Default: the applied card.", metavar="FILE"),
    ] = None,
    runs: Annotated[str, typer.Option(help="Only these runs, by their ids.", metavar="ID,…")] = "",
    tasks: Annotated[str, typer.Option(help="Only runs of these tasks.", metavar="TASK,…")] = "",
    model: Annotated[str, typer.Option(help="Only runs of this model.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="At most so many cases, evenly over the tasks.")] = 60,
    out: Annotated[Path | None, typer.Option(help="Where to. Default: evals/AGENT.", metavar="FOLDER")] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Make cases of published runs, with the calls that their tasks expect as what to ask for. Exit code 1 if a run
    makes no case; the others are made.

    Example: midwatch eval import runs.jsonl.gz --agent airline-desk --tools tools.json
    """
    from midwatch.errors import MidwatchError
    from midwatch_services.evals import load, make
    from midwatch_services.evals.published import Wish

    wish = Wish(_listed(runs), _listed(tasks), model, limit)
    try:
        folder = out or load.folder_of(agent)
        done = list(make.import_runs(file, agent, _kinds(tools, agent), wish, folder))
    except MidwatchError as error:
        fail(_printable(str(error)))
    made = [one for one in done if one.path is not None]
    if as_json:
        emit_json({"run_id": one.run_id, "path": one.path and str(one.path), "why": one.why} for one in done)
    else:
        console.print(f"{count_of(len(made), 'case')} written to {clean(folder)}", soft_wrap=True)
    _remarks(done)
    if len(made) < len(done) or not made:
        raise typer.Exit(FAILED)


def _remarks(done: "list[Imported]") -> None:
    for one in done:
        if one.path is None:
            typer.echo(f"midwatch: {_printable(one.why)}", err=True)
    if unknown := sorted({tool for one in done for tool in one.unknown}):
        names = _printable(", ".join(unknown))
        typer.echo(f"note: nobody says what these tools do, so they count as no writes: {names}", err=True)
    if not done:
        typer.echo(
            "midwatch: no run of the file is of these tasks and this model and has a customer's message", err=True
        )


def _kinds(tools: Path | None, agent: str) -> "dict[str, dict[str, Kind]]":
    from midwatch.runtime.settings import Settings
    from midwatch_services.cards import CardErrors
    from midwatch_services.evals import kinds

    if tools is not None:
        try:
            return kinds.of_file(tools)
        except CardErrors as error:
            fail("\nmidwatch: ".join(error.lines), USAGE)
    applied = kinds.applied(Settings(), agent)
    if applied is None:
        fail(f"nobody says which tools write: give --tools FILE, or apply a scope card of {agent}", USAGE)
    return {"": applied}


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)
