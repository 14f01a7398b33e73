"""The review queue: what waits, who holds what, how well reviewers agree, and what they corrected."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError
from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch.contracts.claims import Taken
from midwatch.contracts.reviews import ReviewJudged
from midwatch.errors import MidwatchError, Temporary
from midwatch.runtime.settings import Settings
from midwatch_services.commands.reviews_read import causes
from midwatch_services.reviewer_sampler import store
from midwatch_services.reviewer_sampler.judging import agreement, feedback, reading, render, sources, waiting
from midwatch_services.reviewer_sampler.judging.agreement import Agreement, Kappa, Rate
from midwatch_services.reviewer_sampler.judging.desk import Desk, NobodyAnswers, left
from midwatch_services.reviewer_sampler.judging.feedback import Note
from midwatch_services.reviewer_sampler.judging.waiting import Progress, Settled, Waits
from midwatch_services.reviewer_sampler.schedule import decide as schedule
from midwatch_services.reviewer_sampler.schedule import store as planned

from . import ready

SERVICE = subjects.REVIEWER_SAMPLER
SOURCE = "/people/console"
NAME_LIMIT = 128  # characters of a reviewer's name, as the sampler keeps it
LEAST = agreement.LEAST
__all__ = [
    "Agreement",
    "Connection",
    "Desk",
    "Kappa",
    "Note",
    "Progress",
    "Rate",
    "Settings",
    "Settled",
    "Taken",
    "Waits",
    "left",
]

progress = waiting.progress
standing = waiting.standing
unsettled = waiting.unsettled
agents = waiting.agents
judged_agents = reading.agents
last_week, week_of, bounds = feedback.last_week, feedback.week_of, feedback.bounds


def name_of(by: str) -> str:
    """A person's name, as the sampler keeps it."""
    return by.strip()[:NAME_LIMIT] or "unknown"


def desk(nc: Client, by: str) -> Desk:
    """Where a person takes runs and says what they are worth."""
    return Desk(nc, name_of(by), SOURCE)


async def say(at: Desk, data: ReviewJudged, id: str) -> None:
    """Says it, kept by the stream once for each `id`. Raises Temporary without that."""
    try:
        await at.judge(data, id)
    except (NatsError, TimeoutError, OSError) as error:
        raise Temporary(f"what you said could not be kept: {error or type(error).__name__}") from error


@dataclass(frozen=True, slots=True)
class Queue:
    """A page of what waits. `backlog`: a row an agent, with how many wait and for how many there is time today.
    `not_now`: those of them that cannot be judged now, and count for neither."""

    rows: list[Waits]
    more: bool
    backlog: list[dict[str, Any]]
    settled: list[Settled]
    day: str
    not_now: Mapping[ready.Key, ready.NotNow] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        return max(0, sum(int(one["waiting"]) for one in self.backlog) - len(self.not_now))

    @property
    def today(self) -> int:
        late = sum(one.due_day <= self.day for one in self.not_now.values())
        return max(0, sum(int(one["today"]) for one in self.backlog) - late)

    @property
    def last_day(self) -> str:
        return max((str(one["last_day"]) for one in self.backlog), default="")


def queue(conn: Connection, agent: str | None, now: datetime, first: int, size: int) -> Queue:
    """What waits, in the order in which it is given, and what was settled last."""
    rows, today = waiting.waiting(conn, agent, size + 1, first), schedule.day_of(now.timestamp())
    backlog = planned.backlog(conn, agent, today)
    return Queue(rows[:size], len(rows) > size, backlog, waiting.settled(conn, agent, 20), today)


def why(row: Waits) -> list[str]:
    """Why a run is read, in words."""
    return causes({"drawn": row.drawn, "causes": msgspec.json.encode(row.causes).decode()})


def causes_of(conn: Connection, agent: str, run_id: str) -> list[str]:
    """The same of one run."""
    return [cause for row in store.of_run(conn, agent, run_id) for cause in causes(row)]


def agreements(conn: Connection) -> list[Agreement]:
    """Each agent's, and that of all where there are several."""
    reads = reading.reads(conn)
    return agreement.of(sorted({read.agent for read in reads}), reads)


def notes(conn: Connection, settings: Settings, week: str, agents: Sequence[str]) -> list[Note]:
    """What people corrected in a week, of each agent of which they did."""
    made = sources.notes(conn, settings, week, list(agents) or reading.agents(conn), without_log=True)
    return [note for note in made if note.groups]


def markdown(notes: Sequence[Note], week: str) -> str:
    """The same as `midwatch reviews feedback` writes it."""
    return "\n".join(map(render.markdown, notes)) or f"# What people corrected: week {week}\n\nNothing.\n"


def trouble(error: MidwatchError) -> Literal["silent", "refused"]:
    """Why the sampler gave nothing: nobody answers, or it says why itself."""
    return "silent" if isinstance(error, NobodyAnswers) else "refused"
