"""`midwatch erase cases`: files of the eval set that were made of runs which were erased since."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .eval_make import ROOT, Root
from .output import NOT_CONFIRMED, OK, USAGE, JsonOption, clean, console, count_of, emit_json, fail
from .runs import read_log

if TYPE_CHECKING:
    from midwatch_services.evals.erased import Standing


def cases(
    evals: Root = ROOT,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only name them.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Remove the files of the eval set that were made of runs which were erased, and their twins. What version control
    keeps of them is yours to remove.

    Exit code 0 once none is left, 3 where some stay; they are named, with what to do.

    Example: midwatch erase cases --evals evals
    """
    from midwatch_services.evals import erased

    if not evals.is_dir():
        fail(f"there is no {evals}: name the folder of the eval sets with --evals", USAGE)
    found = erased.standing(evals, read_log(erased.every))
    if not as_json:
        for one in found:
            console.print(f"{clean(one.path)}: of {clean(', '.join(one.runs))}", soft_wrap=True)
    if dry_run or not found:
        left = found
    else:
        _confirm(yes)
        left = erased.remove(found)
    gone = [one.path for one in found if one.path not in {other.path for other in left}]
    if as_json:
        emit_json([{"removed": gone, "left": _shown(left)}])
    else:
        console.print(f"{count_of(len(gone), 'file')} removed, {len(left):,} left", soft_wrap=True)
    raise typer.Exit(tell(_shown(left)))


def _confirm(yes: bool) -> None:
    try:
        if yes or typer.confirm("Remove them?", err=True):
            return
    except typer.Abort:
        fail("nothing was removed: say --yes where nobody can be asked", USAGE)
    fail("nothing was removed")


def holding(evals: Path, runs: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """The files that were made of these runs."""
    from midwatch_services.evals import erased

    return _shown(erased.standing(evals, {(agent, run_id) for agent, run_id in runs}))


def _shown(found: "Sequence[Standing]") -> list[dict[str, Any]]:
    import msgspec

    return [msgspec.structs.asdict(one) for one in found]


def tell(found: Sequence[dict[str, Any]]) -> int:
    """Names what stands still; the exit code that says so."""
    for one in found:
        what = one["why_not"] or "remove it with `midwatch erase cases`"
        sys.stderr.write(f"midwatch: {clean(one['path'])} holds what an erased run said: {clean(what)}\n")
    return NOT_CONFIRMED if found else OK
