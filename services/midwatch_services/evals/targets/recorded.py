"""The target `recorded:FILE`: runs that already happened, as their file has them."""

from collections.abc import Iterable
from pathlib import Path

from midwatch_services.replay.formats import Found, UnknownFormat, Unreadable, read
from midwatch_services.replay.source import SourceRun

from ..calling import BadTarget
from ..case import Case
from ..outcome import Outcome
from ..recorded import outcome_of
from .base import NotReplayed


class RecordedTarget:
    """The run of a case is the one that it was made from; where the file, or the model that is asked for, has no such,
    the runs of its task, one after another as it is repeated."""

    history = True

    def __init__(self, runs: Iterable[SourceRun], model: str | None) -> None:
        self._model = model
        self._by_id: dict[str, SourceRun] = {}
        self._by_task: dict[str, list[SourceRun]] = {}
        for run in sorted(runs, key=lambda one: (one.source.trial or 0, one.run_id)):
            self._by_id[run.run_id] = run
            self._by_task.setdefault(_task(run), []).append(run)

    async def replay(self, case: Case, attempt: int) -> Outcome:
        own = self._by_id.get(case.run_id)
        runs = [own] if own else self._by_task.get(case.task, [])
        if not runs:
            by = f" by {self._model}" if self._model else ""
            which = f"neither {case.run_id!r} nor one of task {case.task!r}"
            raise NotReplayed(f"the file holds no run{by} for this case: {which}")
        return outcome_of(runs[attempt % len(runs)], case.kinds)


def load(path: Path, model: str | None, cases: Iterable[Case]) -> RecordedTarget:
    """The runs in the file that the cases can ask for. Raises BadTarget."""
    target = f"recorded:{path}"
    ids, tasks = {case.run_id for case in cases if case.run_id}, {case.task for case in cases if case.task}
    models: set[str] = set()
    kept: list[SourceRun] = []
    try:
        for found in read(path):
            if not isinstance(found, Found):
                continue  # what is missing for it is said of the case
            name = found.run.agent.model or "unknown"
            models.add(name)
            if (model is None or model in (name, name.rpartition("/")[2])) and (
                found.run.run_id in ids or _task(found.run) in tasks
            ):
                kept.append(found.run)
    except (UnknownFormat, Unreadable) as error:
        raise BadTarget(target=target, why=f"it is {error}" if isinstance(error, UnknownFormat) else error) from None
    if model is not None and not any(model in (name, name.rpartition("/")[2]) for name in models):
        raise BadTarget(target=target, why=f"it holds no run by {model!r}: it has {', '.join(sorted(models))}")
    return RecordedTarget(kept, model)


def _task(run: SourceRun) -> str:
    return f"{run.domain}/{run.task_id}"
