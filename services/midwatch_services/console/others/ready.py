"""Which of the runs that wait for a review a person cannot judge now: judged already, read by others, or going on."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Literal

from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch_services.console.reading import Found, Reading
from midwatch_services.reviewer_sampler.judging import waiting

from . import runs

Key = tuple[str, str]  # agent and run id
Why = Literal["mine", "held", "goes_on"]
_LONGEST, _MOST = timedelta(days=1), 500  # of the runs that are looked up in the run log: a run ends in minutes


@dataclass(frozen=True, slots=True)
class NotNow:
    """Why a run cannot be judged now, and on which day it is due."""

    why: Why
    due_day: str


@dataclass(frozen=True, slots=True)
class _Asked:
    taken: Mapping[Key, NotNow]
    newest: Mapping[Key, str]  # their days


async def not_now(
    reading: Reading, by: str, now: datetime, *, keep: bool = False, still: timedelta
) -> Found[dict[Key, NotNow]]:
    """What waits and cannot be judged by this person now. `still`: since its last event, for which a run without an end
    goes on; where the run log cannot be read none does."""
    asked = await reading.read(
        subjects.REVIEWER_SAMPLER, partial(_asked, by=by, now=now), keep=("not-now", by) if keep else (),
        seconds=1.0 if keep else 0.0,
    )  # fmt: skip
    if asked.value is None:
        return Found(asked.service, problem=asked.problem)
    newest = asked.value.newest
    going = await reading.read(runs.SERVICE, lambda conn: runs.going_on(conn, newest, now - still))
    found = {one: NotNow("goes_on", newest[one]) for one in going | set()}
    return Found(asked.service, {**found, **asked.value.taken})


def _asked(conn: Connection, *, by: str, now: datetime) -> _Asked:
    taken = {
        (one.agent, one.run_id): NotNow("mine" if one.is_own else "held", one.due_day)
        for one in waiting.not_for(conn, by, now)
    }
    return _Asked(taken, waiting.newest(conn, now - _LONGEST, _MOST))
