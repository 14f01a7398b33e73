"""`midwatch eval stress` and `judge`: messier twins of the cases, and how far a judge of your own is to be trusted."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .eval_make import ROOT, Root
from .output import FAILED, USAGE, JsonOption, clean, console, count_of, emit_json, fail

if TYPE_CHECKING:
    from midwatch_services.evals.measure import Measurement
    from midwatch_services.evals.model import Perturbation

_SILENT = 5  # runs without an answer that are named


def register(evals: typer.Typer) -> None:
    """Adds the commands to `midwatch eval`."""
    evals.command("stress")(stress)
    evals.command("judge")(judge)


def stress(
    agent: Annotated[str, typer.Argument(help="Whose eval set.", metavar="AGENT")],
    kinds: Annotated[
        str, typer.Option(help="Which, of typos, shouting, several, language, instruct.", metavar="KIND,…")
    ] = "typos,shouting,several,language,instruct",
    language: Annotated[str, typer.Option(help="Of the twins in another language: de, fr, es or it.")] = "de",
    translate: Annotated[
        str | None,
        typer.Option(help="A function (text, language) of yours that translates.", metavar="MODULE:FUNCTION"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed makes other twins.")] = 0,
    root: Root = ROOT,
) -> None:
    """Write perturbed twins of an agent's cases: typing mistakes, shouting, several requests at once, another language,
    an attempt to instruct. What is asked stays; twins are reported apart and never gate. Without --translate only the
    sentences around the customer's own words are in the other language. Writes over the twins of these kinds.

    Example: midwatch eval stress refund-desk --kinds typos,instruct
    """
    from midwatch.errors import MidwatchError
    from midwatch_services.evals import erased, judges, load, stressing
    from midwatch_services.evals.stress import Wish

    wanted = _kinds(kinds)
    try:
        found = erased.read(agent, root)
        cases, broken = load.told(found)
        function = judges.load_judge(translate) if translate else None
        wish = Wish(wanted, language, function, seed)  # type: ignore[arg-type]
        written = stressing.write_twins(load.folder_of(agent, root), cases, wish)
    except MidwatchError as error:
        fail(str(error))
    for kind in wanted:
        made = sum(one.twin.perturbation == kind for one in written)
        own = sum(not case.twin_of for case in cases)
        short = " (there is no other case to take a request from)" if made < own else ""
        console.print(f"{kind}: {count_of(made, 'twin')}{short}")
    for line in broken:
        if f"/{load.STRESS}/" not in line.replace("\\", "/"):  # of twins, what was wrong is written anew
            typer.echo(_printable(line), err=True)
    for line in found.erased:
        typer.echo(_printable(line), err=True)
    if not written:
        fail(f"{agent} has no case to make twins of: midwatch eval add RUN")


def judge(
    agent: Annotated[str, typer.Argument(help="Whose reviewed runs.", metavar="AGENT")],
    function: Annotated[str, typer.Argument(help="The judge.", metavar="MODULE:FUNCTION")],
    root: Root = ROOT,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Hold a judge of your own against the verdicts that people agreed on, and keep the count in judges.yaml. A judge
    is a case's only criterion once it has agreed with people often enough. Exit code 1 if it has not.

    Example: midwatch eval judge refund-desk my_judges:polite
    """
    import asyncio

    from midwatch.errors import MidwatchError
    from midwatch.runtime.settings import Settings
    from midwatch_services.evals import judges, load, measure, trusted

    now = datetime.now(UTC)
    try:
        folder = load.folder_of(agent, root)
        found = asyncio.run(measure.measure(Settings(), agent, function, judges.load_judge(function)))
        path = measure.keep(folder, found, now)
    except MidwatchError as error:
        fail(str(error))
    known, _ = trusted.read(folder)
    trusts = trusted.trusts(known, function)
    if as_json:
        emit_json([{**found.entry(now), "trusted": trusts, "silent": dict(found.silent)}])
    else:
        _tell(found, path, trusts)
    if not trusts:
        raise typer.Exit(FAILED)


def _tell(found: "Measurement", path: Path, trusts: bool) -> None:
    from midwatch_services.evals import judges, trusted

    kappa = judges.kappa(found.pairs)
    share = "not known, since all verdicts are alike" if kappa is None else f"{kappa:.2f}"
    console.print(f"{clean(found.spec)} agreed with people on {found.agreed:,} of {count_of(found.runs, 'run')}, "
                  f"kappa {share}; kept in {clean(path)}", soft_wrap=True)  # fmt: skip
    for run_id, why in found.silent[:_SILENT]:
        typer.echo(f"no answer on run {_printable(run_id)}: {_printable(why)}", err=True)
    if len(found.silent) > _SILENT:
        typer.echo(f"no answer on {len(found.silent) - _SILENT} more", err=True)
    wanted = f"{trusted.ENOUGH} runs agreed on and a kappa of {trusted.KAPPA:g}"
    console.print(
        "It may be a case's only criterion." if trusts else f"It may not stand alone yet: that takes {wanted}."
    )


def _kinds(text: str) -> "tuple[Perturbation, ...]":
    from midwatch_services.evals.model import PERTURBATIONS

    named = [part.strip() for part in text.split(",") if part.strip()]
    wrong = [name for name in named if name not in PERTURBATIONS]
    if wrong or not named:
        fail(f"--kinds {clean(text)}: the kinds are {', '.join(PERTURBATIONS)}", USAGE)
    return tuple(kind for kind in PERTURBATIONS if kind in named)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)
