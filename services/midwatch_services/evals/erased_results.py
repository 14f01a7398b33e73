"""What erased runs said in the results of replays: which files hold it, and how it is taken out of them. How each case
ended stays, by which the gate judges."""

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct, structs

from . import gate_files
from .keep import ResultsFile
from .outcome import Attempt, CaseResult, Outcome

ERASED = "the run was erased on request"


class Standing(Struct, frozen=True, kw_only=True):
    """A file that holds what an erased run said; `runs`: as far as it is told of which. `why_not`: why no command
    removes it. `replays`: of a file of results, the cases whose replays are taken out of it."""

    agent: str
    path: str
    runs: list[str]
    why_not: str = ""
    replays: list[str] = []


def unseen(agent: str, path: Path, error: OSError) -> Standing:
    """A file or folder that cannot be looked at."""
    why_not = f"it cannot be looked at ({(error.strerror or str(error)).lower()}): look for the run there yourself"
    return Standing(agent=agent, path=str(path), runs=[], why_not=why_not)


def linked(path: Path) -> str:
    """Why no command removes a link; empty for a file."""
    return "it is a link: remove it, and what it leads to, by hand" if path.is_symlink() else ""


def standing(folder: Path, cases: Mapping[str, str], runs: set[str]) -> list[Standing]:
    """The files of an agent's results that hold what these runs said. `cases`: of which run each of the set is."""
    inside = folder / gate_files.RESULTS
    try:
        paths = sorted(path for path in inside.iterdir() if path.suffix == ".json")
    except FileNotFoundError:
        return []
    except OSError as error:
        return [unseen(folder.name, inside, error)]
    return [one for path in paths if (one := _of_file(folder.name, path, cases, runs))]


def _of_file(agent: str, path: Path, cases: Mapping[str, str], runs: set[str]) -> Standing | None:
    try:
        results = gate_files.read(path, agent).results
    except gate_files.BadResults:
        why_not = "it cannot be read as results: look at it, and remove it by hand"
        return Standing(agent=agent, path=str(path), runs=[], why_not=why_not)
    named: set[str] = set()
    replays, untold = [], False
    for one in results:
        of = {cases.get(one.case, ""), cases.get(one.twin_of, ""), *(one.runs or ())} & runs
        if (of and one.runs != []) or (one.runs is None and one.perturbation == "several"):
            replays.append(one.case)
            named |= of
        untold = untold or (one.runs is None and (one.twin_of or one.case) not in cases)
    if not replays and not untold:
        return None
    why = "it has replays of cases that are not there, of which nobody can tell the run: replay anew, and remove it"
    why_not = linked(path) or (why if untold else "")
    return Standing(agent=agent, path=str(path), runs=sorted(named), why_not=why_not, replays=replays)


def blank(standing: Standing) -> None:
    """Takes what was said and done in these replays out of the file. Raises BadResults, NotWritten."""
    path = Path(standing.path)
    results = gate_files.read(path, standing.agent)
    with ResultsFile(path) as file:
        for place, one in enumerate(results.results):
            file.add(place, _blanked(one) if one.case in standing.replays else one)
        file.finish(structs.replace(results, results=[]))


def _blanked(result: CaseResult) -> CaseResult:
    return structs.replace(result, runs=[], attempts=[_without_words(one) for one in result.attempts])


def _without_words(attempt: Attempt) -> Attempt:
    was = attempt.outcome
    return Attempt(
        passed=attempt.passed,
        findings=[structs.replace(one, said=ERASED) for one in attempt.findings],
        outcome=Outcome(
            handed_off=was.handed_off, model_calls=was.model_calls, cost_usd=was.cost_usd, cost_basis=was.cost_basis,
            seconds=was.seconds, error=None if was.error is None else ERASED,
        ),
    )  # fmt: skip
