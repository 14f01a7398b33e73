"""Cases that were made of runs which have been erased since. An erasure does not reach files that are the user's own:
they are named, left out of the eval set, and removed when somebody asks for it."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import msgspec
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from midwatch.contracts import subjects
from midwatch.contracts.subjects import is_agent_name
from midwatch.errors import MidwatchError
from midwatch.runtime.database import Database
from midwatch.runtime.settings import Settings
from midwatch_services.logger.daily import read_erased
from midwatch_services.logger.erasure import store

from . import erased_results, load
from .case import Case
from .erased_results import Standing, linked, unseen
from .load import EvalSet

RunKey = tuple[str, str]  # agent, run id
REMOVE = "`midwatch erase cases` removes it"
__all__ = ["Standing", "every", "of_runs", "read", "remove", "runs_of", "standing", "without"]


def of_runs(conn: Connection, runs: Iterable[RunKey]) -> set[RunKey]:
    """Those of the runs that were erased."""
    return read_erased(conn, sorted(set(runs)))


def runs_of(found: EvalSet) -> set[RunKey]:
    """The runs that the cases were made of."""
    return {(one.agent, run) for one in found.cases for run in one.runs or (one.run_id,) if run}


def without(found: EvalSet, erased: Collection[RunKey]) -> EvalSet:
    """The set without their cases and twins, of each of which a line says why."""
    gone = [one for one in found.cases if _is_of(one, erased)]
    if not gone:
        return found
    why = f"the run that it was made of was erased on request: {REMOVE}"
    lines = [f"{one.path}:1: `{one.name}` is left out: {why}" for one in gone]
    return replace(found, cases=[one for one in found.cases if one not in gone], erased=[*found.erased, *lines])


def _is_of(case: Case, erased: Collection[RunKey]) -> bool:
    if case.runs is None:  # whose words are in it is not told: of any case of the agent
        return any(agent == case.agent for agent, _ in erased)
    return any((case.agent, run) in erased for run in case.runs)


def read(where: Path | str, root: Path = load.FOLDER) -> EvalSet:
    """As `load.read`, without cases of erased runs, where the log can be asked. Raises NoEvalSet, BadAgentName."""
    found = load.read(where, root)
    runs = runs_of(found)
    return without(found, _ask_log(runs)) if runs else found


def _ask_log(runs: Collection[RunKey]) -> set[RunKey]:
    try:
        database = Database(Settings().database_for(subjects.LOGGER), name=subjects.LOGGER, must_exist=True)
    except MidwatchError:
        return set()
    try:
        return database.read_now(lambda conn: of_runs(conn, runs))
    except (MidwatchError, DBAPIError):
        return set()
    finally:
        database.close()


def every(conn: Connection) -> set[RunKey]:
    """All runs that were erased."""
    return {(run.agent, run.run_id) for run in store.every_run(conn)}


def standing(root: Path, erased: Collection[RunKey]) -> list[Standing]:
    """The files that hold what these runs said, and the files and folders that cannot be looked at."""
    try:
        folders = _agents(root)
    except OSError as error:
        return [unseen("", root, error)] if erased else []
    found = []
    for folder in folders:
        runs = {run_id for agent, run_id in erased if agent == folder.name}
        try:
            found += _of_agent(folder, runs) if runs else []
        except OSError as error:
            found.append(unseen(folder.name, folder, error))
    return found


def _of_agent(folder: Path, runs: set[str]) -> list[Standing]:
    origins = load.origins(folder)
    cases = {one.name: one.run_id for one in origins if not one.twin_of}
    found = []
    # Results and twins first: where they do not name their runs, only the case tells them.
    for path in sorted(load.files(folder), key=lambda path: path.parent == folder):
        inside = [one for one in origins if one.path == path]
        held = [_held(one, cases, runs) for one in inside]
        if any(one is not None for one in held):
            whole = all(one is not None for one in held) and not load.is_broken(path)
            others = "" if whole else "it holds other cases as well: take those of the run out by hand"
            named = sorted({run_id for some in held for run_id in some or ()})
            found.append(Standing(agent=folder.name, path=str(path), runs=named, why_not=linked(path) or others))
        elif one := _unknown(folder.name, path, runs):
            found.append(one)
        elif any(one.twin_of and one.runs is None and one.twin_of not in cases for one in inside):
            why_not = "its case is not there, so nobody can tell of which run it is: look at it, and remove it by hand"
            found.append(Standing(agent=folder.name, path=str(path), runs=[], why_not=why_not))
    return erased_results.standing(folder, cases, runs) + found


def _held(one: load.Origin, cases: Mapping[str, str], runs: set[str]) -> set[str] | None:
    """The runs whose words the case or twin holds, as far as that is told; None where it holds none."""
    named = {one.run_id, cases.get(one.twin_of, ""), *(one.runs or ())} & runs
    if one.how == "several" and one.runs is None:
        return named
    return named or None


def _unknown(agent: str, path: Path, runs: set[str]) -> Standing | None:
    """A file that cannot be read, where it cannot be looked at either or names one of the runs."""
    if not load.is_broken(path):
        return None
    try:
        text = path.read_text("utf-8", "replace")
    except OSError as error:
        return unseen(agent, path, error)
    named = sorted(one for one in runs if re.search(rf"(?<![\w-]){re.escape(one)}(?![\w-])", text))
    why_not = "it cannot be read and names the run: look at it, and remove it by hand"
    return Standing(agent=agent, path=str(path), runs=named, why_not=why_not) if named else None


def remove(files: Iterable[Standing]) -> list[Standing]:
    """Removes the files, takes the replays of such cases out of files of results, and returns those that stay, with
    the reason."""
    left = []
    for one in files:
        if one.why_not:
            left.append(one)
            continue
        try:
            if one.replays:
                erased_results.blank(one)
            else:
                Path(one.path).unlink(missing_ok=True)
        except OSError as error:
            why_not = f"it cannot be removed: {(error.strerror or str(error)).lower()}"
            left.append(msgspec.structs.replace(one, why_not=why_not))
        except MidwatchError as error:
            left.append(msgspec.structs.replace(one, why_not=str(error)))
    return left


def _agents(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir() and is_agent_name(path.name))
    except (FileNotFoundError, NotADirectoryError):
        return []
