"""The target `recorded:FILE`: runs that already happened, as their file, or an export of the log, has them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from midwatch.errors import MidwatchError
from midwatch_services.logger.transfer.layout import NoExport
from midwatch_services.replay.formats import Found, UnknownFormat, Unreadable
from midwatch_services.replay.formats import read as read_runs

from .. import exported
from ..calling import BadTarget
from ..case import Case, Kind
from ..outcome import Outcome
from ..recorded import outcome_of
from .base import NotReplayed


@dataclass(frozen=True, slots=True)
class Past:
    """A run that happened. `model`: its agent's, or of an export its version."""

    run_id: str
    task: str
    model: str
    trial: int
    outcome: Callable[[Mapping[str, Kind]], Outcome]


class RecordedTarget:
    """The run of a case is the one that it was made from; where the file, or the model that is asked for, has no such,
    the runs of its task, one after another as it is repeated."""

    history = True

    def __init__(self, runs: Iterable[Past], model: str | None) -> None:
        self._model = model
        self._by_id: dict[str, Past] = {}
        self._by_task: dict[str, list[Past]] = {}
        for run in sorted(runs, key=lambda one: (one.trial, one.run_id)):
            self._by_id[run.run_id] = run
            self._by_task.setdefault(run.task, []).append(run)

    async def replay(self, case: Case, attempt: int) -> Outcome:
        own = self._by_id.get(case.run_id)
        runs = [own] if own else self._by_task.get(case.task, []) if case.task else []
        if not runs:
            by = f" by {self._model}" if self._model else ""
            which = f"neither {case.run_id!r} nor one of task {case.task!r}"
            raise NotReplayed(f"the file holds no run{by} for this case: {which}")
        return runs[attempt % len(runs)].outcome(case.kinds)


def load(path: Path, model: str | None, cases: Iterable[Case]) -> RecordedTarget:
    """The runs in the file that the cases can ask for. Raises BadTarget."""
    target, models = f"recorded:{path}", set()
    ids, tasks = {case.run_id for case in cases if case.run_id}, {case.task for case in cases if case.task}
    kept = []
    try:
        for run in _exported(path, ids, tasks) if path.is_dir() else _published(path):
            models.add(run.model)
            if _is(run, model) and (run.run_id in ids or run.task in tasks):
                kept.append(run)
    except UnknownFormat as error:
        raise BadTarget(target=target, why=f"it is {error}") from None
    except (Unreadable, NoExport, exported.BadExport) as error:
        raise BadTarget(target=target, why=_words(error)) from None
    if model is not None and not kept and model not in {name.rpartition("/")[2] for name in models} | models:
        raise BadTarget(target=target, why=f"it holds no run by {model!r}: it has {', '.join(sorted(models))}")
    return RecordedTarget(kept, model)


def _published(path: Path) -> Iterable[Past]:
    for found in read_runs(path):
        if isinstance(found, Found):  # what is missing for a line that is bad is said of the case
            run = found.run
            yield Past(
                run.run_id, f"{run.domain}/{run.task_id}", run.agent.model or "unknown", run.source.trial or 0,
                lambda kinds, run=run: outcome_of(run, kinds),  # type: ignore[misc]
            )  # fmt: skip


def _exported(path: Path, ids: set[str], tasks: set[str]) -> Iterable[Past]:
    for run_id, events in exported.read(path, ids, tasks).items():
        data = events[0][1]
        trial = data.labels.get("trial", "")
        yield Past(
            run_id, exported.task_of(data), data.version, int(trial) if trial.isdecimal() else 0,
            lambda kinds, events=events: exported.outcome_of(events, kinds),  # type: ignore[misc]
        )  # fmt: skip


def _is(run: Past, model: str | None) -> bool:
    return model is None or model in (run.model, run.model.rpartition("/")[2])


def _words(error: MidwatchError) -> str:
    return str(error).rstrip(".")
