"""`midwatch eval run`: the cases of an agent, replayed against a version of it."""

import asyncio
import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TextIO

import typer

from .eval_make import ROOT, Root
from .output import FAILED, USAGE, JsonOption, clean, console, count_of, emit_table, fail
from .progress import bar

if TYPE_CHECKING:
    from midwatch_services.evals.case import Case
    from midwatch_services.evals.outcome import Outcome, Results
    from midwatch_services.evals.replay import Judging
    from midwatch_services.evals.targets.opening import Wanted
    from midwatch_services.evals.totals import Failed, Totals

_MISSING = ("nearest", "fail")
_COLUMNS = ("case", "passed", "why")
_SHOWN = 50  # failed cases that are printed
_WHY = 200  # characters of why one failed


class _How(NamedTuple):
    """How it is replayed, and where the results go. `broken`: files that could not be read. `gating`:
    how many cases of the whole set gate."""

    agent: str
    repeats: int
    concurrency: int
    out: Path
    broken: list[str]
    gating: int


def register(evals: typer.Typer) -> None:
    """Adds the command to the group."""
    evals.command("run")(run)


def run(
    agent: Annotated[str, typer.Argument(help="Whose cases: those in FOLDER/AGENT.")],
    target: Annotated[
        str, typer.Option(help="module:function, file.py:function, http://…, nats, or recorded:FILE.", metavar="TARGET")
    ],
    version: Annotated[str, typer.Option(help="What is tested: your word for its prompt and code.")],
    repeats: Annotated[int, typer.Option(min=1, help="Times each case is replayed; more than half must pass.")] = 1,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Replays at a time.")] = 8,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for the answer to one turn.")] = 60.0,
    missing: Annotated[
        str | None, typer.Option(help="What answers a call that was not recorded: nearest, or fail. Default: the case.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only this case, and its twins. May be repeated.")] = None,
    stress: Annotated[bool, typer.Option("--stress/--no-stress", help="Perturbed twins as well.")] = True,
    model: Annotated[str | None, typer.Option(help="With recorded:FILE, only runs by this model.")] = None,
    out: Annotated[Path | None, typer.Option(help="Default: FOLDER/AGENT/results/VERSION.json.")] = None,
    folder: Root = ROOT,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Replay an agent's cases, its tools answered from the recordings, and keep the results for the gate.

    Nothing outside is called and nothing is published. Exit code 0 if every case could be replayed, however many
    passed; 1 if one could not, or a file could not be read: the others still were.

    Example: midwatch eval run refund-desk --target my_agent:answer --version 2026-11-22
    """
    from midwatch.contracts.subjects import is_agent_name
    from midwatch.errors import BadAgentName
    from midwatch.runtime.settings import Settings
    from midwatch_services.evals import keep
    from midwatch_services.evals.targets.opening import Wanted

    if missing not in (None, *_MISSING):
        fail(f"--missing {missing!r}: choose {' or '.join(_MISSING)}", USAGE)
    if not is_agent_name(agent):
        raise BadAgentName(agent=agent)
    cases, broken, erased, gating = _cases(folder / agent, only or [], stress)
    settings = Settings()
    _use_prices(settings)
    wanted = Wanted(target, version, timeout, missing, model, settings.url)  # type: ignore[arg-type]
    how = _How(agent, repeats, concurrency, out or keep.usual_path(folder, agent, version), broken, gating)
    stdout = sys.stdout if as_json else None
    with contextlib.redirect_stdout(sys.stderr):  # a judge function may print as well
        totals, seconds, printed = asyncio.run(_replayed(cases, wanted, _judging(timeout), how, stdout))
    if not as_json:
        _report(totals, seconds, how.out)
    if printed:
        sys.stderr.write(f"midwatch: the target wrote to standard output: {clean(printed)}\n")
    lines = [*broken, *totals.broken]
    for line in [*lines, *erased]:
        sys.stderr.write(f"midwatch: {clean(line)}\n")
    if lines:
        raise typer.Exit(FAILED)


def _cases(folder: Path, only: Sequence[str], stress: bool) -> "tuple[list[Case], list[str], list[str], int]":
    """The cases that are wanted, a line for each file that cannot be read, and for each case of an erased run, and how
    many of all cases gate."""
    if not folder.is_dir():
        fail(f"there is no eval set in {folder}: make cases with `midwatch eval add`, or name its folder with --evals")
    from midwatch_services.evals import erased, judge, load

    whole = erased.read(folder)
    cases, broken = load.told(whole)
    known = {case.name for case in cases}
    if unknown := [name for name in only if name not in known]:
        fail(f"there is no case {unknown[0]!r} in {folder}: `midwatch eval list` names them", USAGE)
    found = [
        case
        for case in cases
        if (stress or not case.twin_of) and (not only or case.name in only or case.twin_of in only)
    ]
    if not found:
        for line in [*broken, *whole.erased]:
            sys.stderr.write(f"midwatch: {clean(line)}\n")
        fail(f"there is no case to replay in {folder}: make one with `midwatch eval add`")
    return found, broken, whole.erased, sum(judge.gates(case)[0] for case in cases)


def _use_prices(settings: Any) -> None:
    from midwatch.runtime import price_book
    from midwatch.runtime.price_file import PriceErrors

    try:
        price_book.use(settings)
    except PriceErrors as error:
        fail(f"your own prices have mistakes: {error.lines[0]}")


def _judging(within: float) -> "Judging":
    from functools import cache

    from midwatch.errors import MidwatchError
    from midwatch_services.evals import judge, judges
    from midwatch_services.evals.replay import Judging

    load = cache(judges.load_judge)

    async def ask(case: "Case", outcome: "Outcome") -> tuple[bool | None, str]:
        try:
            said = await judges.ask(load(case.expect.judge), case, outcome, within)
        except MidwatchError as error:
            return None, str(error)
        return said.ok, said.said

    return Judging(judge.evaluate, judge.gates, ask)


async def _replayed(
    cases: "list[Case]", wanted: "Wanted", judging: "Judging", how: _How, stdout: TextIO | None
) -> "tuple[Totals, float, str]":
    """Replays, writes each result as it is known, and gives what they come to, the seconds that it took, and the first
    line that the target printed."""
    import msgspec

    from midwatch_services.evals.keep import ResultsFile
    from midwatch_services.evals.replay import replay
    from midwatch_services.evals.targets.opening import opened
    from midwatch_services.evals.totals import Totals

    places, totals, began = {case.name: place for place, case in enumerate(cases)}, Totals(), time.perf_counter()
    async with opened(wanted, cases) as target:
        going = replay(cases, target, judging, repeats=how.repeats, concurrency=how.concurrency)
        with bar("replaying") as told, ResultsFile(how.out) as file:
            async with contextlib.aclosing(going):
                async for result in going:
                    totals.add(result)
                    told(totals.cases.count + totals.twins.count, len(cases))
                    file.add(places[result.case], result)
                    if stdout is not None:
                        stdout.write(msgspec.json.encode(result).decode() + "\n")
                        stdout.flush()
            seconds = time.perf_counter() - began
            file.finish(_head(wanted, how, cases, totals, seconds))
    printed = getattr(target, "printed", None)
    return totals, seconds, printed.line if printed else ""


def _head(wanted: "Wanted", how: _How, cases: "list[Case]", totals: "Totals", seconds: float) -> "Results":
    from midwatch.contracts.envelope import utc_now
    from midwatch_services.evals.outcome import Results, set_hash

    return Results(
        agent=how.agent, version=wanted.version, target=wanted.shown, at=utc_now().isoformat(), repeats=how.repeats,
        eval_set=set_hash(case.hash for case in cases), seconds=round(seconds, 3), cost_usd=totals.cost_usd,
        broken=how.broken, gating=how.gating,
    )  # fmt: skip


def _report(totals: "Totals", seconds: float, path: Path) -> None:
    for what, part in (("case", totals.cases), ("perturbed twin", totals.twins)):
        if part.count:
            console.print(f"{count_of(part.count, what)}, {part.passed:,} passed", soft_wrap=True)
        if part.failed:
            emit_table(_COLUMNS, map(_cells, part.failed[:_SHOWN]), empty="")
        if len(part.failed) > _SHOWN:
            console.print(f"… and {len(part.failed) - _SHOWN:,} more: the results file has all")
    console.print(f"{_cost(totals)}; {seconds:,.1f} s; results in {clean(path)}", soft_wrap=True)


def _cost(totals: "Totals") -> str:
    """What it cost, in words; what nobody knows is no part of the sum."""
    from midwatch.contracts.money import dollars

    if not totals.billed:
        return "no model call was seen"
    known = f"cost {dollars(totals.known)}"
    if not totals.unknown:
        return known
    unknown = f"{count_of(totals.unknown, 'attempt')} whose price nobody knows"
    return f"cost unknown, of {unknown}" if totals.unknown == totals.billed else f"{known}, and {unknown}"


def _cells(failed: "Failed") -> dict[str, str]:
    why = failed.why if len(failed.why) <= _WHY else failed.why[:_WHY] + "…"
    return {"case": failed.case, "passed": f"{failed.passed} of {failed.attempts}", "why": why}
