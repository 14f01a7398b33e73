"""What the commands of `midwatch reviews` read in the sampler's database."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from .output import FAILED, fail

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

T = TypeVar("T")


def read_queue(work: "Callable[[Connection], T]", *, quiet: bool = False) -> T:
    """What `work` reads; ends the command with one line where there is no database, or without one if `quiet`."""
    from sqlalchemy.exc import DBAPIError

    from midwatch.contracts import subjects
    from midwatch.errors import MidwatchError
    from midwatch.runtime.database import Database, NoDatabase
    from midwatch.runtime.settings import Settings

    database = None
    try:
        url = Settings().database_for(subjects.REVIEWER_SAMPLER)
        database = Database(url, name=subjects.REVIEWER_SAMPLER, must_exist=True)
        return database.read_now(work)
    except (MidwatchError, DBAPIError) as error:
        if quiet:
            raise typer.Exit(FAILED) from None
        absent = isinstance(error, DBAPIError) and database is not None
        fail(str(NoDatabase(where=database.where)) if absent and database else str(error))
    finally:
        if database is not None:
            database.close()


def waits_for_more(pending: int) -> str:
    """That so many runs were judged and are in no figure yet."""
    head = "1 more was judged and waits" if pending == 1 else f"{pending:,} more were judged and wait"
    return f"{head} for one more person, as every fail does: not in this figure"


def causes(row: dict[str, Any]) -> list[str]:
    """Why a run of the queue is read, in words."""
    drawn = ["drawn"] if row["drawn"] else []
    return drawn + [_word(cause) for cause in json.loads(row["causes"])]


def _word(cause: Any) -> str:
    if isinstance(cause, dict):
        cause = list(cause.values())
    if isinstance(cause, list):
        return ": ".join(str(part).replace("_", " ") for part in cause if part)
    return str(cause).replace("_", " ")
