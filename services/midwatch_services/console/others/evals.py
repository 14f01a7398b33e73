"""The eval sets, from the folder that the settings name, and what the gate said, from the bus."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any

from nats.aio.client import Client

from midwatch.contracts import subjects
from midwatch.contracts.subjects import is_agent_name
from midwatch.errors import MidwatchError
from midwatch.runtime.settings import Settings
from midwatch_services.evals import agreeing, erased, gate_files, load, logged, make, verdicts, words
from midwatch_services.evals.agreeing import AgreedBefore, CannotAgree
from midwatch_services.evals.case import Case, same_person
from midwatch_services.evals.judge import asks, gates
from midwatch_services.evals.load import EvalSet
from midwatch_services.evals.make import Made
from midwatch_services.evals.outcome import CaseResult, Results
from midwatch_services.evals.verdicts import Said

LARGEST = 20 * 1024 * 1024  # bytes of a file of results that a page reads
_writing = Lock()
_kept: dict[tuple[Any, ...], Any] = {}
_KEPT = 32  # sets and results that are remembered
__all__ = ["AgreedBefore", "CannotAgree", "Case", "CaseResult", "EvalSet", "Made", "Results", "Said"]

history: Callable[[Client, str], Any] = verdicts.history
criteria = words.criteria
LOG = subjects.LOGGER
runs_of, of_runs, without_erased = erased.runs_of, erased.of_runs, erased.without


@dataclass(frozen=True, slots=True)
class Last:
    """The results of the newest replay, or why there are none to show, by a text of `evals.last`."""

    results: Results | None = None
    problem: str = ""


def agents(settings: Settings) -> list[str]:
    """Whose eval sets the folder holds."""
    try:
        return sorted(path.name for path in settings.evals.iterdir() if path.is_dir() and is_agent_name(path.name))
    except OSError:
        return []


def eval_set(settings: Settings, agent: str) -> EvalSet | None:
    """An agent's cases; None where there are none. A set that has not changed since is not read again."""
    folder = load.folder_of(agent, settings.evals)
    if not folder.is_dir():
        return None
    try:
        files = [*load.files(folder), folder / "judges.yaml"]
        return _once(("set", folder, *map(_mark, files)), lambda: load.read(agent, settings.evals))  # type: ignore[no-any-return]
    except (MidwatchError, OSError):
        return None


def without(found: EvalSet, runs: Collection[str] | None) -> EvalSet:
    """Without the cases of these runs and their twins; of any run where it is None."""
    hidden = _hidden(found, runs)
    return replace(found, cases=[one for one in found.cases if not hidden & {one.name, one.twin_of}])


def named(names: Sequence[str], found: EvalSet | None, runs: Collection[str] | None) -> list[str]:
    """Of what the gate names, what `without` leaves. A case that is not in the set is told by its name from one that
    was made of such a run, and where the runs are not known it is left out."""
    cases = found.cases if found else []
    hidden = _hidden(found, runs) if found else set()
    if runs is None:
        known = {one.name for one in cases} - hidden
        return [name for name in names if name in known]
    hidden |= {logged.name_of(run) for run in runs}
    return [name for name in names if name not in hidden]


def _hidden(found: EvalSet, runs: Collection[str] | None) -> set[str]:
    return {one.name for one in found.cases if one.run_id and (runs is None or one.run_id in runs)}


def last(settings: Settings, agent: str) -> Last:
    """What the newest replay came to."""
    try:
        path = gate_files.newest(settings.evals, agent)
        if path.stat().st_size > LARGEST:
            return Last(problem="large")
        return Last(_once(("results", agent, path, _mark(path)), lambda: gate_files.read(path, agent)))
    except gate_files.NoResults:
        return Last(problem="none")
    except (MidwatchError, OSError):
        return Last(problem="bad")


def _mark(path: Path) -> tuple[str, int, int]:
    try:
        found = path.stat()
    except OSError:
        return str(path), 0, 0
    return str(path), found.st_mtime_ns, found.st_size


def _once(name: tuple[Any, ...], read: Callable[[], Any]) -> Any:
    if name not in _kept:
        if len(_kept) >= _KEPT:
            _kept.clear()
        _kept[name] = read()
    return _kept[name]


def gate_of(case: Case) -> tuple[bool, str]:
    """Whether the case gates, and if not why, by a text of `evals.why`: people are counted, not named."""
    does, why = gates(case)
    if does:
        return True, ""
    if case.twin_of:
        return False, "twin"
    if not asks(case):
        return False, "asks_nothing"
    if "only criterion is the judge" in why:
        return False, "judge"
    return False, "one_more" if len(case.agrees) else "two"


def agrees(case: Case, by: str) -> bool:
    """Whether this very person agrees with the criteria as they stand."""
    return same_person(by) in {same_person(one) for one in case.agrees}


def agree(case: Case, by: str, now: datetime) -> Case:
    """As `midwatch eval agree`; one at a time, since each writes the file anew. Raises MidwatchError."""
    with _writing:
        return agreeing.agree(case, by, now)


def may_agree(case: Case) -> bool:
    """Whether anybody could agree with it."""
    return not case.twin_of and asks(case)


def case_of(settings: Settings, agent: str, run_id: str, corrected: str, by: str) -> Made:
    """A case of a run that its reviewer just failed, not written yet. Raises MidwatchError."""
    return make.of_run(run_id, agent=agent, corrected=corrected, by=by, failed=True, settings=settings)


def keep_case(made: Made) -> Path:
    """Writes it, unless there is such a file by now. Raises MidwatchError."""
    with _writing:
        return made.save()
