"""Makes cases: of runs in the log, and of published run files. It reads the log, and writes files of the eval set."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from midwatch.contracts import subjects
from midwatch.errors import MidwatchError
from midwatch.runtime.database import Database, NoDatabase
from midwatch.runtime.settings import Settings
from midwatch_services.logger import store
from midwatch_services.replay import formats
from midwatch_services.replay.source import SourceRun
from midwatch_services.reviewer_sampler import reading as reviewed

from . import kinds as tool_kinds
from . import load, logged, published, write
from .case import Case, Kind
from .logged import Part, Review

T = TypeVar("T")


class NoRun(MidwatchError):
    """No run {run_id!r} is in the log: list them with `midwatch runs`."""


class ManyRuns(MidwatchError):
    """{agents} each have a run {run_id!r}: say whose with --agent."""


class Erased(MidwatchError):
    """What run {run_id!r} said was erased on request: it makes no case, take another run."""


class SaysNothing(MidwatchError):
    """The customer of run {run_id!r} says nothing up to there: there is nothing to replay, take another run."""


class NameTaken(MidwatchError):
    """A case {name} stands in {path} already: choose another name with `--name`."""


class NotInFile(MidwatchError):
    """The files hold no run {run_ids}: `midwatch replay` reads the same ones."""


@dataclass(frozen=True, slots=True)
class Made:
    """A case that is not written yet, and where it is to stand."""

    path: Path
    case: Case
    text: str

    def save(self) -> Path:
        """Raises FileIsThere, CannotWrite, DoesNotRead."""
        write.save(self.path, self.text, self.case)
        return self.path


def of_run(
    run_id: str, *, agent: str | None = None, corrected: str = "", by: str = "", folder: Path | None = None,
    until: int | None = None, turn: int | None = None, name: str | None = None, failed: bool = False,
    kinds: Mapping[str, Kind] | None = None, settings: Settings | None = None,
) -> Made:  # fmt: skip
    """A case of a run in the log.

    `folder`: the agent's in the eval set. `until`: the seq of the run's event at which the conversation ends; `turn`:
    the customer's message after which it does. `corrected`: what `by` says that the agent should have answered.
    `failed`: whether a reviewer failed the run, where the log may not know it yet: then nothing that it did is asked
    for. `kinds`: of the tools; by default the applied card's, to which a tool that it does not name
    is a write; without a card what the run said.

    Raises NoRun, ManyRuns, Erased, SaysNothing, NameTaken, NoDatabase.
    """
    settings = settings or Settings()
    run, events, verdict = _read(settings, subjects.LOGGER, lambda conn: _logged(conn, run_id, agent))
    owner = str(run["agent"])
    if any("erased" in one for one in events):
        raise Erased(run_id=run_id)
    review = _review(settings, owner, run_id, verdict, corrected, by, failed)
    known = kinds
    if known is None and (card := tool_kinds.applied(settings, owner)) is not None:
        called = {str(one["data"]["tool"]) for one in events if one["event"] == "tool_called"}
        known = {
            **dict.fromkeys(called, "write"),
            **card,
        }  # as the card has it: a tool that it does not name is a write
    case = logged.case_of(owner, run_id, name or logged.name_of(run_id), events, known or {}, Part(until, turn), review)
    if not case.turns:
        raise SaysNothing(run_id=run_id)
    cut = any(one["data"].get("truncated") for one in events if one["event"] == "tool_called")
    target = folder or load.folder_of(owner, settings.evals)
    if target.is_dir():
        for other in load.load(target)[0]:
            if other.name == case.name:
                raise NameTaken(name=case.name, path=other.path)
    path = target / f"{case.name}.yaml"
    return Made(path, case, write.text(case, logged.notes_of(review, case, cut)))


def whose(run_id: str, settings: Settings | None = None) -> str:
    """Which agent's run it is. Raises NoRun, ManyRuns, NoDatabase."""
    run, _, _ = _read(settings or Settings(), subjects.LOGGER, lambda conn: _logged(conn, run_id, None))
    return str(run["agent"])


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of one run: its case's file, or why there is none. `unknown`: tools that count as no writes since
    nobody says what they do."""

    run_id: str
    path: Path | None = None
    why: str = ""
    unknown: frozenset[str] = frozenset()


def import_runs(
    path: Path, agent: str, kinds: Mapping[str, Mapping[str, Kind]], wish: published.Wish, folder: Path
) -> Iterator[Imported]:
    """Makes cases of a file of published runs; one that makes none does not keep the others.

    Raises NotInFile for runs that were named, UnknownFormat, Unreadable.
    """
    runs, bad = _published(path)
    yield from (Imported(one.place, why=f"{one.place}: {one.error}") for one in bad)
    chosen = published.choose(runs, wish)
    if missing := [one for one in wish.runs if one not in {run.run_id for run in chosen}]:
        raise NotInFile(run_ids=", ".join(missing))
    for run in chosen:
        try:
            case = published.case_of(run, agent, tool_kinds.in_domain(kinds, run.domain))
            target = folder / f"{case.name}.yaml"
            write.save(target, write.text(case), case)
        except MidwatchError as error:
            yield Imported(run.run_id, why=str(error))
        else:
            yield Imported(run.run_id, target, unknown=frozenset(published.unknown_tools(case)))


def _published(path: Path) -> tuple[list[SourceRun], list[formats.Bad]]:
    runs: list[SourceRun] = []
    bad: list[formats.Bad] = []
    for entry in formats.read(path):
        if isinstance(entry, formats.Bad):
            bad.append(entry)
        else:
            runs.append(entry.run)
    return runs, bad


Logged = tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any] | None]


def _logged(conn: Connection, run_id: str, agent: str | None) -> Logged:
    found = store.read_runs(conn, run_id=run_id, agent=agent)
    if not found:
        raise NoRun(run_id=run_id)
    if len(found) > 1:
        raise ManyRuns(run_id=run_id, agents=", ".join(sorted(one["agent"] for one in found)))
    whose = found[0]["agent"]
    return found[0], store.read_events(conn, whose, run_id), store.read_review(conn, whose, run_id)


def _review(
    settings: Settings, agent: str, run_id: str, verdict: dict[str, Any] | None, corrected: str, by: str,
    failed: bool,
) -> Review:  # fmt: skip
    """What people said of the run. What one of several reviewers said is told once the verdict stands, not before."""
    try:
        said = _read(settings, subjects.REVIEWER_SAMPLER, lambda conn: reviewed.said_of(conn, agent, run_id))
    except (MidwatchError, DBAPIError):
        said = reviewed.Said()
    logged_fail = verdict is not None and verdict["verdict"] == "fail"
    review = Review(
        failed=bool(failed or corrected.strip() or said.failed or logged_fail),
        corrected=corrected or (said.corrected if said.settled else ""),
        by=by,
    )
    return replace(review, reasons=said.reasons, notes=said.notes) if said.settled and review.failed else review


def _read(settings: Settings, service: str, work: Callable[[Connection], T]) -> T:
    database = Database(settings.database_for(service), name=service, must_exist=True)
    try:
        return database.read_now(work)
    except DBAPIError:
        raise NoDatabase(where=database.where) from None
    finally:
        database.close()
