"""Where the words of corrected runs are read: the run log, by the queries of the logger's store."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import timedelta

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from midwatch.contracts import subjects
from midwatch.errors import MidwatchError, Temporary
from midwatch.runtime.database import Database
from midwatch.runtime.settings import Settings
from midwatch_services.logger import store as log

from . import feedback, reading
from .corrections import Correction
from .feedback import Note, Texts


def texts(settings: Settings, found: Iterable[Correction]) -> dict[str, Texts]:
    """Question and answer of each run, by its id. Raises MidwatchError where the log cannot be read."""
    wanted = list(found)
    database = Database(settings.database_for(subjects.LOGGER), name=subjects.LOGGER, must_exist=True)

    def work(conn: Connection) -> dict[str, Texts]:
        return {one.run_id: feedback.texts_of(log.read_events(conn, one.agent, one.run_id)) for one in wanted}

    try:
        return database.read_now(work)
    except DBAPIError as error:
        raise Temporary(f"there is no run log at {database.where}") from error
    finally:
        database.close()


def notes(
    conn: Connection, settings: Settings, week: str, agents: Sequence[str], *, without_log: bool = False
) -> list[Note]:
    """The note of each agent. `without_log`: where the log cannot be read, without its words; else MidwatchError."""
    since, until = feedback.bounds(week)
    before = since - timedelta(days=7)
    made = []
    for agent in agents:
        found = reading.corrections(conn, since, until, agent)
        said: dict[str, Texts] = {}
        with suppress(*(MidwatchError,) if without_log else ()):
            said = texts(settings, found[: feedback.MOST]) if found else {}
        settled = (
            reading.settled_in(conn, since, until, agent), reading.settled_in(conn, before, since, agent),
        )  # fmt: skip
        earlier = reading.corrections(conn, before, since, agent)
        made.append(feedback.note(agent, week, found, earlier, settled, said))
    return made
