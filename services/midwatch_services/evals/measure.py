"""Holds a judge against what people agreed on of runs in the log, and keeps how often both said the same."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch.errors import MidwatchError
from midwatch.runtime.database import Database
from midwatch.runtime.settings import Settings
from midwatch_services.logger import store

from . import judges, kinds, logged, trusted, write
from .judges import Judge


class NothingSettled(MidwatchError):
    """No run of {agent} has a verdict that stands, pass or fail: people have to review runs first, see `midwatch
    reviews`."""


class WrongFile(MidwatchError):
    """{line}"""


@dataclass(slots=True)
class Measurement:
    """What came of it. `silent`: runs on which the judge gave no answer, each with why; they count as not agreed."""

    spec: str
    pairs: list[tuple[bool, bool]] = field(default_factory=list)  # people's yes or no, and the judge's
    silent: list[tuple[str, str]] = field(default_factory=list)

    @property
    def runs(self) -> int:
        """How many runs were shown to it."""
        return len(self.pairs) + len(self.silent)

    @property
    def agreed(self) -> int:
        """On how many it said what people say."""
        return sum(people == judge for people, judge in self.pairs)

    def entry(self, now: datetime) -> dict[str, object]:
        """As `judges.yaml` has it."""
        found: dict[str, object] = {
            "judge": self.spec, "runs": self.runs, "agreed": self.agreed,
            "at": now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        }  # fmt: skip
        kappa = judges.kappa(self.pairs)
        return found if kappa is None else found | {"kappa": round(kappa, 3)}


async def measure(
    settings: Settings, agent: str, spec: str, judge: Judge, told: Callable[[int], None] = lambda _: None
) -> Measurement:
    """Asks the judge about each settled run, one after the other. Raises NothingSettled, NoDatabase."""
    database = Database(settings.database_for(subjects.LOGGER), name=subjects.LOGGER, must_exist=True)
    known = kinds.applied(settings, agent) or {}
    made = Measurement(spec)
    try:
        settled = [one for one in database.read_now(lambda conn: store.read_settled(conn, agent))
                   if one[1] in ("pass", "fail")]  # fmt: skip
        for run_id, verdict in settled:
            events = database.read_now(lambda conn, run_id=run_id: _events(conn, agent, run_id))  # type: ignore[misc]
            if not events:
                continue  # erased, or no longer kept
            outcome = logged.outcome_of(events, known)
            answer = await judges.ask_about(judge, logged.conversation_of(events), outcome)
            if answer.ok is None:
                made.silent.append((run_id, answer.said))
            else:
                made.pairs.append((verdict == "pass", answer.ok))
            told(made.runs)
    finally:
        database.close()
    if not made.runs:
        raise NothingSettled(agent=agent)
    return made


def keep(folder: Path, measured: Measurement, now: datetime) -> Path:
    """Writes what came of it into `judges.yaml`, in place of what is known of that judge. Raises WrongFile,
    CannotWrite."""
    known, wrong = trusted.read(folder)
    if wrong:
        raise WrongFile(line=wrong[0])
    entries = [one.model_dump(exclude_none=True) for name, one in known.items() if name != measured.spec]
    entries.append(measured.entry(now))
    path = folder / trusted.FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(write.comments(_head()) + write.dump(sorted(entries, key=lambda one: str(one["judge"]))))
    except OSError as error:
        raise write.CannotWrite(path=path, why=(error.strerror or str(error)).lower()) from None
    return path


def _head() -> Iterator[str]:
    yield "Written by `midwatch eval judge`. A judge may be a case's only criterion once it said the same as people"
    yield f"on at least {trusted.ENOUGH} settled runs, with a kappa of at least {trusted.KAPPA:g}."


def _events(conn: Connection, agent: str, run_id: str) -> list[dict[str, object]]:
    events = store.read_events(conn, agent, run_id)
    return [] if any("erased" in one for one in events) else events
