"""Cases that were made of runs which have been erased since. An erasure does not reach files that are the user's own:
they are named, left out of the eval set, and removed when somebody asks for it."""

import re
from collections.abc import Collection, Iterable
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

from . import load
from .load import EvalSet

RunKey = tuple[str, str]  # agent, run id
REMOVE = "`midwatch erase cases` removes it"


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the eval set that holds what an erased run said. `why_not`: why no command removes it."""

    agent: str
    path: str
    runs: list[str]
    why_not: str = ""


def of_runs(conn: Connection, runs: Iterable[RunKey]) -> set[RunKey]:
    """Those of the runs that were erased."""
    return read_erased(conn, sorted(set(runs)))


def runs_of(found: EvalSet) -> set[RunKey]:
    """The runs that the cases were made of."""
    return {(one.agent, one.run_id) for one in found.cases if one.run_id}


def without(found: EvalSet, erased: Collection[RunKey]) -> EvalSet:
    """The set without their cases and twins, of each of which a line says why."""
    gone = [one for one in found.cases if (one.agent, one.run_id) in erased]
    if not gone:
        return found
    why = f"the run that it was made of was erased on request: {REMOVE}"
    lines = [f"{one.path}:1: `{one.name}` is left out: {why}" for one in gone]
    return replace(found, cases=[one for one in found.cases if one not in gone], erased=[*found.erased, *lines])


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
    """The files that hold what these runs said."""
    found = []
    for folder in _agents(root):
        runs = {run_id for agent, run_id in erased if agent == folder.name}
        if runs:
            found += _of_agent(folder, runs)
    return found


def _of_agent(folder: Path, runs: set[str]) -> list[Standing]:
    origins = load.origins(folder)
    cases = {one.name: one.run_id for one in origins if one.run_id in runs}
    found = []
    for path in load.files(folder):
        inside = [one for one in origins if one.path == path]
        of = [one.run_id if one.run_id in runs else cases.get(one.twin_of, "") for one in inside]
        named = sorted({run_id for run_id in of if run_id})
        if named:
            whole = all(of) and not load.is_broken(path)
            why_not = "" if whole else "it holds other cases as well: take those of the run out by hand"
            found.append(Standing(agent=folder.name, path=str(path), runs=named, why_not=why_not))
        elif load.is_broken(path) and (mentioned := sorted(one for one in runs if _mentions(path, one))):
            why_not = "it cannot be read and names the run: look at it, and remove it by hand"
            found.append(Standing(agent=folder.name, path=str(path), runs=mentioned, why_not=why_not))
    return found


def remove(files: Iterable[Standing]) -> list[Standing]:
    """Removes the files, and returns those that stay, with the reason."""
    left = []
    for one in files:
        if one.why_not:
            left.append(one)
            continue
        try:
            Path(one.path).unlink(missing_ok=True)
        except OSError as error:
            why_not = f"it cannot be removed: {(error.strerror or str(error)).lower()}"
            left.append(msgspec.structs.replace(one, why_not=why_not))
    return left


def _mentions(path: Path, run_id: str) -> bool:
    try:
        return re.search(rf"(?<![\w-]){re.escape(run_id)}(?![\w-])", path.read_text("utf-8", "replace")) is not None
    except OSError:
        return False


def _agents(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if path.is_dir() and is_agent_name(path.name))
