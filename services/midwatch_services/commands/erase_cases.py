"""`midwatch erase cases`: files of the eval set that were made of runs which were erased since."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .eval_make import ROOT, Root
from .output import LEFT, OK, USAGE, JsonOption, clean, confirm, console, count_of, emit_json, fail
from .runs import read_log

if TYPE_CHECKING:
    from midwatch_services.evals.erased import Standing


def cases(
    evals: Root = ROOT,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only name them.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Remove the files of the eval set that were made of runs which were erased, and their twins, and blank the results
    of their replays. What version control keeps of them is yours to remove.

    Exit code 0 once none is left, 4 where some stay; they are named, with what to do.

    Example: midwatch erase cases --evals evals
    """
    from midwatch_services.evals import erased

    if not evals.is_dir():
        fail(f"there is no {evals}: name the folder of the eval sets with --evals", USAGE)
    found = erased.standing(evals, read_log(erased.every))
    if not as_json:
        for one in found:
            of = f"of {', '.join(one.runs)}" if one.runs else "it may be of an erased run"
            console.print(f"{clean(one.path)}: {clean(of)}", soft_wrap=True)
    if dry_run or not found:
        left = found
    else:
        confirm("Remove them?", yes, "nothing was removed")
        left = erased.remove(found)
    done = [one for one in found if one.path not in {other.path for other in left}]
    gone, blanked = ([one.path for one in done if bool(one.replays) is of_results] for of_results in (False, True))
    if as_json:
        emit_json([{"removed": gone, "blanked": blanked, "left": _shown(left)}])
    else:
        more = f", {count_of(len(blanked), 'file')} of results blanked" if blanked else ""
        console.print(f"{count_of(len(gone), 'file')} removed{more}, {len(left):,} left", soft_wrap=True)
    raise typer.Exit(tell(_shown(left)))


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
        what = one["why_not"] or f"{'blank' if one['replays'] else 'remove'} it with `midwatch erase cases`"
        holds = "holds" if one["runs"] else "may hold"
        sys.stderr.write(f"midwatch: {clean(one['path'])} {holds} what an erased run said: {clean(what)}\n")
    return LEFT if found else OK


def tell_unlooked(evals: Path) -> None:
    """Says so where there is no folder in which cases were looked for."""
    try:
        evals.stat()
    except (FileNotFoundError, NotADirectoryError):
        sys.stderr.write(
            f"midwatch: no eval case was looked for, since there is no {clean(evals)}: run `midwatch erase cases "
            "--evals FOLDER` where the eval set lies\n"
        )
    except OSError:
        return  # `tell` names it
