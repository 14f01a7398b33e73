"""`midwatch eval list`, `show`, `check` and `agree`: what the eval set holds, and who agrees with it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .eval_make import ROOT, Root
from .output import FAILED, NOT_CONFIRMED, JsonOption, clean, console, count_of, emit_json, emit_table, fail

if TYPE_CHECKING:
    from midwatch_services.evals.case import Case

_COLUMNS = ("case", "gates", "why not", "about")
CaseArgument = Annotated[str, typer.Argument(help="The case's name.", metavar="CASE")]
AgentOption = Annotated[str | None, typer.Option(help="Whose case, where two agents have one of this name.")]


def register(evals: typer.Typer) -> None:
    """Adds the commands to `midwatch eval`."""
    evals.command("list")(list_)
    evals.command("show")(show)
    evals.command("check")(check)
    evals.command("agree")(agree)


def list_(
    agent: Annotated[str, typer.Argument(help="Whose eval set.", metavar="AGENT")],
    root: Root = ROOT,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """List the cases of an agent: which of them gate a change, and what keeps the others from it.

    Example: midwatch eval list refund-desk
    """
    from midwatch.errors import MidwatchError
    from midwatch_services.evals import erased, load
    from midwatch_services.evals.judge import gates

    try:
        found = erased.read(agent, root)
    except MidwatchError as error:
        fail(str(error))
    cases, broken = load.told(found)
    rows = [(case, *gates(case)) for case in cases]
    if as_json:
        emit_json(
            {"case": case.name, "gates": does, "why_not": why, "agreed": len(case.agrees), "about": case.note,
             "task": case.task, "twin_of": case.twin_of, "perturbation": case.perturbation, "hash": case.hash,
             "criteria": case.expect.hash, "path": case.path}
            for case, does, why in rows
        )  # fmt: skip
    else:
        shown = ({"case": case.name, "gates": "yes" if does else "no", "why not": why, "about": case.note or case.task}
                 for case, does, why in rows if not case.twin_of)  # fmt: skip
        emit_table(_COLUMNS, shown, empty="No case yet: midwatch eval add RUN")
        twins = sum(bool(case.twin_of) for case in cases)
        gating = sum(does for _, does, _ in rows)
        more = f", and {count_of(twins, 'twin')} of them" if twins else ""
        console.print(f"{count_of(len(cases) - twins, 'case')}, of which {gating:,} gate{more}")
    _tell([*broken, *found.erased])


def show(
    case: CaseArgument,
    agent: AgentOption = None,
    root: Root = ROOT,
) -> None:
    """Show a case: the conversation and what is asked of the agent. Who agreed is left out, so that you judge for
    yourself.

    Example: midwatch eval show duplicate-charge
    """
    _print(*_find([case], agent, root))


def check(
    agent: Annotated[str | None, typer.Argument(help="Whose eval set. Default: all.", metavar="[AGENT]")] = None,
    root: Root = ROOT,
) -> None:
    """Check the files of the eval set. Exit code 1 if one is wrong, or was made of a run that was erased since; every
    mistake is named with its place.

    Example: midwatch eval check
    """
    from midwatch.errors import MidwatchError
    from midwatch_services.evals import erased

    wrong = False
    for whose in [agent] if agent else _agents(root):
        try:
            found = erased.read(whose, root)
        except MidwatchError as error:
            fail(str(error))
        lines = [*(line for some in found.broken for line in some), *found.erased]
        wrong = wrong or bool(lines)
        _tell(lines)
        gone = f", {len(found.erased):,} of erased runs" if found.erased else ""
        console.print(f"{clean(whose)}: {count_of(len(found.cases), 'case')} ok, {len(found.broken):,} not{gone}")
    if wrong:
        raise typer.Exit(FAILED)


def agree(
    cases: Annotated[list[str], typer.Argument(help="The cases' names.", metavar="CASE...")],
    by: Annotated[str, typer.Option(help="Who you are.", metavar="NAME")],
    agent: AgentOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask: you have read them.")] = False,
    root: Root = ROOT,
) -> None:
    """Agree with what cases ask. Two different people make one gate; a change of its criteria takes both anew. Exit
    code 3 if you say no to one.

    Example: midwatch eval agree duplicate-charge --by ana
    """
    answers = [_agree(case, by, yes) for case in _find(cases, agent, root)]
    if not all(answers):
        raise typer.Exit(NOT_CONFIRMED)


def _agree(case: "Case", by: str, yes: bool) -> bool:
    from midwatch.errors import MidwatchError
    from midwatch_services.evals import agreeing
    from midwatch_services.evals.judge import gates

    try:
        agreeing.may_agree(case, by)
        if not yes:
            _print(case)
            try:
                sure = typer.confirm("Is this what the agent should do, no more and no less?")
            except typer.Abort:
                sure = False
            if not sure:
                console.print(f"{clean(case.name)}: nothing was noted.")
                return False
        now = agreeing.agree(case, by, datetime.now(UTC))
    except MidwatchError as error:
        fail(str(error))
    does, why = gates(now)
    console.print(f"{clean(now.name)}: noted. " + ("It gates now." if does else f"It does not gate yet: {clean(why)}."),
                  soft_wrap=True)  # fmt: skip
    return True


def _find(names: list[str], agent: str | None, root: Path) -> "list[Case]":
    from midwatch.errors import MidwatchError
    from midwatch_services.evals import erased, load

    found: dict[str, list[Case]] = {name: [] for name in names}
    broken: list[str] = []
    for whose in [agent] if agent else _agents(root):
        try:
            here = erased.read(whose, root)
        except MidwatchError as error:
            fail(str(error))
        cases, lines = load.told(here)
        broken += [*lines, *here.erased]
        for case in cases:
            if case.name in found:
                found[case.name].append(case)
    for name, some in found.items():
        if len(some) > 1:
            fail(f"{', '.join(one.agent for one in some)} each have a case {name}: say whose with --agent")
        if not some:
            _tell(broken)
            fail(f"there is no case {clean(name)} in {root}: `midwatch eval list AGENT` names them")
    return [some[0] for some in found.values()]


def _agents(root: Path) -> list[str]:
    from midwatch.contracts.subjects import is_agent_name

    if not root.is_dir():
        fail(f"there is no {root}: make cases with `midwatch eval add RUN`, or name the folder with --evals")
    return sorted(path.name for path in root.iterdir() if path.is_dir() and is_agent_name(path.name))


def _print(case: "Case") -> None:
    from midwatch_services.evals.words import lines

    for heading, text in lines(case):
        console.print(f"[bold]{heading}[/bold] {clean(text)}" if heading else f"  {clean(text)}", soft_wrap=True)


def _tell(lines: list[str]) -> None:
    for line in lines:
        typer.echo("".join(char if char.isprintable() else " " for char in line), err=True)
