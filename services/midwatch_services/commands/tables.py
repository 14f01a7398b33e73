"""What commands read from kill-switch's tables."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .output import fail

if TYPE_CHECKING:
    from midwatch.runtime.database import Database


@contextmanager
def kill_switch_tables(what: str) -> "Iterator[Database]":
    """kill-switch's database, in which `what` is looked for; ends the command with one line where there is none."""
    from sqlalchemy.exc import OperationalError, ProgrammingError

    from midwatch.contracts import subjects
    from midwatch.errors import MidwatchError
    from midwatch.runtime.database import Database
    from midwatch.runtime.settings import Settings

    try:
        database = Database(Settings().database_for(subjects.KILL_SWITCH), name=subjects.KILL_SWITCH, must_exist=True)
    except MidwatchError as error:
        fail(str(error))
    try:
        yield database
    except (OperationalError, ProgrammingError):
        fail(f"there is no {what} in {database.where} yet: start kill-switch with `midwatch run kill-switch`")
    except MidwatchError as error:
        fail(str(error))
    finally:
        database.close()
