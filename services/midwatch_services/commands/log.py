"""The run log's database, for the commands that change it through the logger's own store."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .output import fail

if TYPE_CHECKING:
    from midwatch.runtime.database import Database


@contextmanager
def the_log() -> "Iterator[Database]":
    """The logger's database; ends the command with one line where there is none."""
    from sqlalchemy.exc import OperationalError, ProgrammingError

    from midwatch.contracts import subjects
    from midwatch.errors import MidwatchError
    from midwatch.runtime.database import Database
    from midwatch.runtime.settings import Settings

    try:
        # By the logger's name, so that its processes and this one write one after another.
        url = Settings().database_for(subjects.LOGGER)
        database = Database(url, name=subjects.LOGGER, must_exist=True, writes=True)
    except MidwatchError as error:
        fail(str(error))
    try:
        yield database
    except (OperationalError, ProgrammingError) as error:
        missing = ("no such table", "no such column", "does not exist")
        if not any(words in str(error.orig) for words in missing):
            raise
        fail(f"the run log in {database.where} is not there or of an earlier release: start `midwatch run logger` once")
    except MidwatchError as error:
        fail(str(error))
    finally:
        database.close()
